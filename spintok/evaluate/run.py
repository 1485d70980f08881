"""Measure one tokenizer or several on one dataset. A run that was interrupted resumes.

The result of each metric is stored in ``OUTPUT/partial``. Its file name depends on the tokenizer's weights, the
dataset, the alignments and the options, so a result is reused exactly if none of them has changed.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spintok._files import atomic
from spintok.data.audio import AudioError
from spintok.evaluate.abx import METRIC as ABX
from spintok.evaluate.bootstrap import difference, interval
from spintok.evaluate.metric import Decoder, Metric, MetricInputs, Result
from spintok.evaluate.options import Dataset, EvaluationOptions
from spintok.evaluate.phones import METRIC as PHONES
from spintok.evaluate.predictability import METRIC as PREDICTABILITY
from spintok.evaluate.probe import METRIC as PROBE
from spintok.evaluate.resynthesis import METRIC as RESYNTHESIS
from spintok.evaluate.robustness import METRIC as ROBUSTNESS
from spintok.evaluate.similarity import METRIC as SIMILARITY
from spintok.evaluate.similarity import compare_tokenizers
from spintok.evaluate.speaker import METRIC as SPEAKER
from spintok.evaluate.statistics import METRIC as STATISTICS
from spintok.evaluate.table import markdown
from spintok.progress import Progress, no_progress
from spintok.tokenizer import Tokenizer

__all__ = ["METRICS", "evaluate"]

METRICS: tuple[Metric, ...] = (
    STATISTICS,
    PHONES,
    ABX,
    ROBUSTNESS,
    SPEAKER,
    PREDICTABILITY,
    PROBE,
    SIMILARITY,
    RESYNTHESIS,
)
"""All metrics, in the order in which they are computed and shown."""

FORMAT = 1
"""The version of the layout of ``evaluation.json``."""
_RESULTS = 3
"""The version of partial results, raised whenever a metric changes."""


@dataclass(frozen=True)
class _Measured:
    """The results of one tokenizer by metric, and why the other metrics were left out."""

    tokenizer: Tokenizer
    results: dict[str, Result]
    left_out: dict[str, str]


def evaluate(
    tokenizers: Sequence[Tokenizer],
    dataset: Dataset,
    options: EvaluationOptions | None = None,
    metrics: Sequence[str] | None = None,
    *,
    decoders: Mapping[str, Decoder] | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measure the first tokenizer and compare the others with it.

    Args:
        tokenizers: one or more, with different names.
        dataset: utterances, with alignments and speakers as far as they are known.
        options: options of the metrics.
        metrics: names of metrics; by default all that can be measured.
        decoders: the decoders of the codebook to measure, by the name of the tokenizer, for resynthesis.
        output: a folder for ``evaluation.json``, ``evaluation.md`` and partial results; None writes nothing.
        overwrite: replace an evaluation in ``output`` that is of other speech, tokenizers or another codebook.
        progress: reports the progress.

    Returns:
        the content of ``evaluation.json``: for each tokenizer its ``metrics``, each with ``figures``, which have a
        ``value`` and, where the metric has bootstrap draws, a 95 % interval from ``low`` to ``high``; the metrics that
        were ``left_out``, with the reason; the utterances that were ``skipped`` because their audio cannot be read;
        and for each tokenizer after the first its paired ``differences`` from the
        first.

    Raises:
        ValueError: a metric that was named cannot be measured or is unknown, there are no utterances, two tokenizers
            have the same name, or ``output`` holds another evaluation.
    """
    options = options or EvaluationOptions()
    known = {metric.name: metric for metric in METRICS}
    unknown = next((name for name in metrics or () if name not in known), None)
    if unknown is not None:
        raise ValueError(f"unknown metric {unknown!r}; known: {', '.join(known)}")
    if not dataset.utterances:
        raise ValueError("there are no utterances to evaluate on")
    names = [tokenizer.name for tokenizer in tokenizers]
    if len(set(names)) < len(names):
        raise ValueError(f"tokenizers need different names to be told apart, got {', '.join(names)}")
    wanted = METRICS if metrics is None else tuple(known[name] for name in metrics)
    if metrics is not None:
        for tokenizer in tokenizers:
            inputs = MetricInputs(tokenizer, dataset, options, decoder=(decoders or {}).get(tokenizer.name))
            for metric in wanted:
                why = metric.unavailable(inputs)
                # Two tokenizers can be compared even if the layers of one cannot.
                if why is not None and not (metric is SIMILARITY and len(tokenizers) > 1):
                    raise ValueError(f"{metric.name} cannot be measured: {why}")
    if output is not None and not overwrite:
        _check_earlier(output / "evaluation.json", tokenizers, dataset, options)
    partial = None if output is None else output / "partial"
    required = metrics is not None
    measured = [
        _measure(
            MetricInputs(one, dataset, options, progress, decoder=(decoders or {}).get(one.name)),
            wanted,
            required,
            partial,
        )
        for one in tokenizers
    ]
    if len(tokenizers) > 1:
        for one in measured:
            one.left_out.pop(SIMILARITY.name, None)
    report = _report(measured, dataset, options)
    if SIMILARITY in wanted:
        inputs = MetricInputs(tokenizers[0], dataset, options, progress)
        report["similarity"] = {
            other.name: compare_tokenizers(tokenizers[0], other, inputs) for other in tokenizers[1:]
        }
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        _write(output / "evaluation.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        _write(output / "evaluation.md", markdown(report))
    return report


def _check_earlier(path: Path, tokenizers: Sequence[Tokenizer], dataset: Dataset, options: EvaluationOptions) -> None:
    """Refuse to replace an evaluation by one that does not measure all that it did."""
    if not path.exists():
        return
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        known = {one["fingerprint"]: one["name"] for one in earlier["tokenizers"]}
        speech, codebook = earlier["speech"].get("digest"), earlier["settings"]["codebook"]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path}: damaged, or no evaluation of spintok; delete it, or choose another folder") from None
    lost = [name for mark, name in known.items() if mark not in {one.fingerprint for one in tokenizers}]
    if speech != dataset.digest:
        other = "other speech"
    elif lost:
        other = f"another tokenizer, {lost[0]}"
    elif codebook != options.codebook:
        other = f"another codebook, {codebook or 'the primary one'}"
    else:
        return
    raise ValueError(
        f"{path.parent}: holds an evaluation of {other}; choose another folder with -o, or add --overwrite"
    )


