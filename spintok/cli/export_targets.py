"""What ``spintok export`` does for each target: read the files that the options name, and call the library."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from spintok.cli.output import say
from spintok.data.labels.transcripts import Transcripts
from spintok.export import (
    ExportSummary,
    Packing,
    TurnTaking,
    UnitBpe,
    Vocabulary,
    export_bpe,
    export_dialogue,
    export_files,
    export_interleaved,
    export_monologue,
    export_packed,
    extend_tokenizer,
    open_source,
    read_dialogues,
    read_words,
    text_encoder,
)
from spintok.export.packed.dataset import DocumentTask
from spintok.export.targets import FileTarget
from spintok.export.vocabulary import SPECIALS
from spintok.tokenizer import Tokenizer

__all__ = [
    "bpe",
    "dialogue",
    "files",
    "hf_tokenizer",
    "packed",
    "print_rows",
    "report",
    "summary_lines",
    "with_words",
]


def files(
    folders: Sequence[Path],
    output: Path,
    to: FileTarget,
    codebooks: Sequence[str] | None,
    text: Path | None,
    **options: Any,
) -> ExportSummary:
    """Export files; the remaining options are those of ``export_files``."""
    transcripts = None if text is None else Transcripts(text)
    return export_files(folders, output, to, codebooks=codebooks, transcripts=transcripts, **options)


def packed(
    folders: Sequence[Path],
    output: Path,
    codebook: Sequence[str] | None,
    vocabulary: Path | None,
    task: DocumentTask,
    text: Path | None,
    bpe: Path | None,
    **options: Any,
) -> ExportSummary:
    """Export packed data; the remaining options are those of ``export_packed``."""
    return export_packed(
        folders,
        output,
        codebook=_one(codebook),
        vocabulary=None if vocabulary is None else Vocabulary.load(vocabulary),
        task=task,
        transcripts=None if text is None else Transcripts(text),
        encode_text=text_encoder(vocabulary) if vocabulary is not None and task != "speech" else None,
        bpe=None if bpe is None else UnitBpe.load(bpe),
        **options,
    )


WITH_WORDS: dict[str, Callable[..., ExportSummary]] = {"interleaved": export_interleaved, "monologue": export_monologue}


def with_words(
    to: Literal["interleaved", "monologue"],
    folders: Sequence[Path],
    output: Path,
    codebook: Sequence[str] | None,
    vocabulary: Path | None,
    words: Path | None,
    storage: dict[str, Any],
    **options: Any,
) -> ExportSummary:
    """Export speech with the text of its words; the remaining options are those of the function in ``WITH_WORDS``."""
    if vocabulary is None or words is None:
        raise ValueError(f"--to {to} needs --words FILE, and --vocabulary FOLDER of an extended tokenizer")
    return WITH_WORDS[to](
        folders,
        output,
        codebook=_one(codebook),
        vocabulary=Vocabulary.load(vocabulary),
        encode_text=text_encoder(vocabulary),
        words=read_words(words),
        packing=Packing(**storage),
        **options,
    )


def dialogue(
    folders: Sequence[Path],
    output: Path,
    codebook: Sequence[str] | None,
    vocabulary: Path | None,
    dialogues: Path | None,
    words: Path | None,
    storage: dict[str, Any],
    turn_taking: dict[str, Any],
    **options: Any,
) -> ExportSummary:
    """Export dialogues; the remaining options are those of ``export_dialogue``."""
    if dialogues is None:
        raise ValueError("--to dialogue needs --dialogues FILE, which says which utterances are its channels")
    if words is not None and vocabulary is None:
        raise ValueError("--words needs --vocabulary FOLDER of an extended tokenizer")
    return export_dialogue(
        folders,
        output,
        read_dialogues(dialogues),
        codebook=_one(codebook),
        vocabulary=None if vocabulary is None else Vocabulary.load(vocabulary),
        encode_text=None if vocabulary is None or words is None else text_encoder(vocabulary),
        words=None if words is None else read_words(words),
        manner=TurnTaking(**turn_taking),
        packing=Packing(**storage),
        **options,
    )


def bpe(
    folders: Sequence[Path], output: Path, sizes: Sequence[int], codebook: Sequence[str] | None, **options: Any
) -> list[dict[str, Any]]:
    """Learn BPEs; the remaining options are those of ``export_bpe``. Return its rows."""
    return export_bpe(folders, output, sizes, codebook=_one(codebook), **options)


def hf_tokenizer(
    folders: Sequence[Path],
    output: Path,
    base: str | None,
    tokenizer: Tokenizer | None,
    codebook: Sequence[str] | None,
    bpe: Path | None,
    special: Sequence[str],
    **options: Any,
) -> str:
    """Extend a tokenizer; the remaining options are those of ``extend_tokenizer``. Return a line about the result."""
    if base is None:
        raise ValueError("name the tokenizer to extend with --base FOLDER")
    if bool(folders) == (tokenizer is not None):
        raise ValueError("give either token folders or --tokenizer NAME, to say which tokenizer's tokens to add")
    if tokenizer is not None:
        name, fingerprint = tokenizer.name, tokenizer.fingerprint
        sizes = {book: tokenizer.size_of(book) for book in codebook or tokenizer.codebook_names}
    else:
        header = open_source(folders, codebook).header
        name, fingerprint, sizes = header.tokenizer, header.fingerprint, dict(header.codebooks)
    if bpe is not None:
        model = UnitBpe.load(bpe)
        if model.fingerprint != fingerprint:
            raise ValueError(f"{bpe}: a BPE of another tokenizer than {name}")
        fingerprint, sizes = model.identity, {"bpe": model.size}
    renamed = dict(item.partition("=")[::2] for item in special)
    vocabulary = extend_tokenizer(
        base,
        output,
        tokenizer=name,
        fingerprint=fingerprint,
        codebooks=sizes,
        specials={**SPECIALS, **renamed},
        **options,
    )
    return (
        f"{output}: {vocabulary.size:,} tokens, speech from {vocabulary.first_id:,} on; tokenizer {name}, "
        f"{fingerprint[:12]}"
    )


def summary_lines(summary: ExportSummary, output: Path, to: str) -> list[str]:
    """The lines to print about an export."""
    done = "there already" if summary.already else "written"
    counts = f"{summary.utterances:,} utterances, {summary.tokens:,} tokens, {len(summary.files)} files"
    return [f"{output}: {to}, {counts} {done}", *(f"note: {note}" for note in summary.notes)]


def report(lines: Iterable[str], quiet: bool) -> None:
    """Print lines unless ``quiet``."""
    for line in () if quiet else lines:
        say(line)


def print_rows(rows: Iterable[dict[str, Any]], quiet: bool) -> None:
    """Print the rows of ``export_bpe`` as a table unless ``quiet``."""
    table = Table("vocabulary", "tokens", "compression", "tokens a second", "bit/s", "entropy bit/s", box=None)
    for row in rows:
        figures = (row[name] for name in ("compression", "token_rate", "token_bitrate", "entropy_bitrate"))
        table.add_row(f"{row['vocab_size']:,}", f"{row['tokens']:,}", *(f"{figure:.2f}" for figure in figures))
    Console(quiet=quiet, soft_wrap=True, highlight=False).print(table)


def _one(codebook: Sequence[str] | None) -> str | None:
    if codebook is not None and len(codebook) > 1:
        raise ValueError("this target holds one codebook; name it with --codebook")
    return codebook[0] if codebook else None
