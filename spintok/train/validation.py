"""What is measured on the development set while training: how codes go with phones, and how they stand a new voice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spintok.data.alignments import match, read_alignments
from spintok.data.manifest import Utterance
from spintok.evaluate.perturbations import Condition, NoiseSources
from spintok.evaluate.robustness import robustness
from spintok.stats import LabelCounts, entropy
from spintok.tokenizer import Tokenizer

__all__ = ["Check"]


class Check:
    """Figures of a tokenizer on a few utterances, always the same.

    Args:
        utterances: the development set.
        count: of utterances to take, evenly from the set.
        alignments: a file or folder of phone alignments (``spintok.data.alignments``), if there is one.

    Raises:
        ValueError: the alignments cannot be read, or none is of these utterances.
    """

    def __init__(self, utterances: Sequence[Utterance], count: int, alignments: Path | None = None) -> None:
        places = np.linspace(0, len(utterances) - 1, min(count, len(utterances))).round().astype(int)
        self._utterances = [utterances[place] for place in places]
        keys = [utterance.key for utterance in self._utterances]
        self._alignments = {} if alignments is None else match(keys, read_alignments(alignments))

    def __call__(self, tokenizer: Tokenizer) -> dict[str, float]:
        """``perplexity`` of the codes of frames, ``ued_pooled_speaker``, and ``pnmi`` when there are alignments.

        The unit edit distance is that of the same words in another voice, in percent. ``ValueError`` without
        rapidfuzz.
        """
        figures = robustness(tokenizer, self._utterances, [Condition("speaker")], NoiseSources()).values()
        parts = []
        codes = np.zeros(tokenizer.codebook_size)
        for utterance in self._utterances:
            tokens = tokenizer.encode(utterance.path)
            codes += np.bincount(tokens.codes, minlength=len(codes))
            if utterance.key in self._alignments:
                parts.append(LabelCounts.of(tokens, self._alignments[utterance.key].phones))
        found = {
            "perplexity": 2.0 ** entropy(codes),
            "ued_pooled_speaker": figures["ued_pooled_speaker"],
        }
        if parts:
            counts = LabelCounts.summed(parts, tokenizer.codebook_size)
            found["pnmi"] = counts.metrics()["normalized_mutual_information"]
        return found
