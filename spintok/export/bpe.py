"""Byte-pair encoding over units, with Hugging Face ``tokenizers``: one character per code, exact decoding."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok._files import require, write_text
from spintok.export.errors import ExportError
from spintok.export.folder import find_export, finish, writing
from spintok.export.sidecar import describe_export
from spintok.export.source import open_source
from spintok.export.vocabulary import private_use_character
from spintok.stats import entropy
from spintok.tokens import Tokens

__all__ = ["UnitBpe", "export_bpe"]

Units = NDArray[np.int32]

MODEL, DESCRIPTION, REPORT = "tokenizer.json", "bpe.spintok.json", "report.json"
BATCH = 512
"""Utterances to encode in one call."""


class UnitBpe:
    """Merge units into fewer ids, and split them again: ``decode(encode(units))`` equals ``units``.

    The ids below ``codebook_size`` are the codes; every other id stands for two smaller ids.

    Args:
        model: a ``tokenizers.Tokenizer`` without a decoder, from ``train`` or ``load``.
        codebook_size: the number of codes.
        fingerprint: the fingerprint of the speech tokenizer.
        dedup: whether it was trained on the codes of runs, otherwise on one code per frame.
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
            raise ExportError("not a BPE of spintok: its first ids are not the codes")

    @property
    def identity(self) -> str:
        """SHA-256 of the speech tokenizer's fingerprint and of all merges; it identifies what the ids stand for."""
        return hashlib.sha256(f"{self.fingerprint}\n{self.model.to_str()}".encode()).hexdigest()

    @classmethod
    def train(
        cls, units: Iterable[Units], codebook_size: int, vocab_size: int, *, fingerprint: str, dedup: bool
    ) -> "UnitBpe":
        """Learn ``vocab_size - codebook_size`` merges, or fewer if no pair of ids is left that occurs twice.

        Args:
            units: the training sequences, (R,) each. They are all kept in memory.
            codebook_size: the number of codes.
            vocab_size: the number of ids, codes included.
            fingerprint: the fingerprint of the speech tokenizer.
            dedup: whether the sequences are the codes of runs, otherwise one code per frame.
        """
        if vocab_size <= codebook_size:
            raise ExportError(f"a vocabulary of {vocab_size} leaves no merges over a codebook of {codebook_size}")
        library = _tokenizers()
        model = library.Tokenizer(library.models.BPE())
        points = np.array([ord(private_use_character(code)) for code in range(codebook_size)], dtype="<u4")
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=list(map(chr, points.tolist())), show_progress=False
        )
        model.train_from_iterator((_text(points, part) for part in units), trainer)
        return cls(model, codebook_size, fingerprint, dedup)

    def smaller(self, vocab_size: int) -> "UnitBpe":
        """The BPE that training with a smaller ``vocab_size`` gives: its merges are the first of this one."""
        if not self.codebook_size < vocab_size:
            raise ExportError(f"a vocabulary of {vocab_size} leaves no merges over a codebook of {self.codebook_size}")
        library = _tokenizers()
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
        """The ids, (L,) int32, of units, (R,)."""
        return self.encode_batch([units])[0]

    def encode_batch(self, units: Sequence[Units]) -> list[Units]:
        """The ids of several sequences, computed on all cores. Raises ``ExportError`` for units out of range."""
        for part in units:
            if part.size and not 0 <= part.min() <= part.max() < self.codebook_size:
                raise ExportError(f"units must be in [0, {self.codebook_size})")
        texts = [_text(self._points, part) for part in units]
        return [np.array(found.ids, dtype=np.int32) for found in self.model.encode_batch_fast(texts)]

    def decode(self, ids: Units) -> Units:
        """The units, (R,) int32, of ids, (L,). Raises ``ExportError`` for ids out of range."""
        array = np.asarray(ids)
        if array.size and not 0 <= array.min() <= array.max() < self.size:
            raise ExportError(f"ids must be in [0, {self.size})")
        lengths = self._lengths[array]
        ends = np.cumsum(lengths)
        places = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
        units: Units = self._flat[np.repeat(self._starts[array], lengths) + places]
        return units

    def save(self, folder: Path) -> list[Path]:
        """Write ``tokenizer.json`` for ``tokenizers.Tokenizer.from_file``, and a description; return both paths."""
        folder.mkdir(parents=True, exist_ok=True)
        model = json.loads(self.model.to_str())
        # Pieces are joined without spaces.
        model["decoder"] = {"type": "Fuse"}
        described = {
            "spintok_bpe": 1,
            "vocab_size": self.size,
            "codebook_size": self.codebook_size,
            "fingerprint": self.fingerprint,
            "dedup": self.dedup,
            "alphabet": "code i is the i-th character of U+E000-F8FF, U+F0000-FFFFD, U+100000-10FFFD",
        }
        write_text(folder / MODEL, json.dumps(model, ensure_ascii=False))
        write_text(folder / DESCRIPTION, json.dumps(described, indent=2) + "\n")
        return [folder / MODEL, folder / DESCRIPTION]

    @classmethod
    def load(cls, folder: Path) -> "UnitBpe":
        """Read what ``save`` wrote. Raises ``ExportError``."""
        try:
            found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            content = json.loads((folder / MODEL).read_text(encoding="utf-8"))
            # The decoder is for other programs, and not part of the identity.
            content["decoder"] = None
            sizes = found["codebook_size"], len(content["model"]["vocab"])
            if type(sizes[0]) is not int or not 0 < sizes[0] < sizes[1]:
                raise ValueError(f"{sizes[0]!r} codes in a vocabulary of {sizes[1]}")
            model = _tokenizers().Tokenizer.from_str(json.dumps(content))
            return cls(model, sizes[0], str(found["fingerprint"]), bool(found["dedup"]))
        except FileNotFoundError as error:
            raise ExportError(f"{error.filename}: missing; spintok export --to bpe writes it") from None
        except ImportError:
            raise
        except Exception as error:
            # tokenizers raises plain exceptions for a file that it cannot parse.
            raise ExportError(f"{folder}: not a BPE of spintok ({error})") from None


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
    """Learn a BPE of each size from a corpus, write it to ``output/bpe-SIZE``, and encode the corpus with it.

    Args:
        folders: token folders of one tokenizer.
        output: the folder to write.
        vocab_sizes: the numbers of ids, codes included.
        codebook: its name; the first one by default.
        dedup: use the codes of runs, otherwise one code per frame.
        train_units: learn from the first so many units of the corpus; training needs some 100 bytes for each.
        skip_empty, overwrite: see ``export_files``.

    Returns:
        A row for the units themselves and one per size: ``vocab_size``, ``tokens``, ``compression``, and the rates
        ``token_rate`` (per second), ``token_bitrate`` and ``entropy_bitrate`` (bits per second). It is also written
        to ``report.json``.

    Raises:
        ExportError: a size leaves no merges or is more than the corpus gives, or ``output`` holds something else.
    """
    if not vocab_sizes:
        raise ExportError("give at least one size: --vocab-size 1000")
    source = open_source(folders, None if codebook is None else [codebook])
    name = source.header.codebook
    size = source.header.codebooks[name]
    if min(vocab_sizes) <= size:
        raise ExportError(f"a vocabulary of {min(vocab_sizes)} leaves no merges over a codebook of {size}")
    options = {"vocab_sizes": sorted(vocab_sizes), "train_units": train_units, "codebook": name, "unit_runs": dedup}
    description = describe_export(source.header, "bpe", source.state, options)
    if find_export(output, description, overwrite=overwrite):
        return list(json.loads((output / REPORT).read_text(encoding="utf-8")))

    def units() -> Iterator[tuple[Units, Tokens]]:
        for record in source.records(skip_empty=skip_empty):
            tokens = record.tokens[name]
            yield (tokens.units if dedup else tokens.codes), tokens

    with writing(output, description):
        fingerprint = source.header.fingerprint
        sample = _up_to(train_units, (part for part, _ in units()))
        largest = UnitBpe.train(sample, size, max(vocab_sizes), fingerprint=fingerprint, dedup=dedup)
        if largest.size < max(vocab_sizes):
            raise ExportError(f"the corpus has pairs for a vocabulary of {largest.size} only; ask for no more")
        models = [largest.smaller(wanted) for wanted in sorted(vocab_sizes)]
        report = _report(models, units(), source.header.frame_rate)
        files = [path for model in models for path in model.save(output / f"bpe-{model.size}")]
        write_text(output / REPORT, json.dumps(report, indent=2) + "\n")
        finish(output, description, [*files, output / REPORT])
    return report


def _report(models: Sequence[UnitBpe], corpus: Iterable[tuple[Units, Tokens]], frame_rate: int) -> list[dict[str, Any]]:
    """The rows of ``export_bpe``; bitrates as in ``spintok.stats``."""
    sizes = [models[0].codebook_size, *(model.size for model in models)]
    counts = [np.zeros(size, dtype=np.int64) for size in sizes]
    frames = 0
    remaining = iter(corpus)
    while batch := list(islice(remaining, BATCH)):
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


def _tokenizers() -> Any:
    return require("tokenizers", extra="export", purpose="BPE")
