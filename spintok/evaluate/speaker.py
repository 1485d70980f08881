"""How much features and tokens reveal about the speaker: a linear probe, and mutual information.

The probe is multinomial logistic regression (scikit-learn) on one vector per utterance, with stratified
cross-validation: every speaker is in every fold, and each utterance is classified by a probe that was not trained on
it. Chance is the share of the most frequent speaker.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok._files import require
from spintok.evaluate.bootstrap import Ratios
from spintok.evaluate.metric import Metric, MetricInputs, Result, bootstrapped, slug
from spintok.stats import JointCounts, entropy
from spintok.tokens import Tokens

__all__ = ["METRIC", "histograms", "probe_speaker", "speaker_information"]

FOLDS = 4


def histograms(tokens: Sequence[Tokens]) -> NDArray[np.float64]:
    """The square roots of the relative frequencies of each utterance's tokens, (N, K), rows of unit length.

    The distance of two rows is the Hellinger distance, in which rare codes have weight. Without tokens a row is zero.
    """
    counts = np.stack([np.bincount(one.units, minlength=one.codebook_size) for one in tokens]).astype(np.float64)
    found: NDArray[np.float64] = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    return found


def probe_speaker(
    vectors: NDArray[Any], speakers: Sequence[str], keys: Sequence[str], *, folds: int = FOLDS, seed: int = 0
) -> Ratios:
    """``accuracy`` of a linear probe that identifies the speaker, and ``chance``.

    Args:
        vectors: one per utterance, (N, D). Each dimension is standardised over the training folds.
        speakers: the speaker of each utterance. Speakers with fewer than ``folds`` utterances are left out.
        keys: the key of each utterance.

    Raises:
        ValueError: fewer than two speakers have ``folds`` utterances, or scikit-learn is missing.
    """
    require("sklearn", extra="evaluate", purpose="a probe")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

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

    Small samples overestimate information, more so with larger codebooks, and utterances differ in their words. The
    estimate is therefore repeated ``shuffles`` times with the speakers permuted over the utterances:
    ``shuffled_information`` is the mean of these estimates, ``excess_information`` the difference to the true one, and
    ``excess_share`` the excess over the entropy of the speaker. All are 0 with one speaker or without tokens.
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
        return JointCounts.of(np.repeat(of_utterance, lengths), flat, names.size, size).mutual_information()

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


def _missing(inputs: MetricInputs) -> str | None:
    counts = np.unique([*inputs.dataset.speakers.values()], return_counts=True)[1]
    if (counts >= FOLDS).sum() < 2:
        return f"fewer than two speakers with {FOLDS} utterances are known: give a manifest with a field speaker"
    return None


def _measure(inputs: MetricInputs) -> Result:
    """The probe over all utterances, and over those of each source: chance differs with the number of speakers."""
    encoded, speakers, options = inputs.encoded, inputs.dataset.speakers, inputs.options
    keys = [key for key in encoded.tokens if key in speakers]
    sources = {u.key: u.source for u in inputs.dataset.utterances if u.source is not None}
    result = _probes(keys, inputs, "")
    if len(set(sources.values())) > 1:
        for source in sorted(set(sources.values())):
            mine = [key for key in keys if sources.get(key) == source]
            # A source with too few speakers is in the pooled values only.
            with suppress(ValueError):
                part = _probes(mine, inputs, f"_{slug(source)}")
                result = Result(
                    result.values | part.values, result.draws | part.draws, result.drawn, result.details | part.details
                )
    information = speaker_information(encoded.tokens, speakers, seed=options.seed)
    return replace(result, values=result.values | information)


def _probes(keys: Sequence[str], inputs: MetricInputs, suffix: str) -> Result:
    """Probes on tokens and on features, and chance; ``suffix`` is added to the names of the values."""
    encoded, speakers, options = inputs.encoded, inputs.dataset.speakers, inputs.options
    who = [speakers[key] for key in keys]
    if not keys:
        raise ValueError("no utterance has a speaker")
    vectors: dict[str, NDArray[Any]] = {
        "tokens": histograms([encoded.tokens[key] for key in keys]),
        "features": np.stack([encoded.mean_features[key] for key in keys]),
    }
    probes = {name: probe_speaker(vector, who, keys, seed=options.seed) for name, vector in vectors.items()}
    parts = {f"probe_accuracy_{name}{suffix}": ratios.parts["accuracy"] for name, ratios in probes.items()}
    parts[f"probe_chance{suffix}"] = probes["tokens"].parts["chance"]
    details = {f"speakers{suffix}": len(set(who)), "folds": FOLDS}
    return bootstrapped(Ratios(probes["tokens"].units, parts), inputs, details)


METRIC = Metric("speaker", _measure, _missing, package=("sklearn", "scikit-learn"))
