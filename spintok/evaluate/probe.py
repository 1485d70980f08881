"""The cost of quantisation: the same linear probe on continuous features and on codes.

The probe is a softmax classifier of the phone of a frame. On features it has a matrix (D, P) and a bias. On codes it
has a row (P,) per code, which is the same probe on one-hot vectors. Both are fitted by full-batch L-BFGS on the same
frames with the same weight decay, and tested on held-out utterances.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from spintok._files import require
from spintok.data.labels.alignments import Interval, frame_intervals
from spintok.data.manifest import Utterance
from spintok.evaluate.bootstrap import Ratios
from spintok.evaluate.features import iter_layer_features, layers_of
from spintok.evaluate.metric import Metric, MetricInputs, Result, bootstrapped
from spintok.progress import Progress, no_progress
from spintok.tokenizer import Tokenizer

__all__ = ["METRIC", "LayerFrames", "collect_frames", "probe_codes", "probe_features", "sweep"]

HELD_OUT = 0.25
_DECAY = 1e-4
_STEPS = 100


@dataclass(frozen=True, eq=False)
class LayerFrames:
    """Frames of utterances at several layers.

    Attributes:
        keys: the utterances.
        utterance: the index of each frame's utterance, (N,).
        layers: features by layer, (N, D) float32.
        labels: the phone of each frame as an index into ``names``, (N,); -1 without a phone.
        names: the phones.
        layer_names: a name for each layer, such as "layer_6" or "mfcc".
    """

    keys: tuple[str, ...]
    utterance: NDArray[np.int64]
    layers: Mapping[int, NDArray[np.float32]]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    layer_names: tuple[str, ...]


def collect_frames(
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    phones: Mapping[str, Sequence[Interval]],
    layers: Sequence[int],
    *,
    frames: int = 20_000,
    seed: int = 0,
    skipped: MutableMapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> LayerFrames:
    """Encode utterances in a random order, each once, until there are ``frames`` frames of all ``layers``.

    Utterances whose audio cannot be read are left out, and ``skipped`` gets their keys and the reasons.
    """
    names = sorted({interval.label for key in phones for interval in phones[key]})
    number = {name: i for i, name in enumerate(names)}
    keys: list[str] = []
    found: list[list[NDArray[np.float32]]] = [[] for _ in layers]
    labels, owner = [], []
    total = 0
    order = np.random.default_rng(seed).permutation(len(utterances)).tolist()
    shuffled = [utterances[index] for index in order]
    for utterance, parts in iter_layer_features(tokenizer, shuffled, layers, {} if skipped is None else skipped):
        for layer, part in zip(found, parts, strict=True):
            layer.append(part.float().cpu().numpy())
        intervals = phones.get(utterance.key, ())
        place = frame_intervals(intervals, len(parts[0]), tokenizer.grid)
        of_interval = np.array([number[interval.label] for interval in intervals] + [-1], dtype=np.int64)
        labels.append(of_interval[place])
        owner.append(np.full(len(parts[0]), len(keys), dtype=np.int64))
        keys.append(utterance.key)
        total += len(parts[0])
        progress(f"layers of {tokenizer.name}", min(total, frames), frames)
        if total >= frames:
            break
    if total == 0:
        raise ValueError("no utterance has a frame")
    features = {layer: np.concatenate(parts) for layer, parts in zip(layers, found, strict=True)}
    layer_names = tuple(tokenizer.encoder.layer_name(layer) for layer in layers)
    return LayerFrames(tuple(keys), np.concatenate(owner), features, np.concatenate(labels), tuple(names), layer_names)


def probe_features(features: NDArray[Any], labels: NDArray[np.int64], train: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The label that a linear probe predicts for each frame of (N, D) features, (N,), fitted on the ``train`` frames.

    Each dimension is standardised over the training frames.
    """
    x = torch.from_numpy(np.asarray(features, dtype=np.float32))
    chosen = torch.from_numpy(train)
    x = (x - x[chosen].mean(0)) / x[chosen].std(0).clamp_min(1e-6)
    weight = torch.zeros(x.shape[1], int(labels.max()) + 1, requires_grad=True)
    return _fit(x[chosen], x, torch.from_numpy(labels)[chosen], weight, lambda rows: rows @ weight)


