"""Running statistics of log-mel bands, from which a stream is normalised while it arrives.

Each band is normalised by its mean and variance over what was heard so far, which include the frames to normalise. A
frame counts with its amplitude relative to the loudest one: pauses, noise in them, zeros and a click hardly move the
statistics, and the level of the recording cancels. They start from a prior, which is the mean and variance over the
training speech, and what was heard fades with a half-life, so a new speaker or microphone is learned after a while and
an hour is held in as few numbers as a second.

The mean of a band is a level, the mean over the bands, plus its deviation from that. The level has the weaker prior, so
a quiet recording is normalised after a moment. The energies have a floor at a fixed distance below the level: what is
buried in it is the same for zeros and for a quiet room.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spintok.frames import FRAME_RATE
from spintok.models.streaming import StreamingConfig

__all__ = ["MELS_PER_FRAME", "QUIET", "VARIANCE_FLOOR", "BandStatistics", "RunningNorm"]

MELS_PER_FRAME = 2
"""Log-mel frames in a frame of the encoder."""

QUIET = 3e-3
"""The amplitude below which nothing counts as loud: about -75 dB of full scale, the noise of 16-bit recordings."""

VARIANCE_FLOOR = 1e-2
"""Added to the variance of each band, which is 3 to 10 for speech."""


@dataclass(frozen=True)
class BandStatistics:
    """Sums over the frames that B streams have heard, each weighted with its amplitude, in float64.

    Attributes:
        peak: (B,) the largest amplitude, faded like the sums.
        weight: (B,) the sum of the weights.
        energy: (B,) of the log-energy of frames.
        bands: (B, bands) of the log-mel bands.
        squares: (B, bands) of their squares.
    """

    peak: Tensor
    weight: Tensor
    energy: Tensor
    bands: Tensor
    squares: Tensor

    @classmethod
    def none(cls, batch: int, bands: int, device: torch.device) -> "BandStatistics":
        """Those of ``batch`` streams that have not begun."""
        row = torch.zeros(batch, dtype=torch.float64, device=device)
        table = torch.zeros(batch, bands, dtype=torch.float64, device=device)
        return cls(row, row, row, table, table)


class RunningNorm(nn.Module):
    """Normalises the energies of log-mel bands by running statistics with a prior.

    Args:
        bands: the number of bands.
        config: weights of the prior, half-life and floor.

    Attributes:
        prior_energy, prior_mean, prior_variance: the prior: the log-energy of a frame (), and mean and variance of the
            log-energies of the bands, each (bands,), over speech whose frames are weighted as here. Buffers.
        scale, shift: (bands,) applied to the normalised bands. Parameters.
    """

    prior_energy: Tensor
    prior_mean: Tensor
    prior_variance: Tensor

    def __init__(self, bands: int, config: StreamingConfig) -> None:
        super().__init__()
        self.config = config
        # Speech of common level, until a prior is measured.
        self.register_buffer("prior_energy", torch.tensor(0.0))
        self.register_buffer("prior_mean", torch.full((bands,), -3.0))
        self.register_buffer("prior_variance", torch.full((bands,), 5.0))
        self.scale = nn.Parameter(torch.ones(bands))
        self.shift = nn.Parameter(torch.zeros(bands))

    def forward(self, power: Tensor, counts: Tensor, chunk: int | None) -> Tensor:
        """Normalise a batch from its beginning, chunk by chunk.

        Args:
            power: (B, M, bands) energies of the bands.
            counts: (B,) the valid ones among the M of each row.
            chunk: the frames, of ``MELS_PER_FRAME`` log-mel frames each, after which the statistics move on; None
                normalises everything by the statistics of everything.

        Returns:
            (B, M, bands) float32.
        """
        batch, mels, bands = power.shape
        size = mels if chunk is None else chunk * MELS_PER_FRAME
        state = BandStatistics.none(batch, bands, power.device)
        places = torch.arange(mels, device=power.device)
        found = []
        for start in range(0, mels, max(size, 1)):
            part = slice(start, start + size)
            state = self.observe(state, power[:, part], places[part] < counts[:, None])
            found.append(self.normalise(state, power[:, part]))
        rows = torch.cat(found, 1) if found else power
        return rows * self.scale + self.shift

    @torch.no_grad()
    def observe(self, state: BandStatistics, power: Tensor, valid: Tensor) -> BandStatistics:
        """The statistics after a chunk of energies (B, M, bands), of which those that are ``valid`` (B, M) count."""
        seconds = valid.shape[1] / (FRAME_RATE * MELS_PER_FRAME)
        fade = 0.5 ** (seconds / self.config.half_life)
        mean_energy = power.double().mean(2)
        amplitude = mean_energy.sqrt() * valid
        log_energy = mean_energy.clamp(min=1e-30).log()
        peak = torch.maximum(state.peak * fade, amplitude.amax(1))
        weight = state.weight * fade + amplitude.sum(1)
        energy = state.energy * fade + (amplitude * log_energy).sum(1)
        heard = BandStatistics(peak, weight, energy, state.bands, state.squares)
        logs = self._logs(heard, power).double()
        bands = state.bands * fade + torch.einsum("bm,bmk->bk", amplitude, logs)
        squares = state.squares * fade + torch.einsum("bm,bmk->bk", amplitude, logs.square())
        return BandStatistics(peak, weight, energy, bands, squares)

    @torch.no_grad()
    def normalise(self, state: BandStatistics, power: Tensor) -> Tensor:
        """Energies (B, M, bands) of zero mean and unit variance by the given statistics, without scale and shift."""
        mean, variance = self.moments(state)
        scale = (variance + VARIANCE_FLOOR).rsqrt()
        return ((self._logs(state, power).double() - mean[:, None]) * scale[:, None]).to(self.scale.dtype)

    @torch.no_grad()
    def moments(self, state: BandStatistics) -> tuple[Tensor, Tensor]:
        """Mean and variance of the bands, each (B, bands) float64: of what was heard, and of the prior."""
        loudest = state.peak.clamp(min=QUIET)[:, None]
        weight = state.weight[:, None] / loudest
        total = state.bands / loudest
        level = total.mean(1, keepdim=True)
        shape_prior, level_prior = self._weights()
        prior_mean = self.prior_mean.double()
        prior_level = prior_mean.mean()
        mean = (level_prior * prior_level + level) / (level_prior + weight)
        mean = mean + (shape_prior * (prior_mean - prior_level) + total - level) / (shape_prior + weight)
        spread = (state.squares / loudest - total.square() / weight.clamp(min=1e-9)).clamp(min=0)
        variance = (shape_prior * self.prior_variance.double() + spread) / (shape_prior + weight)
        return mean, variance

    def _logs(self, state: BandStatistics, power: Tensor) -> Tensor:
        """Log-energies of the bands, with the floor at a fixed distance below the level of the speech."""
        loudest = state.peak.clamp(min=QUIET)
        prior = self._weights()[1]
        level = (prior * self.prior_energy.double() + state.energy / loudest) / (prior + state.weight / loudest)
        floor = (self.config.floor * level.exp()).to(power.dtype)
        return (power + floor[:, None, None]).log()

    def _weights(self) -> tuple[float, float]:
        """The weights of the priors of the bands and of the level, in log-mel frames."""
        rate = FRAME_RATE * MELS_PER_FRAME
        return self.config.prior * rate, self.config.level_prior * rate
