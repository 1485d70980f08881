"""What every op means, in float64 and without a thought for speed: the compiled ops are tested against it."""

import torch
from torch import Tensor

__all__ = ["assign", "runs"]


def assign(z: Tensor, codebook: Tensor, metric: str = "dot") -> tuple[Tensor, Tensor, Tensor]:
    """The best codeword of every row: ids (N,), scores (N,), margins (N,) of z (N, D) and codebook (K, D).

    Sums run over d = 0, 1, ... in float64. A product of two float32 numbers is exact in float64, so this
    order gives the same bits on every machine, and equal codewords tie exactly; the lowest index wins. A row
    that is not finite has id -1 and NaN for the rest. Margins are inf when K = 1.
    """
    z64, c64 = z.double(), codebook.double()
    dots = torch.zeros(len(z), len(codebook), dtype=torch.float64)
    squares = torch.zeros(len(codebook), dtype=torch.float64)
    distances = torch.zeros_like(dots)
    for d in range(z.shape[1]):
        dots += z64[:, d, None] * c64[None, :, d]
        squares += c64[:, d] * c64[:, d]
        distances += (z64[:, d, None] - c64[None, :, d]).square()

    # argmin |z - c|^2 = argmax z.c - |c|^2 / 2; the score shown is the negative squared distance.
    ranking = dots if metric == "dot" else dots - 0.5 * squares
    best = ranking.max(dim=1, keepdim=True).values
    ids = (ranking == best).int().argmax(dim=1)
    others = ranking.scatter(1, ids[:, None], -torch.inf)
    margins = (best - others.max(dim=1, keepdim=True).values).squeeze(1)
    scores = (dots if metric == "dot" else -distances).gather(1, ids[:, None]).squeeze(1)
    if metric == "l2":
        margins = 2 * margins
    finite = z.isfinite().all(dim=1)
    ids = torch.where(finite, ids, -1).int()
    return ids, scores.where(finite, torch.nan), margins.where(finite, torch.nan)


def runs(codes: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Runs of equal codes: codes (B, T) padded with -1, durations (B, T) padded with 0, counts (B,)."""
    run_codes = torch.full_like(codes, -1)
    durations = torch.zeros(codes.shape, dtype=torch.int32)
    counts = torch.zeros(len(codes), dtype=torch.int32)
    for b, length in enumerate(lengths.tolist()):
        for t in range(length):
            if t == 0 or codes[b, t] != codes[b, t - 1]:
                run_codes[b, counts[b]] = codes[b, t]
                counts[b] += 1
            durations[b, counts[b] - 1] += 1
    return run_codes, durations, counts
