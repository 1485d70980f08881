"""Validation during training: PNMI, codebook perplexity, and unit edit distance under speaker perturbation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spintok.data.labels.alignment_files import read_alignments
from spintok.data.labels.alignments import match
from spintok.data.manifest import Utterance
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.perturbations import Condition
from spintok.evaluate.robustness import robustness
from spintok.stats import LabelCounts, entropy
from spintok.tokenizer import Tokenizer

__all__ = ["Validation"]


class Validation:
    """Metrics of a tokenizer on a few utterances, the same at each call.

    Args:
        utterances: the development set.
        count: number of utterances to use, spread evenly over the set.
        alignments: a file or folder of phone alignments (``spintok.data.labels.alignment_files``); None for no PNMI.

    Raises:
        ValueError: the alignments cannot be read, or there is none for these utterances.
    """

    def __init__(self, utterances: Sequence[Utterance], count: int, alignments: Path | None = None) -> None:
        rows = np.linspace(0, len(utterances) - 1, min(count, len(utterances))).round().astype(int)
        self.utterances = [utterances[row] for row in rows]
        keys = [utterance.key for utterance in self.utterances]
        self._alignments = {} if alignments is None else match(keys, read_alignments(alignments))

    def __call__(self, tokenizer: Tokenizer) -> dict[str, float]:
        """``perplexity`` of the codes, ``ued_pooled_speaker``, and with alignments ``pnmi``.

        ``ued_pooled_speaker`` is the unit edit distance, in percent, to the same utterances in another voice.

        Raises:
            ValueError: rapidfuzz is not installed, or a file cannot be read.
        """
        speaker = robustness(tokenizer, self.utterances, [Condition("speaker")], NoiseSources()).values()
        parts = []
        codes = np.zeros(tokenizer.codebook_size)
        for utterance in self.utterances:
            tokens = tokenizer.encode(utterance.path)
            codes += np.bincount(tokens.codes, minlength=len(codes))
            if utterance.key in self._alignments:
                parts.append(LabelCounts.of(tokens, self._alignments[utterance.key].phones))
        metrics = {
            "perplexity": 2.0 ** entropy(codes),
            "ued_pooled_speaker": speaker["ued_pooled_speaker"],
        }
        if parts:
            counts = LabelCounts.summed(parts, tokenizer.codebook_size)
            metrics["pnmi"] = counts.metrics()["normalized_mutual_information"]
        return metrics
