"""What features and tokens tell of who is speaking: a linear probe, and mutual information.

The probe is multinomial logistic regression (scikit-learn) on one vector an utterance, cross-validated: utterances
are dealt into folds so that each speaker is in all of them, and each utterance is classified by a probe that has not
seen it. Chance is the share of the most frequent speaker.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.bootstrap import Ratios
from spintok.stats.joint_counts import PairCounts, entropy
from spintok.tokens import Tokens

__all__ = ["histograms", "probe_speaker", "speaker_information"]

FOLDS = 4


def histograms(tokens: Sequence[Tokens]) -> NDArray[np.float64]:
    """One vector an utterance: the square roots of the shares of its tokens, (N, K), of unit length.

    Roots make the distance of two histograms Hellinger's, in which rare codes count. Zero without tokens.
    """
    counts = np.stack([np.bincount(one.units, minlength=one.codebook_size) for one in tokens]).astype(np.float64)
    found: NDArray[np.float64] = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    return found


def probe_speaker(
    vectors: NDArray[Any], speakers: Sequence[str], keys: Sequence[str], *, folds: int = FOLDS, seed: int = 0
) -> Ratios:
    """How often a linear probe names the speaker: ``accuracy`` and ``chance``.

    Args:
        vectors: one an utterance, (N, D); each dimension is brought to zero mean and unit variance of the training
            folds.
        speakers: of each utterance. Those with fewer than ``folds`` utterances are left out.
        keys: of each utterance.

    Raises:
        ValueError: fewer than two speakers have ``folds`` utterances, or scikit-learn is missing.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(f"probes need scikit-learn ({error}): pip install 'spintok[evaluate]'") from None
    names, index, counts = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts[index] >= folds)
    if len(set(index[kept].tolist())) < 2:
        raise ValueError(
            f"a probe of speakers needs two or more with at least {folds} utterances each, got "
            f"{int((counts >= folds).sum())} of {names.size} speakers"
        )
    x, y = np.asarray(vectors, dtype=np.float64)[kept], index[kept]
    correct = np.zeros(kept.size)
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        correct[test] = probe.fit(x[train], y[train]).predict(x[test]) == y[test]
    most_frequent = np.bincount(y).argmax()
    ones = np.ones(kept.size)
    return Ratios(
        tuple(keys[i] for i in kept.tolist()),
        {"accuracy": (correct, ones), "chance": ((y == most_frequent).astype(np.float64), ones)},
    )


def speaker_information(
    tokens: Mapping[str, Tokens], speakers: Mapping[str, str], *, shuffles: int = 20, seed: int = 0
) -> dict[str, float]:
    """I(speaker; token) in bits, tokens after de-duplication, and how much of it is real.

    Counts of few tokens show information where there is none, the more so the larger the codebook; besides,
    utterances differ in what is said. So the speakers are also dealt out to utterances at random, ``shuffles``
    times: ``shuffled_information`` is the mean of what is then found, and ``excess_information`` what the true
    speakers add to it. ``excess_share`` is that over the speaker's entropy. All 0 with one speaker or without tokens.
    """
    keys = [key for key in tokens if key in speakers]
    if not keys:
        raise ValueError("no utterance has both tokens and a speaker")
    names, index = np.unique([speakers[key] for key in keys], return_inverse=True)
    units = [tokens[key].units for key in keys]
    flat = np.concatenate(units)
    lengths = [len(one) for one in units]
    size = tokens[keys[0]].codebook_size

    def information(of_utterance: NDArray[np.int64]) -> float:
        return PairCounts.of(np.repeat(of_utterance, lengths), flat, names.size, size).mutual_information()

    rng = np.random.default_rng(seed)
    found = information(index)
    shuffled = math.fsum(information(rng.permutation(index)) for _ in range(shuffles)) / max(shuffles, 1)
    uncertainty = entropy(np.bincount(np.repeat(index, lengths)))
    excess = found - shuffled
    return {
        "mutual_information": found,
        "shuffled_information": shuffled,
        "excess_information": excess,
        "excess_share": excess / uncertainty if uncertainty > 0 else 0.0,
        "speaker_entropy": uncertainty,
    }
