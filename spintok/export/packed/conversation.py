"""Write speech with text and two-channel dialogues as packed training data."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from spintok._files import json_line
from spintok.augment.random import utterance_rng
from spintok.data.labels.alignment_files import read_alignments
from spintok.data.labels.alignments import SILENCE_LABELS
from spintok.export.errors import ExportError
from spintok.export.formats.columns import only, utterance_line
from spintok.export.packed.dataset import vocabulary_for
from spintok.export.packed.dialogues import Dialogue, Script, keys_of
from spintok.export.packed.indexed import IndexedDataset, id_type, indexed_writer
from spintok.export.packed.packing import PackedDocument, Packing, pack_corpus
from spintok.export.sequences.base import Form, TextEncoder, TokenSequence
from spintok.export.sequences.dialogue import full_duplex, silent_frames
from spintok.export.sequences.monologue import monologue
from spintok.export.sequences.speech_text import Word, interleave
from spintok.export.sequences.turn_taking import Spoken, TurnTaking, TwoChannels, take_turns
from spintok.export.sidecar import describe_export
from spintok.export.source import Header, Source, open_source
from spintok.export.targets import ExportSummary
from spintok.export.vocabulary import Vocabulary
from spintok.tokens import Tokens

__all__ = ["export_dialogue", "export_interleaved", "export_monologue", "read_words"]

NO_DURATIONS = np.empty(0, dtype=np.int32)


def read_words(source: Path) -> dict[str, list[Word]]:
    """The words of each utterance, without silence, from the word alignments that ``read_alignments`` reads.

    All alignments are in memory. Raises ``AlignmentError``, or ``ExportError`` if there are no words.
    """
    found = {
        key: [Word(*interval) for interval in alignment.words if interval.label not in SILENCE_LABELS]
        for key, alignment in read_alignments(source, "words").items()
    }
    if not any(found.values()):
        raise ExportError(f"{source}: has alignments, but none of words")
    return found


def export_interleaved(
    folders: Sequence[Path],
    output: Path,
    *,
    words: Mapping[str, Sequence[Word]],
    vocabulary: Vocabulary,
    encode_text: TextEncoder,
    text_words: tuple[int, int] = (10, 30),
    speech_words: tuple[int, int] = (5, 15),
    seed: int = 0,
    form: Form = "units",
    codebook: str | None = None,
    packing: Packing | None = None,
    skip_empty: bool = False,
    overwrite: bool = False,
) -> ExportSummary:
    """Write one sequence of ``interleave`` per utterance as indexed datasets.

    Args:
        folders: token folders of one tokenizer.
        output: the folder to write.
        words: the words of each utterance, by key.
        vocabulary: the vocabulary of an extended tokenizer.
        encode_text: text to ids.
        text_words: the least and the greatest number of words in a span of text.
        speech_words: the same for spans of speech.
        seed: seeds the spans of an utterance, together with its key.
        form: the form of the speech.
        codebook: the name of the codebook to export; by default the first one.
        packing: how documents are stored.
        skip_empty: leave out utterances without tokens, which are an error otherwise.
        overwrite: delete an earlier export in ``output`` and write this one.

    Raises:
        ExportError: an utterance without words, options that do not fit, or ``output`` holds something else.
    """

    def sequence(key: str, tokens: Tokens, spoken: Sequence[Word], vocabulary: Vocabulary) -> TokenSequence:
        rng = utterance_rng(seed, 0, key)
        return interleave(
            tokens, spoken, vocabulary, encode_text, rng, text_words=text_words, speech_words=speech_words, form=form
        )

    options = {"text_words": text_words, "speech_words": speech_words, "seed": seed, "form": form}
    common: dict[str, Any] = {"codebook": codebook, "packing": packing or Packing(), "skip_empty": skip_empty}
    common |= {"options": options, "overwrite": overwrite}
    return _export_with_words("interleaved", folders, output, words, vocabulary, form, sequence, **common)


def export_monologue(
    folders: Sequence[Path],
    output: Path,
    *,
    words: Mapping[str, Sequence[Word]],
    vocabulary: Vocabulary,
    encode_text: TextEncoder,
    pad: int | None = None,
    end_of_pad: int | None = None,
    delay: float = 0.0,
    codebook: str | None = None,
    packing: Packing | None = None,
    skip_empty: bool = False,
    overwrite: bool = False,
) -> ExportSummary:
    """Write one sequence of ``monologue`` per utterance, two ids a frame, as indexed datasets.

    Args:
        folders: token folders of one tokenizer.
        output: the folder to write.
        words: the words of each utterance, by key.
        vocabulary: the vocabulary of an extended tokenizer.
        encode_text: text to ids.
        pad, end_of_pad, delay: see ``monologue``.
        codebook: the name of the codebook to export; by default the first one.
        packing: how documents are stored.
        skip_empty: leave out utterances without tokens, which are an error otherwise.
        overwrite: delete an earlier export in ``output`` and write this one.

    Raises:
        ExportError: an utterance without words, options that do not fit, or ``output`` holds something else.
    """

    def sequence(key: str, tokens: Tokens, spoken: Sequence[Word], vocabulary: Vocabulary) -> TokenSequence:
        return monologue(tokens, spoken, vocabulary, encode_text, pad=pad, end_of_pad=end_of_pad, delay=delay)

    options = {"pad": pad, "end_of_pad": end_of_pad, "delay": delay}
    common: dict[str, Any] = {"codebook": codebook, "packing": packing or Packing(), "skip_empty": skip_empty}
    common |= {"options": options, "overwrite": overwrite}
    return _export_with_words("monologue", folders, output, words, vocabulary, "frames", sequence, **common)


def _export_with_words(
    target: str,
    folders: Sequence[Path],
    output: Path,
    words: Mapping[str, Sequence[Word]],
    vocabulary: Vocabulary,
    form: Form,
    sequence: Callable[[str, Tokens, Sequence[Word], Vocabulary], TokenSequence],
    *,
    options: Mapping[str, Any],
    codebook: str | None,
    packing: Packing,
    skip_empty: bool,
    overwrite: bool,
) -> ExportSummary:
    """Write one ``sequence`` (of a key, its tokens, its words and the vocabulary) per utterance as indexed datasets."""
    source, header = _one_codebook(folders, codebook)
    vocabulary = vocabulary_for(header, vocabulary, None, form)

    def documents() -> Iterator[PackedDocument]:
        for record in source.records(skip_empty=skip_empty):
            document = sequence(record.key, only(record, header), _words_of(words, record.key), vocabulary)
            split = packing.split(record.key, record.speaker)
            yield PackedDocument(split, document, NO_DURATIONS, utterance_line(record))

    description = describe_export(
        header,
        target,
        source.state,
        {
            "vocabulary": vocabulary.to_dict(),
            "words": _digest(words),
            **options,
            "skip_empty": skip_empty,
            **packing.describe(id_type(vocabulary.size, packing.dtype)),
        },
    )
    return pack_corpus(output, description, documents(), vocabulary, packing, loss=True, overwrite=overwrite)


def _words_of(words: Mapping[str, Sequence[Word]], key: str) -> Sequence[Word]:
    """The words of an utterance. Raises ``ExportError``."""
    if key not in words:
        raise ExportError(f"{key!r}: has no words; the words have keys such as {next(iter(words))!r}")
    return words[key]


def export_dialogue(
    folders: Sequence[Path],
    output: Path,
    dialogues: Sequence[Dialogue | Script],
    *,
    vocabulary: Vocabulary | None = None,
    words: Mapping[str, Sequence[Word]] | None = None,
    encode_text: TextEncoder | None = None,
    speech_chunk: int = 10,
    text_chunk: int = 2,
    silent_codes: Collection[int] = (),
    cap: int | None = None,
    user_loss: bool = False,
    manner: TurnTaking | None = None,
    seed: int = 0,
    codebook: str | None = None,
    packing: Packing | None = None,
    overwrite: bool = False,
) -> ExportSummary:
    """Write one sequence of ``full_duplex`` per dialogue as indexed datasets.

    Args:
        folders: token folders of one tokenizer. Utterances that are in no dialogue are left out.
        output: the folder to write.
        dialogues: which utterances are the channels, or the turns, of which dialogue.
        vocabulary: that of an extended tokenizer; required with ``words``. By default ids are codes and special tokens.
        words: what the assistant says, by the key of the channel or turn; adds the stream of text.
        encode_text: text to ids; required with ``words``.
        speech_chunk, text_chunk, cap, user_loss: see ``full_duplex``.
        silent_codes: the codes that stand for silence; runs of at least 5 frames of them become silence.
        manner: how turns follow each other, for dialogues of turns; pauses only by default.
        seed: seeds these draws, together with the key of the dialogue.
        codebook: the name of the codebook to export; by default the first one.
        packing: how documents are stored.
        overwrite: delete an earlier export in ``output`` and write this one.

    Raises:
        ExportError: a channel without tokens or words, options that do not fit, or ``output`` holds something else.
    """
    packing, manner = packing or Packing(), manner or TurnTaking()
    source, header = _one_codebook(folders, codebook)
    if packing.split_by == "speaker":
        raise ExportError("a dialogue has two speakers; split by file")
    if words is not None and (vocabulary is None or encode_text is None):
        raise ExportError("a dialogue with words needs the vocabulary of an extended tokenizer")
    vocabulary = vocabulary_for(header, vocabulary, None, "frames")
    options = {
        "vocabulary": vocabulary.to_dict(),
        "dialogues": hashlib.sha256(json.dumps(dialogues).encode()).hexdigest(),
        "words": None if words is None else _digest(words),
        "speech_chunk": speech_chunk,
        "text_chunk": text_chunk,
        "silent_codes": sorted(silent_codes),
        "cap": cap,
        "user_loss": user_loss,
        "turn_taking": asdict(manner),
        "seed": seed,
        **packing.describe(id_type(vocabulary.size, packing.dtype)),
    }

    def documents() -> Iterator[PackedDocument]:
        needed = {key for dialogue in dialogues for key in keys_of(dialogue)}
        with tempfile.TemporaryDirectory(dir=output, prefix=".", suffix=".tmp") as scratch:
            stored = _Stored(Path(scratch, "codes"), source, header, needed)
            for dialogue in dialogues:
                if isinstance(dialogue, Script):
                    made = _taken_turns(dialogue, stored, words, manner, seed)
                else:
                    user, assistant = (stored.tokens(dialogue.key, key) for key in keys_of(dialogue))
                    said = _said(words, dialogue.key, dialogue.assistant)
                    nowhere = (np.zeros(user.num_frames, bool), np.zeros(assistant.num_frames, bool))
                    made = TwoChannels((user, assistant), nowhere, said)
                document = full_duplex(
                    made.channels,
                    vocabulary,
                    None if words is None else made.words,
                    encode_text,
                    speech_chunk=speech_chunk,
                    text_chunk=text_chunk,
                    silent=[
                        mask | silent_frames(tokens, silent_codes)
                        for mask, tokens in zip(made.silent, made.channels, strict=True)
                    ],
                    cap=cap,
                    user_loss=user_loss,
                )
                line = json_line({"key": dialogue.key, **{k: v for k, v in dialogue._asdict().items() if k != "key"}})
                yield PackedDocument(packing.split(dialogue.key, None), document, NO_DURATIONS, line)

    description = describe_export(header, "dialogue", source.state, options)
    return pack_corpus(output, description, documents(), vocabulary, packing, loss=True, overwrite=overwrite)


def _said(words: Mapping[str, Sequence[Word]] | None, dialogue: str, key: str) -> list[Word]:
    """The words of an utterance of the assistant. Raises ``ExportError``."""
    if words is None:
        return []
    if key not in words:
        raise ExportError(f"dialogue {dialogue!r}: {key!r} has no words")
    return list(words[key])


def _taken_turns(
    script: Script, stored: "_Stored", words: Mapping[str, Sequence[Word]] | None, manner: TurnTaking, seed: int
) -> TwoChannels:
    turns = [
        Spoken(
            speaker,
            stored.tokens(script.key, key),
            _said(words, script.key, key) if speaker == "assistant" else [],
        )
        for speaker, key in script.turns
    ]
    back_channels = [stored.tokens(script.key, key) for key in script.back_channels]
    try:
        return take_turns(turns, utterance_rng(seed, 0, script.key), manner, back_channels)
    except ExportError as error:
        raise ExportError(f"dialogue {script.key!r}: {error}") from None


class _Stored:
    """The tokens of some utterances on disk, by key."""

    def __init__(self, path: Path, source: Source, header: Header, keys: Collection[str]) -> None:
        self.size = header.codebooks[header.codebook]
        self.grid = header.grid
        self.numbers: dict[str, int] = {}
        with indexed_writer(path, "uint32") as append:
            for record in source.records(skip_empty=True):
                if record.key in keys:
                    self.numbers[record.key] = len(self.numbers)
                    append(only(record, header).codes)
        self.codes = IndexedDataset(path)

    def tokens(self, dialogue: str, key: str) -> Tokens:
        """The tokens of an utterance. Raises ``ExportError``."""
        if key not in self.numbers:
            raise ExportError(f"dialogue {dialogue!r}: the token folders have no tokens of {key!r}")
        return Tokens(np.asarray(self.codes[self.numbers[key]]), self.size, grid=self.grid)


def _one_codebook(folders: Sequence[Path], codebook: str | None) -> tuple[Source, Header]:
    source = open_source(folders, None if codebook is None else [codebook])
    name = source.header.codebook
    return source, replace(source.header, codebooks={name: source.header.codebooks[name]}, dedup=False)


def _digest(words: Mapping[str, Sequence[Word]]) -> str:
    digest = hashlib.sha256()
    for key, spoken in words.items():
        row: list[Any] = [key, *((word.text, word.start, word.end) for word in spoken)]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
