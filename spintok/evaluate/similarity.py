"""The similarity of two representations of the same frames: linear CKA and SVCCA.

Both are computed from means and second moments, which are accumulated in float64. Memory therefore grows with the
widths of the representations, not with the number of frames.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.features import iter_layer_features, layers_of
from spintok.evaluate.metric import Metric, MetricInputs, Result
from spintok.evaluate.probe import collect_frames
from spintok.tokenizer import Tokenizer

__all__ = ["METRIC", "Moments", "compare_tokenizers"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over frames of x (D,) and y (E,) and of their outer products. Moments of parts add up.

    Attributes:
        frames: the number of frames.
        sum_x, sum_y: (D,) and (E,).
        xx, yy, xy: sums of outer products, (D, D), (E, E), (D, E).
    """

    frames: int
    sum_x: Matrix
    sum_y: Matrix
    xx: Matrix
    yy: Matrix
    xy: Matrix

    @classmethod
    def of(cls, x: NDArray[Any], y: NDArray[Any]) -> "Moments":
        """The moments of features (N, D) and (N, E) of the same frames."""
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise ValueError(f"needs features of the same frames, (N, D) and (N, E), got {x.shape} and {y.shape}")
        a, b = x.astype(np.float64), y.astype(np.float64)
        return cls(len(a), a.sum(0), b.sum(0), a.T @ a, b.T @ b, a.T @ b)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.frames + other.frames,
            self.sum_x + other.sum_x,
            self.sum_y + other.sum_y,
            self.xx + other.xx,
            self.yy + other.yy,
            self.xy + other.xy,
        )

    def cka(self) -> float:
        """Linear centred kernel alignment, from 0 to 1: |cov(x, y)|^2 / (|cov(x, x)| |cov(y, y)|), Frobenius norms.

        Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", equation 4 and section 3.
        It is 1 if y is x rotated, scaled and shifted, and 0 if either is constant.
        """
        xx, yy, xy = self._covariances()
        scale = float(np.linalg.norm(xx) * np.linalg.norm(yy))
        return float(np.linalg.norm(xy)) ** 2 / scale if scale > 0 else 0.0

    def svcca(self, variance: float = 0.99) -> float:
        """The mean canonical correlation of the leading principal components, from 0 to 1.

        Raghu et al. 2017, "SVCCA": each side keeps the fewest components that explain ``variance`` of its variance, and
        the mean is over as many correlations as the smaller side has components. It is 1 if y is x under an
        invertible linear map, and 0 if either is constant.
        """
        if not 0 < variance <= 1:
            raise ValueError(f"variance must lie in (0, 1], got {variance}")
        xx, yy, xy = self._covariances()
        left, right = _whitener(xx, variance), _whitener(yy, variance)
        if 0 in (left.shape[1], right.shape[1]):
            return 0.0
        correlations = np.linalg.svd(left.T @ xy @ right, compute_uv=False)
        return float(np.clip(correlations, 0, 1).mean())

    def _covariances(self) -> tuple[Matrix, Matrix, Matrix]:
        if self.frames < 2:
            raise ValueError(f"similarity needs at least 2 frames, got {self.frames}")
        n = self.frames
        x, y = self.sum_x / n, self.sum_y / n
        return self.xx / n - np.outer(x, x), self.yy / n - np.outer(y, y), self.xy / n - np.outer(x, y)


def _whitener(covariance: Matrix, variance: float) -> Matrix:
    """Principal directions, each divided by its standard deviation, (D, components)."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    # Directions without variance have small positive values from rounding.
    real = values > values[:1] * len(values) * np.finfo(np.float64).eps * 100
    if not real.any():
        return vectors[:, :0]
    held = np.cumsum(values) / values.sum()
    count = min(int(np.searchsorted(held, variance - 1e-12)) + 1, int(real.sum()))
    whitener: Matrix = vectors[:, :count] / np.sqrt(values[:count])
    return whitener


def compare_tokenizers(first: Tokenizer, second: Tokenizer, inputs: MetricInputs) -> dict[str, float]:
    """CKA and SVCCA of the features that the codebooks of two tokenizers read, over about ``probe_frames`` frames."""
    utterances, wanted = inputs.dataset.utterances, inputs.options.probe_frames
    order = np.random.default_rng(inputs.options.seed).permutation(len(utterances)).tolist()
    chosen = [utterances[i] for i in order]
    moments: Moments | None = None
    found = [iter_layer_features(one, chosen, [one.layer], inputs.skipped) for one in (first, second)]
    for (_, (x,)), (_, (y,)) in zip(*found, strict=True):
        part = Moments.of(x.float().cpu().numpy(), y.float().cpu().numpy())
        moments = part if moments is None else moments + part
        inputs.progress(f"similarity of {first.name} and {second.name}", min(moments.frames, wanted), wanted)
        if moments.frames >= wanted:
            break
    if moments is None:
        raise ValueError("no utterance could be read")
    return {"cka": moments.cka(), "svcca": moments.svcca(), "frames": moments.frames}


def _missing(inputs: MetricInputs) -> str | None:
    if len(layers_of(inputs.tokenizer)) < 2:
        return "the encoder has no layers to compare; name another tokenizer with --against"
    return None


def _measure(inputs: MetricInputs) -> Result:
    """Similarity of all pairs of layers."""
    tokenizer, options = inputs.tokenizer, inputs.options
    layers = list(dict.fromkeys([*layers_of(tokenizer, options.layers), tokenizer.layer]))
    frames = collect_frames(
        tokenizer,
        inputs.dataset.utterances,
        {},
        layers,
        frames=options.probe_frames,
        seed=options.seed,
        skipped=inputs.skipped,
    )
    cka, svcca = np.eye(len(layers)), np.eye(len(layers))
    for i, first in enumerate(layers):
        for j in range(i):
            moments = Moments.of(frames.layers[first], frames.layers[layers[j]])
            cka[i, j] = cka[j, i] = moments.cka()
            svcca[i, j] = svcca[j, i] = moments.svcca()
        inputs.progress(f"similarity of layers of {tokenizer.name}", i + 1, len(layers))
    read = layers.index(tokenizer.layer)
    values = {f"cka_layer_{layer}": float(cka[read, i]) for i, layer in enumerate(layers)}
    values |= {f"svcca_layer_{layer}": float(svcca[read, i]) for i, layer in enumerate(layers)}
    details = {"layers": layers, "read": tokenizer.layer, "cka": cka.tolist(), "svcca": svcca.tolist()}
    return Result(values, details=details | {"frames": len(frames.labels)})


METRIC = Metric("similarity", _measure, _missing)
