"""What is measured on the development set while training: how codes go with phones, and how they stand a new voice."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from spintok.audio import Recording
from spintok.frames import frame_center_seconds
from spintok.manifest import Utterance
from spintok.perturb import draw, perturb, rng_for
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

__all__ = ["Check", "Interval", "edit_distance", "phone_information", "read_phones"]

Interval = tuple[str, float, float]
"""A phone, and where it starts and ends in seconds."""


class Check:
    """Figures of a tokenizer on a few utterances, always the same.

    Args:
        utterances: the development set.
        count: of utterances to take, evenly from the set.
        phones: alignments by key; empty when there are none.
    """

    def __init__(self, utterances: Sequence[Utterance], count: int, phones: Mapping[str, Sequence[Interval]]) -> None:
        places = np.linspace(0, len(utterances) - 1, min(count, len(utterances))).round().astype(int)
        self._utterances = [utterances[place] for place in places]
        self._phones = phones
        if phones and not any(utterance.key in phones for utterance in self._utterances):
            raise ValueError(
                f"no utterance of the development set has an alignment: its first key is {utterances[0].key!r}, "
                f"the first of the alignments {next(iter(phones))!r}"
            )

    def __call__(self, tokenizer: Tokenizer) -> dict[str, float]:
        """``perplexity`` of the codes, ``ued``, and ``pnmi`` when there are alignments.

        UED is the ratio of sums over utterances, in percent: edits between the de-duplicated codes of the recording
        and of the same words in another voice, over the codes of the recording.
        """
        plain, moved = [], []
        for utterance in self._utterances:
            recording = tokenizer.record(utterance.path)
            waveform = torch.cat(list(recording.blocks()))
            change = draw(rng_for(0, 0, utterance.key))
            other = perturb(waveform[None], torch.tensor([len(waveform)]), [change])[0]
            name = tokenizer.codebook_names[0]
            pair = [recording, Recording(other, lambda other=other: iter([other]))]  # type: ignore[misc]
            first, second = (found[name] for found in tokenizer.encode_recordings(pair, [name]))
            plain.append(first)
            moved.append(second)
        edits = sum(edit_distance(a.units, b.units) for a, b in zip(plain, moved, strict=True))
        codes = np.concatenate([tokens.codes for tokens in plain])
        shares = np.bincount(codes) / max(1, len(codes))
        figures = {
            "perplexity": float(np.exp(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())),
            "ued": 100 * edits / max(1, sum(len(tokens.units) for tokens in plain)),
        }
        aligned = [
            (tokens, self._phones[utterance.key])
            for tokens, utterance in zip(plain, self._utterances, strict=True)
            if utterance.key in self._phones
        ]
        return figures | ({"pnmi": phone_information(aligned)} if aligned else {})


def read_phones(path: Path) -> dict[str, list[Interval]]:
    """Alignments by utterance, from JSON lines ``{"id": ..., "phones": [[label, start, end], ...]}``, in seconds.

    Raises ``ValueError`` naming the file and the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    found: dict[str, list[Interval]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            found[str(record["id"])] = [(str(label), float(a), float(b)) for label, a, b in record["phones"]]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f'{path}:{number}: expected {{"id": ..., "phones": [[label, start, end], ...]}}') from None
    return found


def phone_information(aligned: Sequence[tuple[Tokens, Sequence[Interval]]]) -> float:
    """PNMI = I(phone; code) / H(phone) over the frames whose centre lies in a phone (Hsu et al. 2021, section IV-C)."""
    pairs: Counter[tuple[str, int]] = Counter()
    for tokens, phones in aligned:
        for frame, code in enumerate(tokens.codes.tolist()):
            centre = frame_center_seconds(frame)
            label = next((label for label, start, end in phones if start <= centre < end), None)
            if label is not None:
                pairs[label, code] += 1
    phone_counts: Counter[str] = Counter()
    code_counts: Counter[int] = Counter()
    for (label, code), count in pairs.items():
        phone_counts[label] += count
        code_counts[code] += count
    phone, code, both = (_entropy(list(counts.values())) for counts in (phone_counts, code_counts, pairs))
    return (phone + code - both) / phone if phone > 0 else 0.0


def edit_distance(first: ArrayLike, second: ArrayLike) -> int:
    """Levenshtein's distance of two sequences of integers."""
    a, b = np.asarray(first), np.asarray(second)
    places = np.arange(len(b) + 1)
    row = places.copy()
    for item in a:
        # Without insertions first; then an insertion adds one to the best of what lies to the left.
        best = np.minimum(row[1:] + 1, row[:-1] + (b != item))
        best = np.concatenate([[row[0] + 1], best])
        row = np.minimum.accumulate(best - places) + places
    return int(row[-1])


def _entropy(counts: Sequence[int]) -> float:
    values: NDArray[np.float64] = np.array(counts, dtype=np.float64)
    shares = values / values.sum() if len(values) else values
    return float(-(shares * np.log(shares)).sum())
