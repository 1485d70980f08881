"""Each family of metrics from what was heard of one tokenizer to its figures and their bootstrap draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spintok.data.alignments import characters
from spintok.data.manifest import Utterance
from spintok.evaluate.abx import TASKS, AbxScore, abx
from spintok.evaluate.bootstrap import Measured, Ratios, replicates
from spintok.evaluate.dtw import Distance, unit_rows
from spintok.evaluate.features import layers_of
from spintok.evaluate.heard import Heard
from spintok.evaluate.options import Metric, Progress, Settings, Speech
from spintok.evaluate.perturbations import UNITS
from spintok.evaluate.phones import SILENCE_LABELS, LabelCounts, PhoneScore
from spintok.evaluate.predictability import predictability
from spintok.evaluate.probe import collect_frames, sweep
from spintok.evaluate.robustness import robustness
from spintok.evaluate.similarity import Moments
from spintok.evaluate.speaker import FOLDS, histograms, probe_speaker, speaker_information
from spintok.stats.counts import Statistics
from spintok.tokenizer import Tokenizer

__all__ = ["Result", "measure"]


@dataclass(frozen=True)
class Result:
    """One family's figures.

    Attributes:
        figures: by name.
        draws: of those figures that have them, one value a bootstrap draw.
        drawn: how many of what was drawn, such as "607 utterances".
        details: what is not a single number.
    """

    figures: dict[str, float]
    draws: dict[str, list[float]]
    drawn: str
    details: dict[str, Any]


@dataclass(frozen=True)
class _AbxScores:
    """ABX scores over the same speakers, each under a name of its own."""

    scores: Mapping[str, AbxScore]

    @property
    def units(self) -> tuple[str, ...]:
        return next(iter(self.scores.values())).units

    def figures(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        return {name: score.figures(weights)["error"] for name, score in self.scores.items()}


def measure(
    metric: Metric,
    tokenizer: Tokenizer,
    speech: Speech,
    settings: Settings,
    heard: Heard | None,
    progress: Progress = lambda what, done, total: None,
) -> Result:
    """One family of metrics; ``heard`` may be None for those that do not need it (``needs_hearing``)."""
    if heard is None:
        heard = Heard({}, {}, [], [])
    match metric:
        case "stats":
            return _statistics(speech, heard)
        case "phones":
            return _phones(speech, settings, heard)
        case "abx":
            return _abx(tokenizer, settings, heard)
        case "robustness":
            return _robustness(tokenizer, speech, settings, progress)
        case "speaker":
            return _speaker(speech, settings, heard)
        case "predictability":
            ratios = predictability(heard.tokens, order=settings.order, seed=settings.seed, merges=settings.merges)
            return _drawn(ratios, settings)
        case "probe":
            return _probe(tokenizer, speech, settings, progress)
        case "similarity":
            return _similarity(tokenizer, speech, settings, progress)


def _drawn(
    measured: Measured, settings: Settings, what: str = "utterances", details: dict[str, Any] | None = None
) -> Result:
    draws = {} if len(measured.units) < 2 else replicates(measured, settings.draws, settings.seed)
    return Result(
        measured.figures(),
        {name: values.tolist() for name, values in draws.items()},
        f"{len(measured.units)} {what}",
        details or {},
    )


def _statistics(speech: Speech, heard: Heard) -> Result:
    """``Statistics.figures``; the codes of silence are those that alignments, if there are any, show to be."""
    size = next(iter(heard.tokens.values())).codebook_size
    speakers = speech.speakers
    counts = Statistics.collect(((tokens, speakers.get(key)) for key, tokens in heard.tokens.items()), size)
    phones = {key: alignment.phones for key, alignment in speech.alignments.items() if alignment.phones}
    labelled = [LabelCounts.of(heard.tokens[key], intervals) for key, intervals in phones.items()]
    silence = LabelCounts.summed(labelled, size).codes_of(SILENCE_LABELS) if labelled else None
    figures = counts.figures(silence)
    single = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
    return Result(single, {}, "", {name: value for name, value in figures.items() if name not in single})


def _phones(speech: Speech, settings: Settings, heard: Heard) -> Result:
    phones = {key: alignment.phones for key, alignment in speech.alignments.items() if alignment.phones}
    words = {key: characters(alignment.words) for key, alignment in speech.alignments.items() if alignment.words}
    found = []
    if phones:
        score = PhoneScore(heard.tokens, phones, "phone", settings.tolerance)
        counts = score.counts
        details = {"silence_codes": counts.codes_of(SILENCE_LABELS), "phone_by_code": counts.table()}
        found.append(_drawn(score, settings, details=details))
    if words:
        found.append(_drawn(PhoneScore(heard.tokens, words, "character", None), settings))
    first, last = found[0], found[-1]
    return Result(first.figures | last.figures, first.draws | last.draws, first.drawn, first.details | last.details)


def _abx(tokenizer: Tokenizer, settings: Settings, heard: Heard) -> Result:
    codebook: Any = tokenizer.codebooks[settings.codebook or tokenizer.codebook_names[0]]
    codewords = unit_rows(codebook.normalized_codewords().detach().cpu().numpy())
    codes = [heard.tokens[item.key].codes[item.start : item.stop] for item in heard.items]
    sources: dict[str, tuple[list[NDArray[Any]], Distance]] = {
        "tokens": (list(codes), "identical"),
        "codewords": ([codewords[one] for one in codes], "angular"),
        "features": ([unit_rows(one) for one in heard.features], "angular"),
    }
    scores: dict[str, AbxScore] = {}
    details: dict[str, Any] = {"unit": settings.unit, "items": len(heard.items), "triples": {}, "left_out": {}}
    for task in TASKS:
        for source, (sequences, distance) in sources.items():
            try:
                score = abx(sequences, heard.items, task, distance, settings.sampling)
            except ValueError as error:
                details["left_out"][task] = str(error)
                break
            scores[f"{task}_{source}"] = score
            details["triples"][task] = score.triples
    if not scores:
        raise ValueError(next(iter(details["left_out"].values())))
    return _drawn(_AbxScores(scores), settings, "speakers", details)


def _robustness(tokenizer: Tokenizer, speech: Speech, settings: Settings, progress: Progress) -> Result:
    missing = {c.name: why for c in settings.conditions if (why := speech.material.missing(c.kind)) is not None}
    conditions = [condition for condition in settings.conditions if condition.name not in missing]
    if not conditions:
        raise ValueError(next(iter(missing.values()), "no conditions are given"))
    chosen = _some(speech.utterances, settings.robustness_utterances, settings.seed)
    done = 0

    def count(utterances: int) -> None:
        nonlocal done
        done += utterances
        progress(f"changed speech through {tokenizer.name}", done, len(chosen))

    ratios = robustness(
        tokenizer,
        chosen,
        conditions,
        speech.material,
        codebook=settings.codebook,
        seed=settings.seed,
        progress=count,
    )
    strengths = {c.name: {"kind": c.kind, "strength": c.strength, "unit": UNITS[c.kind]} for c in conditions}
    return _drawn(ratios, settings, details={"conditions": strengths, "left_out": missing})


def _speaker(speech: Speech, settings: Settings, heard: Heard) -> Result:
    keys = [key for key in heard.tokens if key in speech.speakers]
    who = [speech.speakers[key] for key in keys]
    vectors: dict[str, NDArray[Any]] = {
        "tokens": histograms([heard.tokens[key] for key in keys]),
        "features": np.stack([heard.pooled[key] for key in keys]),
    }
    probes = {name: probe_speaker(vector, who, keys, seed=settings.seed) for name, vector in vectors.items()}
    parts = {f"probe_accuracy_{name}": ratios.parts["accuracy"] for name, ratios in probes.items()}
    chance = probes["tokens"].parts["chance"]
    result = _drawn(Ratios(probes["tokens"].units, parts | {"probe_chance": chance}), settings)
    information = speaker_information(heard.tokens, speech.speakers, seed=settings.seed)
    return Result(result.figures | information, result.draws, result.drawn, {"speakers": len(set(who)), "folds": FOLDS})


def _probe(tokenizer: Tokenizer, speech: Speech, settings: Settings, progress: Progress) -> Result:
    layers = layers_of(tokenizer, settings.layers)
    phones = {key: alignment.phones for key, alignment in speech.alignments.items() if alignment.phones}
    aligned = [utterance for utterance in speech.utterances if utterance.key in phones]
    wanted = list(dict.fromkeys([*layers, tokenizer.layer]))
    done = 0

    def count(utterances: int) -> None:
        nonlocal done
        done += utterances
        progress(f"layers of {tokenizer.name}", done, len(aligned))

    frames = collect_frames(
        tokenizer, aligned, phones, wanted, frames=settings.probe_frames, seed=settings.seed, progress=count
    )
    read = torch.from_numpy(frames.layers[tokenizer.layer]).to(tokenizer.device)
    tokens = {}
    for name in tokenizer.codebook_names:
        codebook: Any = tokenizer.codebooks[name]
        tokens[name] = (codebook.codes(read).cpu().numpy(), tokenizer.size_of(name))
    fitted = 0

    def count_probes(probes: int) -> None:
        nonlocal fitted
        fitted += probes
        progress(f"probes of {tokenizer.name}", fitted, 1 + 2 * len(wanted) + len(tokens))

    ratios = sweep(
        frames,
        tokens,
        codebook_size=tokenizer.size_of(settings.codebook or tokenizer.codebook_names[0]),
        seed=settings.seed,
        progress=count_probes,
    )
    return _drawn(ratios, settings, "held-out utterances", {"frames": len(frames.labels), "phones": len(frames.names)})


def _similarity(tokenizer: Tokenizer, speech: Speech, settings: Settings, progress: Progress) -> Result:
    layers = list(dict.fromkeys([*layers_of(tokenizer, settings.layers), tokenizer.layer]))
    frames = collect_frames(tokenizer, speech.utterances, {}, layers, frames=settings.probe_frames, seed=settings.seed)
    cka, svcca = np.eye(len(layers)), np.eye(len(layers))
    for i, first in enumerate(layers):
        for j in range(i):
            moments = Moments.of(frames.layers[first], frames.layers[layers[j]])
            cka[i, j] = cka[j, i] = moments.cka()
            svcca[i, j] = svcca[j, i] = moments.svcca()
        progress(f"similarity of layers of {tokenizer.name}", i + 1, len(layers))
    read = layers.index(tokenizer.layer)
    figures = {f"cka_layer_{layer}": float(cka[read, i]) for i, layer in enumerate(layers)}
    figures |= {f"svcca_layer_{layer}": float(svcca[read, i]) for i, layer in enumerate(layers)}
    details = {"layers": layers, "read": tokenizer.layer, "cka": cka.tolist(), "svcca": svcca.tolist()}
    return Result(figures, {}, "", details | {"frames": len(frames.labels)})


def _some(utterances: Sequence[Utterance], number: int, seed: int) -> list[Utterance]:
    """At most so many utterances, drawn at random, in their order."""
    if len(utterances) <= number:
        return list(utterances)
    chosen = np.random.default_rng(seed).permutation(len(utterances))[:number]
    return [utterances[i] for i in np.sort(chosen).tolist()]
