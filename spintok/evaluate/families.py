"""Each family of metrics from what was heard of one tokenizer to its figures and their bootstrap draws."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.abx import TASKS, Item, Sampling, Unit, abx, find_items, sample_items, used_items
from spintok.evaluate.alignments import Alignment, characters
from spintok.evaluate.compare import Measured, Ratios, replicates
from spintok.evaluate.conditions import CONDITIONS, UNITS, Condition, Material
from spintok.evaluate.dtw import Distance, unit_rows
from spintok.evaluate.hearing import layers_of, utterance_features
from spintok.evaluate.phones import SILENCE_LABELS, TOLERANCE, PhoneScore
from spintok.evaluate.predictability import predictability
from spintok.evaluate.probe import collect_frames, sweep
from spintok.evaluate.robustness import robustness
from spintok.evaluate.similarity import Moments
from spintok.evaluate.speaker import FOLDS, histograms, probe_speaker, speaker_information
from spintok.manifest import Utterance
from spintok.stats import Statistics
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

__all__ = ["METRICS", "Heard", "Metric", "Result", "Settings", "Speech", "hear", "lacking", "measure", "pending_heard"]

Metric = Literal["stats", "phones", "abx", "robustness", "speaker", "predictability", "probe", "similarity"]
METRICS: tuple[Metric, ...] = (
    "stats",
    "phones",
    "abx",
    "robustness",
    "speaker",
    "predictability",
    "probe",
    "similarity",
)

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""

_PACKAGES: dict[Metric, tuple[str, str]] = {
    "robustness": ("rapidfuzz", "rapidfuzz"),
    "speaker": ("sklearn", "scikit-learn"),
    "predictability": ("tokenizers", "tokenizers"),
    "probe": ("sklearn", "scikit-learn"),
}


@dataclass(frozen=True)
class Settings:
    """What is measured and how; the same settings give the same figures.

    Attributes:
        codebook: whose tokens are measured; the primary by default.
        layers: of the encoder, for probe and similarity; all by default.
        tolerance: of boundaries, in seconds.
        unit: of ABX.
        sampling: of ABX.
        conditions: of robustness.
        robustness_utterances: at most so many, drawn at random: each is encoded once a condition.
        order: of the largest n-gram model.
        merges: of BPE.
        probe_frames: of the probe and of similarity, about.
        draws: of the bootstrap.
        seed: of every random draw.
    """

    codebook: str | None = None
    layers: tuple[int, ...] = ()
    tolerance: float = TOLERANCE
    unit: Unit = "triphone"
    sampling: Sampling = field(default_factory=Sampling)
    conditions: tuple[Condition, ...] = CONDITIONS
    robustness_utterances: int = 200
    order: int = 3
    merges: int = 1000
    probe_frames: int = 20_000
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Speech:
    """The speech that tokenizers are measured on.

    Attributes:
        utterances: the recordings.
        alignments: by utterance key, of those that have one.
        material: what robustness mixes in.
    """

    utterances: tuple[Utterance, ...]
    alignments: Mapping[str, Alignment]
    material: Material

    @property
    def speakers(self) -> dict[str, str]:
        """By utterance key, of those whose speaker is known."""
        return {u.key: u.speaker for u in self.utterances if u.speaker is not None}


@dataclass(frozen=True)
class Heard:
    """What one pass over the audio kept: tokens, mean features (D,), and the features (T, D) of the ABX items."""

    tokens: dict[str, Tokens]
    pooled: dict[str, NDArray[np.float32]]
    items: list[Item]
    features: list[NDArray[np.float32]]


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
class _Joined:
    """Several measured things over the same units as one, each under a name of its own ("%" stands for its names)."""

    parts: Mapping[str, Measured]

    @property
    def units(self) -> tuple[str, ...]:
        return next(iter(self.parts.values())).units

    def figures(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        return {
            name.replace("%", own): value
            for name, part in self.parts.items()
            for own, value in part.figures(weights).items()
        }


def lacking(metric: Metric, speech: Speech, tokenizer: Tokenizer) -> str | None:
    """What a metric needs and does not have, in words; None when it can be measured."""
    module, package = _PACKAGES.get(metric, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        return f"{package} is not installed: pip install 'spintok[evaluate]'"
    counts = np.unique([*speech.speakers.values()], return_counts=True)[1]
    aligned = any(alignment.phones for alignment in speech.alignments.values())
    match metric:
        case "phones" | "probe" if not aligned:
            return "no phones are given (--alignments)"
        case "abx" if not aligned:
            return "no phones are given (--alignments)"
        case "abx" if not counts.size:
            return "speakers are not known: give a manifest with a field speaker"
        case "speaker" if (counts >= FOLDS).sum() < 2:
            return f"fewer than two speakers with {FOLDS} utterances are known: give a manifest with a field speaker"
        case "predictability" if len(speech.utterances) < 2:
            return "there is one utterance only"
        case "similarity" if len(layers_of(tokenizer)) < 2:
            return "the encoder has no layers to compare; name another tokenizer with --against"
        case _:
            return None


def pending_heard(metrics: Sequence[Metric]) -> bool:
    """Whether any of these metrics needs the pass over all audio."""
    return not set(metrics).isdisjoint({"stats", "phones", "abx", "speaker", "predictability"})


def hear(tokenizer: Tokenizer, speech: Speech, settings: Settings, *, with_items: bool, progress: Progress) -> Heard:
    """Encode every utterance once. ``with_items`` keeps the features of ABX items."""
    name = settings.codebook or tokenizer.codebook_names[0]
    size = tokenizer.size_of(name)
    codebook = tokenizer.codebooks[name]
    items: list[Item] = []
    if with_items:
        phones = {key: alignment.phones for key, alignment in speech.alignments.items()}
        # How long utterances are is not known yet.
        everything = find_items(phones, dict.fromkeys(phones, 2**31), speech.speakers, settings.unit)
        items = used_items(sample_items(everything, settings.sampling), sampling=settings.sampling)
    of_utterance: dict[str, list[Item]] = {}
    for item in items:
        of_utterance.setdefault(item.key, []).append(item)
    heard = Heard({}, {}, [], [])
    total = len(speech.utterances)
    label = f"encoding with {tokenizer.name}"
    done = 0

    def count(utterances: int) -> None:
        nonlocal done
        done += utterances
        progress(label, done, total)

    for utterance, features in utterance_features(tokenizer, speech.utterances, count):
        codes = codebook.codes(features).cpu().numpy()  # type: ignore[operator]
        array = features.float().cpu().numpy()
        heard.tokens[utterance.key] = Tokens(codes, size)
        heard.pooled[utterance.key] = array.mean(axis=0) if len(array) else np.zeros(array.shape[1], np.float32)
        for item in of_utterance.get(utterance.key, ()):
            if item.start < len(array):
                heard.items.append(item._replace(stop=min(item.stop, len(array))))
                heard.features.append(array[item.start : item.stop].copy())
    return heard


def measure(
    metric: Metric,
    tokenizer: Tokenizer,
    speech: Speech,
    settings: Settings,
    heard: Heard | None,
    progress: Progress = lambda what, done, total: None,
) -> Result:
    """One family of metrics; ``heard`` may be None for those that do not need it (``pending_heard``)."""
    if heard is None:
        heard = Heard({}, {}, [], [])
    match metric:
        case "stats":
            spoken = [(tokens, speech.speakers.get(key)) for key, tokens in heard.tokens.items()]
            figures = Statistics.collect(spoken, spoken[0][0].codebook_size).figures()
            single = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
            return Result(single, {}, "", {name: value for name, value in figures.items() if name not in single})
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


def _phones(speech: Speech, settings: Settings, heard: Heard) -> Result:
    phones = {key: alignment.phones for key, alignment in speech.alignments.items() if alignment.phones}
    words = {key: characters(alignment.words) for key, alignment in speech.alignments.items() if alignment.words}
    score = PhoneScore(heard.tokens, phones, "phone", settings.tolerance)
    result = _drawn(
        score,
        settings,
        details={"silence_codes": score.counts.codes_of(SILENCE_LABELS), "phone_by_code": score.counts.table()},
    )
    if not words:
        return result
    spelled = _drawn(PhoneScore(heard.tokens, words, "character", None), settings)
    return Result(
        result.figures | spelled.figures, result.draws | spelled.draws, result.drawn, result.details | spelled.details
    )


def _abx(tokenizer: Tokenizer, settings: Settings, heard: Heard) -> Result:
    codebook: Any = tokenizer.codebooks[settings.codebook or tokenizer.codebook_names[0]]
    codewords = unit_rows(codebook.normalized_codewords().detach().cpu().numpy())
    codes = [heard.tokens[item.key].codes[item.start : item.stop] for item in heard.items]
    sources: dict[str, tuple[list[NDArray[Any]], Distance]] = {
        "tokens": (list(codes), "identical"),
        "codewords": ([codewords[one] for one in codes], "angular"),
        "features": ([unit_rows(one) for one in heard.features], "angular"),
    }
    parts: dict[str, Measured] = {}
    details: dict[str, Any] = {"unit": settings.unit, "items": len(heard.items), "triples": {}, "left_out": {}}
    for task in TASKS:
        for source, (sequences, distance) in sources.items():
            try:
                score = abx(sequences, heard.items, task, distance, settings.sampling)
            except ValueError as error:
                details["left_out"][task] = str(error)
                break
            parts[f"{task}_{source}"] = score
            details["triples"][task] = score.triples
    if not parts:
        raise ValueError(next(iter(details["left_out"].values())))
    return _drawn(_Joined(parts), settings, "speakers", details)


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
    import torch

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
