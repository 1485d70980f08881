"""Awkward inputs for assignment, shared by the CPU, interpreter and GPU tests."""

import torch
from torch import Tensor

__all__ = ["CASES", "make"]

# N, K, D: one row, K > N, K that is no power of two and no multiple of any tile, tails in every dimension.
SHAPES = [(1, 1, 1), (1, 17, 16), (33, 50, 39), (203, 70, 64), (97, 131, 100), (64, 500, 256), (5, 700, 24)]
KINDS = ["random", "unit", "clustered", "near_ties", "duplicates", "offset", "integers", "tiny", "huge"]
CASES = [(kind, shape) for kind in KINDS for shape in SHAPES[2:5]] + [("unit", shape) for shape in SHAPES]


def make(kind: str, n: int, k: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """z (n, d) and a codebook (k, d), float32, of one kind of difficulty."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    z, c = normal(n, d), normal(k, d)
    match kind:
        case "random":
            pass
        case "unit":
            z, c = z / z.norm(dim=1, keepdim=True), c / c.norm(dim=1, keepdim=True)
        case "clustered":
            z = c[torch.randint(k, (n,), generator=rng)] + 0.1 * z
        case "near_ties":
            # Every codeword has a neighbour that float32 hardly tells from it.
            c = c / c.norm(dim=1, keepdim=True)
            c[k // 2 :] = c[: k - k // 2] + 1e-7 * c[k // 2 :]
            z = c[torch.randint(k, (n,), generator=rng)] + 0.1 * z
        case "duplicates":
            c = c[torch.randint(max(1, k // 5), (k,), generator=rng)].clone()
        case "offset":
            # K-means features: a common offset and two outlier dimensions.
            shift = 5 * normal(1, d)
            shift[:, : min(2, d)] *= 20
            z, c = z + shift, 0.5 * c + shift
        case "integers":
            # Exact ties between codewords that are not equal.
            z, c = z.round(), c.round()
        case "tiny":
            z, c = z * 1e-30, c * 1e-12
        case "huge":
            z, c = z * 1e25, c * 1e20
        case _:
            raise ValueError(kind)
    return z.contiguous(), c.contiguous()
