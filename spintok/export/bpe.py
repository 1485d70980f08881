"""Byte-pair encoding over units: a character a code, Hugging Face ``tokenizers`` underneath, decoding exact."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok._files import atomic
from spintok.export.errors import ExportError
from spintok.export.folder import begin, describe_export, finish, read_sidecar
from spintok.export.optional import optional
from spintok.export.source import open_source
from spintok.export.vocabulary import private_use_character
from spintok.stats import entropy
from spintok.tokens import Tokens

__all__ = ["UnitBpe", "export_bpe"]

Units = NDArray[np.int32]

MODEL, DESCRIPTION = "tokenizer.json", "bpe.spintok.json"
BATCH = 512
"""Utterances encoded at a time."""


class UnitBpe:
    """Units to fewer ids and back: ``decode(encode(units))`` equals ``units`` for any units of the codebook.

    The ids below ``codebook_size`` are the codes themselves; each further id stands for two ids before it.

    Args:
        model: a ``tokenizers.Tokenizer`` that ``train`` made.
        codebook_size: K.
        fingerprint: of the speech tokenizer.
        dedup: whether it was trained on runs or on a code a frame.
    """

    def __init__(self, model: Any, codebook_size: int, fingerprint: str, dedup: bool) -> None:
        self.model = model
        self.codebook_size = codebook_size
        self.fingerprint = fingerprint
        self.dedup = dedup
        self.size: int = model.get_vocab_size()
        self._points = np.array([ord(private_use_character(code)) for code in range(codebook_size)], dtype="<u4")
        codes = {chr(point): code for code, point in enumerate(self._points.tolist())}
        pieces: list[Units] = [np.empty(0, dtype=np.int32)] * self.size
        for text, number in model.get_vocab().items():
            pieces[number] = np.array([codes[character] for character in text], dtype=np.int32)
        self._lengths = np.array([piece.size for piece in pieces])
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._flat = np.concatenate(pieces)
        if [piece.tolist() for piece in pieces[:codebook_size]] != [[code] for code in range(codebook_size)]:
            raise ExportError("not a BPE of spintok's: its first ids are not the codes")

    @property
    def identity(self) -> str:
        """SHA-256 of the speech tokenizer's fingerprint and of every merge: whose codes its ids are."""
        return hashlib.sha256(f"{self.fingerprint}\n{self.model.to_str()}".encode()).hexdigest()

    @classmethod
    def train(
        cls, units: Iterable[Units], codebook_size: int, vocab_size: int, *, fingerprint: str, dedup: bool
    ) -> "UnitBpe":
        """Learn ``vocab_size - codebook_size`` merges, or fewer when no pair comes twice. Memory holds all units."""
        if vocab_size <= codebook_size:
            raise ExportError(f"a vocabulary of {vocab_size} leaves no merges over a codebook of {codebook_size}")
        library = optional("tokenizers")
        model = library.Tokenizer(library.models.BPE())
        points = np.array([ord(private_use_character(code)) for code in range(codebook_size)], dtype="<u4")
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=list(map(chr, points.tolist())), show_progress=False
        )
        model.train_from_iterator((_text(points, part) for part in units), trainer)
        return cls(model, codebook_size, fingerprint, dedup)

    def smaller(self, vocab_size: int) -> "UnitBpe":
        """The BPE that training at a smaller size would have given: merges are learnt in one order."""
        if not self.codebook_size < vocab_size:
            raise ExportError(f"a vocabulary of {vocab_size} leaves no merges over a codebook of {self.codebook_size}")
        library = optional("tokenizers")
        vocab = {text: number for text, number in self.model.get_vocab().items() if number < vocab_size}
        merges = [tuple(merge) for merge in json.loads(self.model.to_str())["model"]["merges"]]
        kept = [merge for merge in merges if "".join(merge) in vocab]
        return UnitBpe(
            library.Tokenizer(library.models.BPE(vocab=vocab, merges=kept)),
            self.codebook_size,
            self.fingerprint,
            self.dedup,
        )

    def encode(self, units: Units) -> Units:
        """Ids, (L,) int32, of units, (R,)."""
        return self.encode_batch([units])[0]

    def encode_batch(self, units: Sequence[Units]) -> list[Units]:
        """Ids of each of several sequences, on all cores."""
        for part in units:
            if part.size and not 0 <= part.min() <= part.max() < self.codebook_size:
                raise ExportError(f"units must lie in [0, {self.codebook_size})")
        texts = [_text(self._points, part) for part in units]
        return [np.array(found.ids, dtype=np.int32) for found in self.model.encode_batch_fast(texts)]

    def decode(self, ids: Units) -> Units:
        """Units, (R,) int32, of ids, (L,)."""
        array = np.asarray(ids)
        if array.size and not 0 <= array.min() <= array.max() < self.size:
            raise ExportError(f"ids must lie in [0, {self.size})")
        lengths = self._lengths[array]
        ends = np.cumsum(lengths)
        places = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
        units: Units = self._flat[np.repeat(self._starts[array], lengths) + places]
        return units

    def save(self, folder: Path) -> list[Path]:
        """Write ``tokenizer.json``, which ``tokenizers`` loads, and whose codes it is over."""
        folder.mkdir(parents=True, exist_ok=True)
        described = {
            "spintok_bpe": 1,
            "vocab_size": self.size,
            "codebook_size": self.codebook_size,
            "fingerprint": self.fingerprint,
            "dedup": self.dedup,
            "alphabet": "code i is the i-th character of U+E000-F8FF, U+F0000-FFFFD, U+100000-10FFFD",
        }
        for name, content in ((MODEL, self.model.to_str()), (DESCRIPTION, json.dumps(described, indent=2) + "\n")):
            with atomic(folder / name) as temporary:
                temporary.write_text(content, encoding="utf-8")
        return [folder / MODEL, folder / DESCRIPTION]

    @classmethod
    def load(cls, folder: Path) -> "UnitBpe":
        """The BPE that ``save`` wrote."""
        library = optional("tokenizers")
        try:
            found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            model = library.Tokenizer.from_file(str(folder / MODEL))
            return cls(model, found["codebook_size"], found["fingerprint"], found["dedup"])
        except FileNotFoundError as error:
            raise ExportError(f"{error.filename}: missing; spintok export --to bpe writes it") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ExportError(f"{folder}: not a BPE of spintok's ({error})") from None


