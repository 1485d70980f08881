"""The GPU kernels of assignment in Triton's interpreter: every variant, tail and hard input."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from spintok_kernels import reference
from torch import Tensor

from tests.kernels.inputs import make

Tile = pytest.importorskip("spintok_kernels.assign.triton.tiles").Tile
# Some of these tests are about NaN and infinities, on which numpy warns.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero|All-NaN):RuntimeWarning")
PARTS = ("tiles", "common", "codebook", "finish", "lanes", "nearest", "wide")
# Small tiles of each variant, so that tails and several tiles come with few rows.
WARPS = {"num_warps": 4}
SCRATCH = Tile(4, 64, 2, scratch=True, options=WARPS)
REGISTERS = Tile(4, 32, 2, options=WARPS)
FUSED = Tile(4, 64, 2, fused=True, options=WARPS)
WIDE = Tile(32, 128, 2, scratch=True, streamed=True, columns=64, options=WARPS)
TMA = Tile(32, 128, 2, scratch=True, streamed=True, columns=64, tma=True, options=WARPS)


@pytest.fixture
def kernels(interpreted: Callable[..., ModuleType]) -> ModuleType:
    return interpreted("spintok_kernels.assign.triton", *PARTS)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill new memory with NaN or an unexpected id, so that an element that no kernel writes shows."""
    empty, new_empty = torch.empty, torch.Tensor.new_empty

    def fill(result: Tensor) -> Tensor:
        return result.fill_(torch.nan if result.is_floating_point() else 2**29)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty", lambda *a, **o: fill(empty(*a, **o)))
        patched.setattr(torch.Tensor, "new_empty", lambda *a, **o: fill(new_empty(*a, **o)))
        yield


def check(kernels: ModuleType, z: Tensor, codebook: Tensor, metric: str, details: bool = False, **options: Any) -> None:
    ids, scores, margins = reference.assign(z, codebook, metric)
    options = {"processors": 3, **options}
    found = kernels.assign(z, kernels.prepare(codebook, metric), metric, details, **options)
    assert torch.equal(found[0], ids)
    if details:
        torch.testing.assert_close(found[1], scores.float(), rtol=2e-7, atol=0, equal_nan=True)
        torch.testing.assert_close(found[2], margins.float(), rtol=1e-4, atol=1e-2, equal_nan=True)
    else:
        assert found[1] is found[2] is None


def hard(kind: str, n: int, k: int, d: int) -> tuple[Tensor, Tensor]:
    z, codebook = make(kind, n, k, d)
    z[1] = 0
    z[3, 2] = torch.nan
    z[n - 1, 0] = -torch.inf
    return z, codebook


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 50, 39), (5, 300, 24), (9, 90, 200)])
def test_odd_shapes(kernels: ModuleType, shape: tuple[int, int, int], metric: str) -> None:
    check(kernels, *make("random", *shape), metric, tile=SCRATCH)