def _measure(inputs: MetricInputs, metrics: Sequence[Metric], required: bool, partial: Path | None) -> _Measured:
    """Measure one tokenizer; reuse and store partial results. ``required`` metrics must not be left out."""
    tokenizer, progress = inputs.tokenizer, inputs.progress
    left_out = {metric.name: why for metric in metrics if (why := metric.unavailable(inputs)) is not None}
    paths = {
        metric.name: None if partial is None else partial / f"{metric.name}-{_digest(metric, inputs)}.json"
        for metric in metrics
        if metric.name not in left_out
    }
    results = {name: result for name, path in paths.items() if (result := _stored(path)) is not None}
    todo = [metric for metric in metrics if metric.name in paths and metric.name not in results]
    segments = [segment for metric in todo for segment in metric.segments(inputs)]
    inputs = replace(inputs, segments=segments)
    for number, metric in enumerate(todo):
        progress(f"metrics of {tokenizer.name}", number, len(todo), metric.name)
        try:
            result = metric.measure(inputs)
        except AudioError:
            raise
        except ValueError as error:
            if len(inputs.skipped) == len(inputs.dataset.utterances):
                why = next(iter(inputs.skipped.values()))
                raise AudioError(f"no utterance could be read: {why}") from None
            if required:
                raise
            left_out[metric.name] = str(error)
            continue
        results[metric.name] = replace(result, skipped=dict(inputs.skipped))
        path = paths[metric.name]
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, json.dumps(asdict(results[metric.name])))
    progress(f"metrics of {tokenizer.name}", len(todo), len(todo))
    return _Measured(tokenizer, {name: results[name] for name in paths if name in results}, left_out)


def _stored(path: Path | None) -> Result | None:
    """The result of an earlier run, if there is one. Files are written atomically, so a damaged one is an error."""
    if path is None or not path.exists():
        return None
    try:
        return Result(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it to measure again") from None


def _digest(metric: Metric, inputs: MetricInputs) -> str:
    """A digest of everything that a result depends on."""
    dataset = inputs.dataset
    digest = hashlib.sha256(
        f"{_RESULTS} {inputs.tokenizer.fingerprint} {inputs.options!r} {dataset.noise_sources!r} "
        f"{metric.depends(inputs)}".encode()
    )
    for utterance in dataset.utterances:
        alignment, text = dataset.alignments.get(utterance.key), dataset.texts.get(utterance.key)
        digest.update(f"{utterance!r}\t{alignment!r}\t{text!r}\n".encode())
    return digest.hexdigest()[:16]


def _report(measured: Sequence[_Measured], dataset: Dataset, options: EvaluationOptions) -> dict[str, Any]:
    first, *others = measured
    skipped: dict[str, str] = {}
    for one in measured:
        for result in one.results.values():
            skipped |= result.skipped
    return {
        "spintok_evaluation": FORMAT,
        "speech": {
            "digest": dataset.digest,
            "utterances": len(dataset.utterances),
            "aligned": len(dataset.alignments),
            "speakers": len(set(dataset.speakers.values())),
            "aligners": dict(Counter(a.aligner for a in dataset.alignments.values() if a.aligner is not None)),
            "sources": dict(Counter(u.source for u in dataset.utterances if u.source is not None)),
        },
        "skipped": skipped,
        "settings": _plain(asdict(options)),
        "tokenizers": [
            {
                "name": one.tokenizer.name,
                "fingerprint": one.tokenizer.fingerprint,
                "metrics": {name: _with_intervals(result) for name, result in one.results.items()},
                "left_out": one.left_out,
            }
            for one in measured
        ],
        "differences": {one.tokenizer.name: _differences(first.results, one.results) for one in others},
    }


def _with_intervals(result: Result) -> dict[str, Any]:
    figures: dict[str, dict[str, float]] = {}
    for name, value in result.values.items():
        figures[name] = {"value": value}
        if name in result.draws:
            low, high = interval(result.draws[name], value)
            figures[name] |= {"low": low, "high": high}
    return {"figures": figures, "drawn": result.drawn, "details": result.details}


def _differences(first: Mapping[str, Result], second: Mapping[str, Result]) -> dict[str, Any]:
    """Second minus first for values that both have, with paired intervals if both have the same draws."""
    found: dict[str, Any] = {}
    for metric in first.keys() & second.keys():
        one, two = first[metric], second[metric]
        rows = {}
        for name in one.values.keys() & two.values.keys():
            rows[name] = {"value": two.values[name] - one.values[name]}
            if name in one.draws and name in two.draws and one.drawn == two.drawn:
                rows[name] |= difference(one.draws[name], two.draws[name], rows[name]["value"])
        found[metric] = rows
    return found


def _plain(value: Any) -> Any:
    """The value with lists for tuples, as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
