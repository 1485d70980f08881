"""An encoder that streams from one that needs whole recordings, as the start of its training.

The weights stay. The statistics of a whole recording give way to running ones, whose prior is measured over speech, and
which count frames otherwise: with their amplitude instead of equally. Scale and shift of each band bring the bands back
to what the weights were trained on, by least squares over the same speech.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from spintok.frames import num_frames
from spintok.models.encoder import Encoder
from spintok.models.log_mel import LogMelFrontEnd
from spintok.models.running import MELS_PER_FRAME, BandStatistics, RunningNorm
from spintok.models.running_log_mel import RunningLogMelFrontEnd
from spintok.models.streaming import StreamingConfig

__all__ = ["streaming_start"]


@torch.no_grad()
def streaming_start(encoder: Encoder, waveforms: Iterable[Tensor], config: StreamingConfig) -> Encoder:
    """``encoder``, which has a log-mel front end, with running statistics; it shares no weights with the original.

    Args:
        encoder: an encoder without ``EncoderConfig.streaming``.
        waveforms: speech from which the prior is measured, each (S,) float32 at 16 kHz. They are kept in memory.
        config: what the new encoder remembers.

    Raises:
        ValueError: the encoder has another front end or streams already, or there is no speech of a frame or more.
    """
    old = encoder.front_end
    if not isinstance(old, LogMelFrontEnd):
        raise ValueError(
            "only an encoder whose front_end is log_mel, and that does not stream yet, can start to stream"
        )
    made = Encoder(replace(encoder.config, streaming=config))
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    missing = made.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    new = made.front_end
    assert isinstance(new, RunningLogMelFrontEnd)
    heard = [(waveform[None], count) for waveform in waveforms if (count := num_frames(len(waveform)))]
    if not heard:
        raise ValueError("the prior needs speech, but there is none")
    _measure_prior(new, heard)
    _fit_bands(new, old, heard)
    return made.eval()


def _measure_prior(front: RunningLogMelFrontEnd, heard: list[tuple[Tensor, int]]) -> None:
    """Set the prior to the means of each recording's own statistics, weighted with what they count."""
    bands = len(front.norm.prior_mean)
    # A prior that counts next to nothing leaves the statistics of the recording.
    own = RunningNorm(bands, replace(front.norm.config, prior=1e-9, level_prior=1e-9))
    totals: list[Tensor] = []
    for waveform, count in heard:
        power = front.power(waveform, count)
        valid = torch.ones(power.shape[:2], dtype=torch.bool)
        state = own.observe(BandStatistics.none(1, bands, power.device), power, valid)
        if state.peak > 0:
            mean, variance = own.moments(state)
            weight = state.weight / state.peak
            values = torch.cat([torch.ones(1), state.energy / state.weight, mean[0], variance[0]])
            totals.append(weight * values)
    if not totals:
        raise ValueError("the prior needs speech, but there are only zeros")
    total = torch.stack(totals).sum(0)
    energy, mean, variance = (total[1:] / total[0]).split([1, bands, bands])
    front.norm.prior_energy.copy_(energy[0])
    front.norm.prior_mean.copy_(mean)
    front.norm.prior_variance.copy_(variance)


def _fit_bands(new: RunningLogMelFrontEnd, old: LogMelFrontEnd, heard: list[tuple[Tensor, int]]) -> None:
    """Set scale and shift to the regression, band by band, of the old normalised bands on the new ones."""
    bands = len(new.norm.prior_mean)
    count = 0
    x_sum, y_sum, xx_sum, xy_sum = torch.zeros(4, bands, dtype=torch.float64).unbind()
    for waveform, frames in heard:
        mels = frames * MELS_PER_FRAME
        x = new.norm(new.power(waveform, frames), torch.tensor([mels]), None)[0].double()
        y = old.normalised(waveform, torch.tensor([waveform.shape[1]]))[0, :mels].double()
        count += mels
        x_sum, y_sum = x_sum + x.sum(0), y_sum + y.sum(0)
        xx_sum, xy_sum = xx_sum + x.square().sum(0), xy_sum + (x * y).sum(0)
    spread = (xx_sum - x_sum.square() / count).clamp(min=1e-6)
    scale = (xy_sum - x_sum * y_sum / count) / spread
    new.norm.scale.copy_(scale)
    new.norm.shift.copy_((y_sum - scale * x_sum) / count)