KINDS = ["near_ties", "duplicates", "integers", "offset", "tiny", "huge", "clustered"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("kind", KINDS)
def test_hard_inputs_with_every_variant(kernels: ModuleType, kind: str, metric: str) -> None:
    # Two tiles of rows and of codewords, each with a tail; of columns too, unless all rows are compared by definition.
    z, codebook = hard(kind, 6, 70, 24 if kind in ("duplicates", "tiny", "huge") else 66)
    check(kernels, z, codebook, metric, tile=SCRATCH)
    check(kernels, z, codebook, metric, tile=REGISTERS, splits=3)
    check(kernels, z, codebook, metric, tile=FUSED)


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize(
    ("kind", "tile"), [("near_ties", WIDE), ("duplicates", TMA), ("offset", TMA), ("integers", WIDE)]
)
def test_wide_rows(kernels: ModuleType, kind: str, tile: Any, metric: str) -> None:
    z, codebook = make(kind, 2, 70, 270)
    check(kernels, z, codebook, metric, tile=tile)
    if kind == "near_ties":
        check(kernels, z, codebook, metric, tile=tile, splits=2)


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("kind", ["offset", "near_ties", "duplicates", "integers"])
def test_scores_and_margins(kernels: ModuleType, kind: str, metric: str) -> None:
    check(kernels, *hard(kind, 6, 33, 8), metric, True, tile=SCRATCH)
    check(kernels, *make("offset", 3, 1, 8), metric, True, tile=SCRATCH)


def test_the_default_tiles(kernels: ModuleType) -> None:
    # Those of the GPU, chosen by shape; the interpreter ignores warps and stages.
    for shape, metric in (((8, 40, 20), "dot"), ((50, 33, 130), "l2"), ((2, 30, 270), "l2")):
        check(kernels, *make("near_ties", *shape), metric, processors=1)


def test_rows_in_several_slabs(kernels: ModuleType) -> None:
    check(kernels, *make("unit", 70, 40, 16), "dot", tile=SCRATCH, slab=48)


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_a_codebook_that_is_not_finite_is_reported(kernels: ModuleType, metric: str) -> None:
    z, codebook = make("unit", 9, 40, 16)
    codebook[33, 3] = torch.nan
    for tile in (SCRATCH, FUSED):
        prepared = kernels.prepare(codebook, metric)
        assert kernels.assign(z, prepared, metric, False, tile=tile, processors=3)[0].tolist() == [-1] * 9


def test_equal_codewords(kernels: ModuleType) -> None:
    z, codebook = make("unit", 2, 40, 12)
    check(kernels, z, codebook[:1].expand(40, -1).contiguous(), "dot", tile=SCRATCH)


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_rows_that_the_first_chunk_misjudges(kernels: ModuleType, metric: str) -> None:
    # A row's scale comes from its first 64 columns.
    z, codebook = make("unit", 2, 40, 130)
    large = z.clone()
    large[:, 64:] *= 1e6
    check(kernels, large, codebook, metric, tile=SCRATCH)
    z[:, :64], codebook[:, :64] = 0, 0
    check(kernels, z, codebook, metric, tile=SCRATCH)
    one_hot = torch.zeros(2, 130)
    one_hot[torch.arange(2), torch.tensor([40, 120])] = 1e3
    check(kernels, one_hot, codebook, metric, tile=SCRATCH)


def test_two_runs_are_bit_equal(kernels: ModuleType) -> None:
    z, codebook = make("near_ties", 12, 40, 16)
    prepared = kernels.prepare(codebook, "l2")
    first, again = (kernels.assign(z, prepared, "l2", True, tile=SCRATCH, processors=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


class Spy:
    """Keeps the arguments of every launch of a kernel."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.arguments: list[Any] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        def launch(*arguments: Any, **options: Any) -> None:
            self.arguments = [x.clone() if isinstance(x, Tensor) else x for x in arguments]
            self.kernel[grid](*arguments, **options)

        return launch


def test_few_rows_stay_open(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise the main pass would be of no use.
    z, codebook = make("unit", 128, 100, 256)
    spy = Spy(kernels.finish_kernel)
    monkeypatch.setattr(kernels, "finish_kernel", spy)
    check(kernels, z, codebook, "dot", tile=SCRATCH)
    counts = spy.arguments[9]
    assert 0 < int(counts.sum()) < 0.2 * 128


def truncated(x: Tensor) -> Tensor:
    """Round float64 to float32 towards zero, as tensor cores do; numpy and the interpreter round to nearest."""
    y = x.float()
    return torch.where(y.double().abs() > x.abs(), torch.nextafter(y, torch.zeros_like(y)), y).double()


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize(("kind", "depth"), [("unit", 24), ("offset", 70), ("random", 200), ("clustered", 130)])
def test_the_bound_holds_for_truncating_sums(
    kernels: ModuleType, kind: str, depth: int, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, k = 10, 40
    z, codebook = make(kind, n, k, depth)
    prepared = kernels.prepare(codebook, metric)
    _, half, bias, mean, numbers = prepared
    spy = Spy(kernels.finish_kernel)
    monkeypatch.setattr(kernels, "finish_kernel", spy)
    # With splits the main pass stores the best score and 2 err of every row.
    kernels.assign(z, prepared, metric, False, tile=REGISTERS, splits=2, processors=3)
    best, twice = spy.arguments[7].view(2, n, 2).double().unbind(2)

    x = z - mean if metric == "l2" else z
    first = x[:, : kernels.chunks(depth).width].abs().amax(1)
    scale = torch.exp2(8 - torch.floor(torch.log2(first)))[:, None].double()
    rounded, codes = (x * scale).half().double(), half[:k, :depth].double()
    score = torch.zeros(n, k, dtype=torch.float64)
    for d in range(depth):
        score = truncated(score + rounded[:, d, None] * codes[:, d])
    score = truncated(score + bias[:k].double() * (scale if metric == "l2" else 1))

    m = mean.double() if metric == "l2" else 0
    z64, c64 = z.double() - m, codebook.double() - m
    truth = z64 @ c64.t() - (0.5 * c64.square().sum(1) if metric == "l2" else 0)
    error = (score - truth * scale / numbers[4].double()).abs().amax(1)
    # The rest of the bound is for the group numbers in the low bits.
    allowed = (twice / 2 - 2.0**-15 * best.abs()).amin(0)
    assert bool((error <= allowed).all())
    assert bool((error > 1e-3 * allowed).any())
