"""``spintok export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from spintok.cli.options import Offline, Quiet, TokenizerName, given, load_tokenizer
from spintok.cli.output import say

if TYPE_CHECKING:
    from spintok.export.targets import ExportSummary
    from spintok.tokenizer import Tokenizer

__all__ = ["EPILOG", "export"]

EPILOG = """Examples:

  spintok export wav-tokens/ out/ --to parquet                       for datasets.load_dataset

  spintok export wav-tokens/ out/ --to packed --window 2048 --shuffle 0 --split speaker

  spintok export wav-tokens/ llama-speech/ --to hf-tokenizer --base llama/

  spintok export wav-tokens/ out/ --to packed --vocabulary llama-speech/ --task asr --text texts.jsonl

  spintok export wav-tokens/ units/ --to bpe --vocab-size 1000 --vocab-size 4000"""

Target = Literal[
    "slamkit",
    "s3tokenizer",
    "fairseq",
    "gslm",
    "npz",
    "parquet",
    "webdataset",
    "lhotse",
    "packed",
    "hf-tokenizer",
    "bpe",
]

# For each target the options that apply to it alone; any other one of them is an error.
SHARDED = {"dedup", "skip_empty", "shard_size"}
TAKEN: dict[Target, set[str]] = {
    "slamkit": {"dedup", "skip_empty"},
    "s3tokenizer": {"dedup", "skip_empty"},
    "fairseq": {"dedup", "skip_empty"},
    "gslm": {"dedup", "skip_empty"},
    "npz": SHARDED,
    "parquet": SHARDED,
    "webdataset": SHARDED,
    "lhotse": {*SHARDED, "text"},
    "packed": {
        *("vocabulary", "task", "text", "form", "bpe", "dtype", "window", "shuffle", "split", "validation"),
        "skip_empty",
    },
    "hf-tokenizer": {"base", "template", "special", "durations", "tokenizer", "bpe"},
    "bpe": {"dedup", "skip_empty", "vocab_size", "train_units"},
}

PACKED, HF, BPE = "--to packed", "--to hf-tokenizer", "--to bpe"


def export(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="TOKENS... OUT",
            help="Token folders that one tokenizer wrote (spintok encode), and last the folder to write.",
        ),
    ],
    to: Annotated[
        Target,
        typer.Option(
            help="Format to write. slamkit to lhotse are files for other tools. packed is one stream of ids for "
            "training. hf-tokenizer adds speech tokens to a text tokenizer. bpe learns to merge units.",
            show_choices=True,
        ),
    ],
    codebook: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a codebook to export; repeat it for several. By default all codebooks, or the first one "
            "where the format holds only one."
        ),
    ] = None,
    dedup: Annotated[
        bool | None,
        typer.Option(
            "--dedup/--no-dedup",
            help="Write each run of equal codes once with its duration, or one code per frame. The default depends "
            "on the format.",
        ),
    ] = None,
    shard_size: Annotated[
        int, typer.Option(help="Utterances per shard, for npz, parquet, webdataset and lhotse.")
    ] = 10_000,
    skip_empty: Annotated[
        bool,
        typer.Option("--skip-empty", help="Leave out utterances without tokens, which are an error otherwise."),
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Transcripts: JSON lines with id and text, or lines KEY WORD WORD. For --task asr and tts, and for "
            "the supervisions of lhotse."
        ),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an extended tokenizer (--to hf-tokenizer) whose ids to write. By default ids are codes, "
            "followed by special tokens.",
            rich_help_panel=PACKED,
        ),
    ] = None,
    task: Annotated[
        Literal["speech", "asr", "tts"],
        typer.Option(
            help="Sequence to write for an utterance: speech alone, speech then text, or text then speech.",
            rich_help_panel=PACKED,
        ),
    ] = "speech",
    form: Annotated[
        Literal["units", "frames", "durations"],
        typer.Option(
            help="How to write speech: the code of each run, the code of each frame, or code and duration of each run.",
            rich_help_panel=PACKED,
        ),
    ] = "units",
    bpe: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a BPE (--to bpe) to merge units with; also for hf-tokenizer.", rich_help_panel=PACKED
        ),
    ] = None,
    dtype: Annotated[
        Literal["uint16", "uint32"] | None,
        typer.Option(
            help="Type of the ids. By default uint16 if the vocabulary fits, otherwise uint32.", rich_help_panel=PACKED
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="Cut the sequences into windows of this many ids, with loss masks and positions.",
            rich_help_panel=PACKED,
        ),
    ] = None,
    shuffle: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="Shuffle the sequences with this seed. By default they keep their order.",
            rich_help_panel=PACKED,
        ),
    ] = None,
    split: Annotated[
        Literal["speaker", "file"] | None,
        typer.Option(help="Split into train and validation by speaker or by file.", rich_help_panel=PACKED),
    ] = None,
    validation: Annotated[
        float,
        typer.Option(
            help="Share of the speakers or files that go to validation, with --split.", rich_help_panel=PACKED
        ),
    ] = 0.05,
    base: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer to extend: a folder, or a name on the Hugging Face Hub. Its own code is never run.",
            rich_help_panel=HF,
        ),
    ] = None,
    template: Annotated[
        str,
        typer.Option(
            help="Text of a speech token, with {} for its number; or private-use, for one character per token.",
            rich_help_panel=HF,
        ),
    ] = "<|s_{}|>",
    special: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=TEXT",
            help="Text of a special token, such as asr=<|asr|>; repeat it for several.",
            rich_help_panel=HF,
        ),
    ] = None,
    durations: Annotated[
        int, typer.Option(help="Number of duration tokens to add, for 1, 2, ... frames.", rich_help_panel=HF)
    ] = 0,
    tokenizer: TokenizerName = None,
    vocab_size: Annotated[
        list[int] | None,
        typer.Option(help="Number of ids of the BPE, codes included; repeat it for several BPEs.", rich_help_panel=BPE),
    ] = None,
    train_units: Annotated[
        int,
        typer.Option(
            help="Learn from at most this many units, which need 100 bytes of memory each.", rich_help_panel=BPE
        ),
    ] = 10_000_000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier export in OUT and write this one.")
    ] = False,
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Export tokens for language models: files of other tools, packed data, extended tokenizers, BPE.

    Utterances keep their order, and every file or the spintok.json beside it names the tokenizer. A command that was
    interrupted continues when you run it again.
    """
    _check_options(context, to)
    folders, output = paths[:-1], paths[-1]
    console = Console(quiet=quiet, soft_wrap=True, highlight=False)
    common: dict[str, Any] = {"skip_empty": skip_empty, "overwrite": overwrite}
    match to:
        case "packed":
            options = {"form": form, "dtype": dtype, "window": window, "shuffle": shuffle, "split_by": split}
            summary = _packed(
                folders, output, codebook, vocabulary, task, text, bpe, {**options, "validation": validation, **common}
            )
            _print_summary(summary, output, to, console)
        case "hf-tokenizer":
            names = {"template": template, "durations": durations, "overwrite": overwrite}
            if offline and base is not None and not Path(base).is_dir():
                raise ValueError(f"--base {base} is not a folder, and --offline forbids downloading it from the Hub")
            # A token folder takes precedence over SPINTOK_TOKENIZER, which is only a default.
            named = tokenizer is not None and (given(context, "tokenizer") or not folders)
            loaded = load_tokenizer(tokenizer, "cpu", offline, quiet) if named else None
            _hf_tokenizer(folders, output, base, loaded, codebook, bpe, special or [], names, console)
        case "bpe":
            from spintok.export.bpe import export_bpe

            book = _one(codebook)
            runs = True if dedup is None else dedup
            sizes = vocab_size or []
            report = export_bpe(folders, output, sizes, codebook=book, dedup=runs, train_units=train_units, **common)
            _print_report(report, console)
        case _:
            from spintok.data.transcripts import Transcripts
            from spintok.export.targets import export_files

            texts = None if text is None else Transcripts(text)
            summary = export_files(
                folders,
                output,
                to,
                codebooks=codebook,
                dedup=dedup,
                shard_size=shard_size,
                transcripts=texts,
                **common,
            )
            _print_summary(summary, output, to, console)


