"""All metrics of one tokenizer or several on one body of speech; a run that was stopped goes on where it was.

Each family's result is kept in ``OUTPUT/partial`` under a name that depends on the tokenizer's weights, the speech,
the alignments and the settings, so it is used again exactly when nothing that matters has changed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from spintok._files import atomic
from spintok.data.audio import AudioError
from spintok.evaluate.bootstrap import difference, interval
from spintok.evaluate.families import Result, measure
from spintok.evaluate.features import utterance_features
from spintok.evaluate.heard import Heard, hear
from spintok.evaluate.options import METRICS, Metric, Progress, Settings, Speech, lacking, needs_hearing
from spintok.evaluate.similarity import Moments
from spintok.evaluate.table import markdown
from spintok.tokenizer import Tokenizer

__all__ = ["evaluate"]

FORMAT = 1
"""The version of the JSON's layout."""


def evaluate(
    tokenizers: Sequence[Tokenizer],
    speech: Speech,
    settings: Settings | None = None,
    metrics: Sequence[Metric] | None = None,
    *,
    output: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure the first tokenizer, and the others against it.

    Args:
        tokenizers: one or more, with different names.
        speech: utterances, with alignments and speakers as far as they are known.
        metrics: those wanted; by default all that can be measured.
        output: a folder for ``evaluation.json``, ``evaluation.md`` and partial results; None writes nothing.
        progress: called with what is going on, how much is done, and how much there is.

    Returns:
        what ``evaluation.json`` holds: for each tokenizer its ``metrics`` by family, each figure with its ``value``
        and, where the family has draws, its 95 % bootstrap interval ``low`` to ``high``; what was ``left_out`` and
        why; and for each tokenizer after the first the paired ``differences`` from the first.

    Raises:
        ValueError: a metric was asked for by name and cannot be measured, there is no speech, or two tokenizers
            share a name.
    """
    settings = settings or Settings()
    if not speech.utterances:
        raise ValueError("there are no utterances to evaluate on")
    names = [tokenizer.name for tokenizer in tokenizers]
    if len(set(names)) < len(names):
        raise ValueError(f"tokenizers need different names to be told apart, got {', '.join(names)}")
    if metrics is not None:
        for tokenizer in tokenizers:
            for metric in metrics:
                why = None if _between(metric, tokenizers) else lacking(metric, speech, tokenizer)
                if why is not None:
                    raise ValueError(f"{metric} cannot be measured: {why}")
    results = [_one(tokenizer, speech, settings, metrics, output, progress) for tokenizer in tokenizers]
    for _, left_out in results[1:] and results:
        # It is measured below, between tokenizers.
        left_out.pop("similarity", None)
    report: dict[str, Any] = {
        "spintok_evaluation": FORMAT,
        "speech": {
            "utterances": len(speech.utterances),
            "aligned": len(speech.alignments),
            "speakers": len(set(speech.speakers.values())),
        },
        "settings": _plain(asdict(settings)),
        "tokenizers": [
            {
                "name": tokenizer.name,
                "fingerprint": tokenizer.fingerprint,
                "metrics": {metric: _shown(result) for metric, result in found.items()},
                "left_out": left_out,
            }
            for tokenizer, (found, left_out) in zip(tokenizers, results, strict=True)
        ],
        "differences": {
            tokenizer.name: _differences(results[0][0], found)
            for tokenizer, (found, _) in zip(tokenizers[1:], results[1:], strict=True)
        },
    }
    if metrics is None or "similarity" in metrics:
        report["similarity"] = {
            other.name: _alike(tokenizers[0], other, speech, settings, progress) for other in tokenizers[1:]
        }
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("evaluation.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n"),
            ("evaluation.md", markdown(report)),
        ):
            with atomic(output / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return report


def _one(
    tokenizer: Tokenizer,
    speech: Speech,
    settings: Settings,
    metrics: Sequence[Metric] | None,
    output: Path | None,
    progress: Progress,
) -> tuple[dict[Metric, Result], dict[str, str]]:
    """The results of one tokenizer, and what was left out and why."""
    left_out: dict[str, str] = {}
    left_out |= {
        metric: why for metric in metrics or METRICS if (why := lacking(metric, speech, tokenizer)) is not None
    }
    wanted = [metric for metric in metrics or METRICS if metric not in left_out]
    digest = _digest(tokenizer, speech, settings)
    folder = None if output is None else output / "partial"
    paths = {metric: None if folder is None else folder / f"{metric}-{digest}.json" for metric in wanted}
    found = {metric: result for metric, path in paths.items() if (result := _kept(path)) is not None}
    todo = [metric for metric in wanted if metric not in found]
    heard: Heard | None = None
    if needs_hearing(todo):
        heard = hear(tokenizer, speech, settings, with_items="abx" in todo, progress=progress)
    for number, metric in enumerate(todo):
        progress(f"{metric} of {tokenizer.name}", number, len(todo))
        try:
            result = measure(metric, tokenizer, speech, settings, heard, progress)
        except AudioError:
            raise
        except ValueError as error:
            # What the data turns out not to hold; asked for by name it is an error.
            if metrics is not None:
                raise
            left_out[metric] = str(error)
            continue
        found[metric] = result
        path = paths[metric]
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(asdict(result)), encoding="utf-8")
    return {metric: found[metric] for metric in wanted if metric in found}, left_out


def _between(metric: Metric, tokenizers: Sequence[Tokenizer]) -> bool:
    """Whether a metric has something to say of several tokenizers even where it has nothing to say of one."""
    return metric == "similarity" and len(tokenizers) > 1


def _kept(path: Path | None) -> Result | None:
    """The result of an earlier run; None when there is none. Files appear whole, so a damaged one is an error."""
    if path is None or not path.exists():
        return None
    try:
        return Result(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it to measure again") from None


def _digest(tokenizer: Tokenizer, speech: Speech, settings: Settings) -> str:
    """Of everything that figures depend on."""
    digest = hashlib.sha256(f"{FORMAT} {tokenizer.fingerprint} {settings!r} {speech.material!r}".encode())
    for utterance in speech.utterances:
        alignment = speech.alignments.get(utterance.key)
        digest.update(f"{utterance.key}\t{utterance.path}\t{utterance.speaker}\t{alignment!r}\n".encode())
    return digest.hexdigest()[:16]


def _shown(result: Result) -> dict[str, Any]:
    figures: dict[str, dict[str, float]] = {}
    for name, value in result.figures.items():
        figures[name] = {"value": value}
        if name in result.draws:
            low, high = interval(result.draws[name], value)
            figures[name] |= {"low": low, "high": high}
    return {"figures": figures, "drawn": result.drawn, "details": result.details}


def _differences(first: Mapping[Metric, Result], second: Mapping[Metric, Result]) -> dict[str, Any]:
    """Second minus first for figures that both have, with paired intervals where both were drawn alike."""
    found: dict[str, Any] = {}
    for metric in first.keys() & second.keys():
        one, two = first[metric], second[metric]
        rows = {}
        for name in one.figures.keys() & two.figures.keys():
            rows[name] = {"value": two.figures[name] - one.figures[name]}
            if name in one.draws and name in two.draws and one.drawn == two.drawn:
                rows[name] |= difference(one.draws[name], two.draws[name], rows[name]["value"])
        found[metric] = rows
    return found


def _alike(
    first: Tokenizer, second: Tokenizer, speech: Speech, settings: Settings, progress: Progress
) -> dict[str, float]:
    """CKA and SVCCA of what the codebooks of two tokenizers read, over about ``probe_frames`` frames."""
    order = np.random.default_rng(settings.seed).permutation(len(speech.utterances)).tolist()
    chosen = [speech.utterances[i] for i in order]
    moments: Moments | None = None
    pairs = zip(utterance_features(first, chosen), utterance_features(second, chosen), strict=True)
    for (_, x), (_, y) in pairs:
        part = Moments.of(x.float().cpu().numpy(), y.float().cpu().numpy())
        moments = part if moments is None else moments + part
        progress(
            f"similarity of {first.name} and {second.name}",
            min(moments.frames, settings.probe_frames),
            settings.probe_frames,
        )
        if moments.frames >= settings.probe_frames:
            break
    assert moments is not None
    return {"cka": moments.cka(), "svcca": moments.svcca(), "frames": moments.frames}


def _plain(value: Any) -> Any:
    """Tuples as lists, which is what JSON makes of them."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