def probe_codes(
    codes: NDArray[Any], size: int, labels: NDArray[np.int64], train: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """As ``probe_features``, for codes (N,) in [0, ``size``)."""
    x = torch.from_numpy(np.asarray(codes, dtype=np.int64))
    chosen = torch.from_numpy(train)
    weight = torch.zeros(size, int(labels.max()) + 1, requires_grad=True)
    return _fit(x[chosen], x, torch.from_numpy(labels)[chosen], weight, lambda rows: weight[rows])


def sweep(
    frames: LayerFrames,
    tokens: Mapping[str, tuple[NDArray[Any], int]],
    *,
    codebook_size: int,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> Ratios:
    """Frame accuracy of the probe on each layer and on codes, in per cent.

    ``layer_{n}_features``; ``layer_{n}_kmeans``, on codes of K-means with ``codebook_size`` codewords that is fitted on
    the training frames of the layer; ``{name}_tokens``, on each entry of ``tokens``: codes (N,) and the size of their
    codebook; and ``chance``, the most frequent phone. A quarter of the utterances is held out. The names for MFCC begin
    with ``mfcc`` instead of ``layer_{n}``. ``progress`` is called after each probe.

    Raises:
        ValueError: fewer than two utterances have labels, or scikit-learn is missing.
    """
    MiniBatchKMeans = require("sklearn.cluster", extra="evaluate", purpose="a probe").MiniBatchKMeans
    labelled = frames.labels >= 0
    present = np.unique(frames.utterance[labelled])
    if present.size < 2:
        raise ValueError(f"a probe needs at least two utterances with phones, got {present.size}")
    labels, owner = frames.labels[labelled], frames.utterance[labelled]
    shuffled = np.random.default_rng(seed).permutation(present)
    held = np.sort(shuffled[: max(1, round(HELD_OUT * present.size))])
    test = np.isin(owner, held)
    where = np.searchsorted(held, owner[test])
    total = np.bincount(where, minlength=held.size).astype(np.float64)

    def accuracy(guesses: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        progress()
        return 100 * np.bincount(where, weights=guesses[test] == labels[test], minlength=held.size), total

    parts = {"chance": accuracy(np.full(labels.size, np.bincount(labels[~test]).argmax()))}
    for name, features in zip(frames.layer_names, frames.layers.values(), strict=True):
        x = features[labelled]
        parts[f"{name}_features"] = accuracy(probe_features(x, labels, ~test))
        size = min(codebook_size, int((~test).sum()))
        kmeans = MiniBatchKMeans(size, batch_size=4096, n_init=1, random_state=seed).fit(x[~test])
        parts[f"{name}_kmeans"] = accuracy(probe_codes(kmeans.predict(x), size, labels, ~test))
    for name, (codes, size) in tokens.items():
        parts[f"{name}_tokens"] = accuracy(probe_codes(codes[labelled], size, labels, ~test))
    return Ratios(tuple(frames.keys[i] for i in held), parts)


def _fit(
    train: Tensor, rows: Tensor, labels: Tensor, weight: Tensor, scores: Callable[[Tensor], Tensor]
) -> NDArray[np.int64]:
    """Fit ``weight`` and a bias by cross-entropy; return the most probable label of every row."""
    bias = torch.zeros(weight.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(scores(train) + bias, labels) + _DECAY * weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        best: NDArray[np.int64] = (scores(rows) + bias).argmax(1).numpy()
    return best


def _missing(inputs: MetricInputs) -> str | None:
    return None if inputs.dataset.phones else "no phones are given (--alignments)"


def _measure(inputs: MetricInputs) -> Result:
    tokenizer, options, phones = inputs.tokenizer, inputs.options, inputs.dataset.phones
    aligned = [utterance for utterance in inputs.dataset.utterances if utterance.key in phones]
    layers = list(dict.fromkeys([*layers_of(tokenizer, options.layers), tokenizer.layer]))
    frames = collect_frames(
        tokenizer,
        aligned,
        phones,
        layers,
        frames=options.probe_frames,
        seed=options.seed,
        skipped=inputs.skipped,
        progress=inputs.progress,
    )
    features = torch.from_numpy(frames.layers[tokenizer.layer]).to(tokenizer.device)
    tokens = {}
    for name in tokenizer.codebook_names:
        codebook = tokenizer.codebook(name)
        tokens[name] = (codebook.codes(features).cpu().numpy(), tokenizer.size_of(name))
    fitted = 0

    def count() -> None:
        nonlocal fitted
        fitted += 1
        inputs.progress(f"probes of {tokenizer.name}", fitted, 1 + 2 * len(layers) + len(tokens))

    size = tokenizer.size_of(inputs.codebook)
    ratios = sweep(frames, tokens, codebook_size=size, seed=options.seed, progress=count)
    held_out = len(ratios.units)
    details = {"frames": len(frames.labels), "phones": len(frames.names), "held_out_utterances": held_out}
    return bootstrapped(ratios, inputs, details)


METRIC = Metric("probe", _measure, _missing, package=("sklearn", "scikit-learn"))
