"""Write a token corpus as packed training data: one sequence per utterance."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from spintok.data.labels.transcripts import Transcripts
from spintok.export.bpe import UnitBpe
from spintok.export.errors import ExportError
from spintok.export.formats.columns import only, utterance_line
from spintok.export.packed.indexed import IdType, id_type
from spintok.export.packed.packing import PackedDocument, Packing, SplitBy, pack_corpus
from spintok.export.sequences.base import Form, TextEncoder, speech_only
from spintok.export.sequences.speech_text import speech_to_text, text_to_speech
from spintok.export.sidecar import describe_export
from spintok.export.source import Header, open_source
from spintok.export.targets import ExportSummary
from spintok.export.vocabulary import Vocabulary

__all__ = ["DocumentTask", "export_packed", "vocabulary_for"]

DocumentTask = Literal["speech", "asr", "tts"]
"""The sequence of an utterance: ``speech_only``, ``speech_to_text`` or ``text_to_speech``."""


def export_packed(
    folders: Sequence[Path],
    output: Path,
    *,
    vocabulary: Vocabulary | None = None,
    codebook: str | None = None,
    task: DocumentTask = "speech",
    transcripts: Transcripts | None = None,
    encode_text: TextEncoder | None = None,
    form: Form = "units",
    bpe: UnitBpe | None = None,
    dtype: IdType | None = None,
    window: int | None = None,
    shuffle: int | None = None,
    split_by: SplitBy | None = None,
    validation: float = 0.05,
    skip_empty: bool = False,
    overwrite: bool = False,
) -> ExportSummary:
    """Write one sequence per utterance as indexed datasets ``NAME.bin`` and ``NAME.idx``.

    NAME is ``tokens``, or ``train`` and ``validation``. Without ``window`` a document is an utterance, and
    ``NAME.utterances`` and, for the form "units", ``NAME.durations`` hold what ``read_packed`` needs to restore the
    corpus. With ``window`` a document is a window, and ``NAME.loss`` and ``NAME.positions`` hold its loss mask and
    positions, which ``Windows`` reads. ``vocabulary.spintok.json`` says what the ids mean.

    Args:
        folders: token folders of one tokenizer.
        output: a new folder, or one with an earlier run of the same export.
        vocabulary: the vocabulary of an extended tokenizer. By default ids are codes, followed by the special tokens.
        codebook: the name of the codebook to export; by default the first one.
        task: the kind of sequence.
        transcripts: the texts, for the tasks "asr" and "tts".
        encode_text: text to ids, for the tasks "asr" and "tts".
        form: how speech is written; see ``Form``.
        bpe: merge units into fewer ids; requires the form "units".
        dtype: the dtype of the ids; by default uint16 if the vocabulary fits, otherwise uint32.
        window: the number of ids in a window.
        shuffle: the seed of a random order; needs 8 bytes of memory per document, and disk space for a second copy.
        split_by: split into ``train`` and ``validation`` by speaker or by file.
        validation: the share of speakers or files in ``validation``.
        skip_empty: leave out utterances without tokens, which are an error otherwise.
        overwrite: delete an earlier export in ``output`` and write this one.

    Raises:
        ExportError: options that do not fit together or to the tokens, or ``output`` holds something else.
    """
    source = open_source(folders, None if codebook is None else [codebook])
    header = replace(source.header, dedup=form == "units")
    header = replace(header, codebooks={header.codebook: header.codebooks[header.codebook]})
    if task != "speech" and (transcripts is None or encode_text is None or vocabulary is None):
        raise ExportError(f"{task} needs transcripts, and the vocabulary of an extended tokenizer")
    packing = Packing(dtype=dtype, window=window, shuffle=shuffle, split_by=split_by, validation=validation)
    vocabulary = vocabulary_for(header, vocabulary, bpe, form)
    options: dict[str, Any] = {
        "vocabulary": vocabulary.to_dict(),
        "task": task,
        "transcripts": None if transcripts is None else transcripts.digest,
        "form": form,
        "bpe": None if bpe is None else bpe.identity,
        "skip_empty": skip_empty,
        **packing.describe(id_type(vocabulary.size, dtype)),
    }

    def documents() -> Iterator[PackedDocument]:
        for record in source.records(skip_empty=skip_empty):
            tokens = only(record, header)
            how = form if bpe is None else bpe
            if transcripts is None or encode_text is None:
                document = speech_only(tokens, vocabulary, how)
            else:
                build = speech_to_text if task == "asr" else text_to_speech
                document = build(tokens, transcripts.text(record.key), vocabulary, encode_text, form=how)
            split = packing.split(record.key, record.speaker)
            yield PackedDocument(split, document, tokens.durations, utterance_line(record))

    return pack_corpus(
        output,
        describe_export(header, "packed", source.state, options),
        documents(),
        vocabulary,
        packing,
        durations=form == "units",
        extra=lambda: [] if bpe is None else bpe.save(output / "bpe"),
        overwrite=overwrite,
    )


def vocabulary_for(header: Header, vocabulary: Vocabulary | None, bpe: UnitBpe | None, form: Form) -> Vocabulary:
    """The vocabulary to write with: the given one, if it fits, or one of codes and special tokens only."""
    if bpe is not None:
        if bpe.fingerprint != header.fingerprint:
            raise ExportError("the BPE is of another tokenizer than the tokens")
        if not bpe.dedup or form != "units":
            raise ExportError("a BPE merges de-duplicated units: train it with --dedup, and use the form units")
    sizes = dict(header.codebooks) if bpe is None else {"bpe": bpe.size}
    fingerprint = header.fingerprint if bpe is None else bpe.identity
    if vocabulary is None:
        return Vocabulary(header.tokenizer, fingerprint, sizes)
    vocabulary.check(fingerprint)
    name, size = next(iter(sizes.items()))
    if vocabulary.codebooks.get(name) != size:
        raise ExportError(f"the vocabulary has no {size} tokens of {name!r}; it has {dict(vocabulary.codebooks)}")
    return vocabulary
