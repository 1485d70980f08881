"""Two views of one batch for the tests of the loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["make_views", "relative_error"]


def make_views(
    n: int, k: int, d: int = 16, *, seed: int = 0, noise: float = 0.5, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows z1 (n, d), z2 near it, and a codebook (k, d)."""
    draw = torch.Generator().manual_seed(seed)
    z1, other, codebook = (torch.randn(rows, d, generator=draw, dtype=torch.float64) for rows in (n, n, k))
    z2 = F.normalize(z1, dim=1) + noise * F.normalize(other, dim=1)
    z1, z2, codebook = (F.normalize(x, dim=1).to(dtype) for x in (z1, z2, codebook))
    return z1, z2, codebook


def relative_error(got: Tensor, truth: Tensor) -> float:
    """Frobenius norm of the difference over that of the truth."""
    true = truth.double().cpu()
    return float((got.double().cpu() - true).norm() / true.norm().clamp_min(1e-300))
