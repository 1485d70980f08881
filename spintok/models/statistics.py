"""Sums over whole waveforms, from which the front ends compute their normalisations."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["WaveformStatistics"]


@dataclass(frozen=True)
class WaveformStatistics:
    """Sums over B whole waveforms, in float64. The statistics of consecutive blocks of a waveform can be added.

    Attributes:
        samples, sum, squares: count, sum and sum of squares of the samples, each (B,).
        patches, patch_sum, patch_gram: count (B,), sum (B, k) and sum of outer products (B, k, k) of vectors of k
            numbers: the inputs of the first convolution, or log-mel frames.
    """

    samples: Tensor
    sum: Tensor
    squares: Tensor
    patches: Tensor
    patch_sum: Tensor
    patch_gram: Tensor

    def __add__(self, other: "WaveformStatistics") -> "WaveformStatistics":
        return WaveformStatistics(*(a + b for a, b in zip(self._all(), other._all(), strict=True)))

    def __getitem__(self, rows: slice) -> "WaveformStatistics":
        """The statistics of some of the waveforms."""
        return WaveformStatistics(*(values[rows] for values in self._all()))

    def _all(self) -> tuple[Tensor, ...]:
        return (self.samples, self.sum, self.squares, self.patches, self.patch_sum, self.patch_gram)

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Mean (B,) and variance (B,) of the samples."""
        count = self.samples.clamp(min=1)
        mean = self.sum / count
        return mean, (self.squares / count - mean.square()).clamp(min=0)

    def patch_mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """Mean (B, k) and covariance (B, k, k) of the patches."""
        count = self.patches.clamp(min=1)[:, None]
        mean = self.patch_sum / count
        return mean, self.patch_gram / count[:, :, None] - mean[:, :, None] * mean[:, None, :]
