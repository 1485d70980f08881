"""Operations that torch.export cannot hand to ONNX, or only as something slow, in two forms each.

Eager code keeps torch's own operation, whose bits the recorded tokens have. While a graph is traced for export, the
same result comes from indexing and matrix products, which every runtime has.
"""

import math

import torch
from torch import Tensor

__all__ = ["power_spectrum", "sliding"]


def sliding(x: Tensor, size: int, step: int) -> Tensor:
    """Windows (..., T, size) of the last dimension of x (..., S), one every ``step``; a view outside of tracing."""
    if not torch.compiler.is_exporting():
        return x.unfold(-1, size, step)
    first = torch.arange((x.shape[-1] - size) // step + 1, device=x.device) * step
    return x[..., first[:, None] + torch.arange(size, device=x.device)]


def power_spectrum(frames: Tensor, fft: int) -> Tensor:
    """Squared absolute values (..., fft / 2 + 1) of the discrete Fourier transform of frames (..., S), S <= fft."""
    if not torch.compiler.is_exporting():
        return torch.view_as_real(torch.fft.rfft(frames, n=fft)).square().sum(-1)
    # Products in float64, for in float32 the sum of a quiet band would drown in the rounding of a loud one; a fast
    # transform in float32 rounds less.
    waves = _waves(frames.shape[-1], fft).to(frames.device)
    real, imaginary = (frames.double() @ waves).to(frames.dtype).chunk(2, dim=-1)
    return real.square() + imaginary.square()


def _waves(size: int, fft: int) -> Tensor:
    """Cosines and sines of each frequency side by side: (size, 2 * (fft / 2 + 1)) float64."""
    # Reduced modulo a turn in integers, so that the angles are exact.
    turns = torch.arange(size)[:, None] * torch.arange(fft // 2 + 1) % fft
    angles = turns.double() * (2 * math.pi / fft)
    return torch.cat([angles.cos(), -angles.sin()], dim=1)