def export_bpe(
    folders: Sequence[Path],
    output: Path,
    vocab_sizes: Sequence[int],
    *,
    codebook: str | None = None,
    dedup: bool = True,
    train_units: int = 10_000_000,
    skip_empty: bool = False,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Learn a BPE of each size from a corpus into ``output/bpe-SIZE``, and report what each does to the corpus.

    ``train_units`` bounds the memory of training: the corpus up to that many units is learnt from (some 100 bytes
    a unit). The report, also in ``report.json``, has a row for the units themselves and a row a size.
    """
    if not vocab_sizes:
        raise ExportError("name at least one size: --vocab-size 1000")
    source = open_source(folders, None if codebook is None else [codebook])
    name = source.header.codebook
    size = source.header.codebooks[name]
    if min(vocab_sizes) <= size:
        raise ExportError(f"a vocabulary of {min(vocab_sizes)} leaves no merges over a codebook of {size}")
    options = {"vocab_sizes": sorted(vocab_sizes), "train_units": train_units, "codebook": name, "unit_runs": dedup}
    description = describe_export(source.header, "bpe", source.state, options)
    if begin(output, description, overwrite=overwrite):
        read_sidecar(output)
        return list(json.loads((output / "report.json").read_text(encoding="utf-8")))

    def units() -> Iterator[tuple[Units, Tokens]]:
        for record in source.records(skip_empty=skip_empty):
            tokens = record.tokens[name]
            yield (tokens.units if dedup else tokens.codes), tokens

    fingerprint = source.header.fingerprint
    largest = UnitBpe.train(
        _up_to(train_units, (part for part, _ in units())), size, max(vocab_sizes), fingerprint=fingerprint, dedup=dedup
    )
    if largest.size < max(vocab_sizes):
        raise ExportError(f"the corpus has pairs for a vocabulary of {largest.size} only; ask for no more")
    models = [largest.smaller(wanted) for wanted in sorted(vocab_sizes)]
    report = _report(models, units(), source.header.frame_rate)
    files = [path for model in models for path in model.save(output / f"bpe-{model.size}")]
    with atomic(output / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    finish(output, description, [*files, output / "report.json"])
    return report


def _report(models: Sequence[UnitBpe], corpus: Iterable[tuple[Units, Tokens]], frame_rate: int) -> list[dict[str, Any]]:
    """Figures of the units and of each BPE; bitrates as in ``spintok.stats.counts``."""
    sizes = [models[0].codebook_size, *(model.size for model in models)]
    counts = [np.zeros(size, dtype=np.int64) for size in sizes]
    frames = 0
    waiting = iter(corpus)
    while batch := list(islice(waiting, BATCH)):
        frames += sum(tokens.num_frames for _, tokens in batch)
        parts = [part for part, _ in batch]
        for count, encoded in zip(counts, [parts, *(model.encode_batch(parts) for model in models)], strict=True):
            count += np.bincount(np.concatenate(encoded), minlength=count.size)
    seconds = frames / frame_rate
    rows = []
    for size, count in zip(sizes, counts, strict=True):
        total = int(count.sum())
        rate = total / seconds if seconds else 0.0
        rows.append(
            {
                "vocab_size": size,
                "tokens": total,
                "compression": int(counts[0].sum()) / total if total else 1.0,
                "token_rate": rate,
                "token_bitrate": math.log2(size) * rate,
                "entropy_bitrate": entropy(count) * rate,
            }
        )
    return rows


def _up_to(limit: int, parts: Iterable[Units]) -> Iterator[Units]:
    for part in parts:
        if limit <= 0:
            return
        yield part
        limit -= part.size


def _text(points: NDArray[np.uint32], units: Units) -> str:
    return points[units].tobytes().decode("utf-32-le")