def _check_options(context: typer.Context, to: Target) -> None:
    for name in set().union(*TAKEN.values()) - TAKEN[to]:
        if given(context, name):
            targets = " or ".join(target for target, names in TAKEN.items() if name in names)
            raise typer.BadParameter(f"--{name.replace('_', '-')} is for --to {targets}, not for {to}")


def _one(codebook: list[str] | None) -> str | None:
    if codebook is not None and len(codebook) > 1:
        raise ValueError("this target holds one codebook; name it with --codebook")
    return codebook[0] if codebook else None


def _packed(
    folders: list[Path],
    output: Path,
    codebook: list[str] | None,
    vocabulary: Path | None,
    task: Literal["speech", "asr", "tts"],
    text: Path | None,
    bpe: Path | None,
    options: dict[str, Any],
) -> "ExportSummary":
    from spintok.data.transcripts import Transcripts
    from spintok.export.bpe import UnitBpe
    from spintok.export.hf_tokenizer import text_encoder
    from spintok.export.packed.dataset import export_packed
    from spintok.export.vocabulary import Vocabulary

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


def _hf_tokenizer(
    folders: list[Path],
    output: Path,
    base: str | None,
    tokenizer: "Tokenizer | None",
    codebook: list[str] | None,
    bpe: Path | None,
    special: list[str],
    names: dict[str, Any],
    console: Console,
) -> None:
    from spintok.export.bpe import UnitBpe
    from spintok.export.hf_tokenizer import extend_tokenizer
    from spintok.export.source import open_source
    from spintok.export.vocabulary import SPECIALS

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
        **names,
    )
    _say(
        console,
        f"{output}: {vocabulary.size:,} tokens, speech from {vocabulary.first_id:,} on; tokenizer {name}, "
        f"{fingerprint[:12]}",
    )


def _print_summary(summary: "ExportSummary", output: Path, to: str, console: Console) -> None:
    done = "there already" if summary.already else "written"
    counts = f"{summary.utterances:,} utterances, {summary.tokens:,} tokens, {len(summary.files)} files"
    _say(console, f"{output}: {to}, {counts} {done}")
    for note in summary.notes:
        _say(console, f"note: {note}")


def _say(console: Console, text: str) -> None:
    if not console.quiet:
        say(text)


def _print_report(report: list[dict[str, Any]], console: Console) -> None:
    table = Table("vocabulary", "tokens", "compression", "tokens a second", "bit/s", "entropy bit/s", box=None)
    for row in report:
        figures = (row[name] for name in ("compression", "token_rate", "token_bitrate", "entropy_bitrate"))
        table.add_row(f"{row['vocab_size']:,}", f"{row['tokens']:,}", *(f"{figure:.2f}" for figure in figures))
    console.print(table)
