"""How alike two representations of the same frames are: linear CKA and SVCCA.

Both follow from means and second moments, which are summed over chunks of frames in float64: memory grows with the
widths, not with the frames.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Moments"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over frames of x (D,) and y (E,), their squares and products; those of the parts add up.

    Attributes:
        frames: how many.
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
        """Of features (N, D) and (N, E) of the same frames."""
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
        1 when y is x turned, scaled and moved. 0 when either does not vary.
        """
        xx, yy, xy = self._covariances()
        scale = float(np.linalg.norm(xx) * np.linalg.norm(yy))
        return float(np.linalg.norm(xy)) ** 2 / scale if scale > 0 else 0.0

    def svcca(self, variance: float = 0.99) -> float:
        """The mean canonical correlation of the leading principal components, from 0 to 1.

        Raghu et al. 2017, "SVCCA": each side keeps the fewest components that hold ``variance`` of its variance; the
        mean is over as many correlations as the smaller side has components. 1 when y is x under any linear map
        that loses nothing. 0 when either does not vary.
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
    # What rounding leaves of directions without variance.
    real = values > values[:1] * len(values) * np.finfo(np.float64).eps * 100
    if not real.any():
        return vectors[:, :0]
    held = np.cumsum(values) / values.sum()
    count = min(int(np.searchsorted(held, variance - 1e-12)) + 1, int(real.sum()))
    whitener: Matrix = vectors[:, :count] / np.sqrt(values[:count])
    return whitener
