"""The assignment kernels on a GPU: what the interpreter and the compiler cannot show."""

import shutil
import subprocess
import sys

import pytest
import torch
from spintok_kernels import assign, backends, prepare, reference

from tests.kernels.inputs import CASES, make

pytestmark = [
    pytest.mark.requires_gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
METRICS = ["dot", "l2"]
kernels = pytest.importorskip("spintok_kernels.assign.triton")
tiles = kernels.tiles
TILES = [tiles.NARROW, tiles.NARROW_128, tiles.FUSED, tiles.WIDE, tiles.WIDE_L2, tiles.OTHER_NARROW, tiles.OTHER_WIDE]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_ids_are_the_definition(kind: str, shape: tuple[int, int, int], tile: object, metric: str) -> None:
    if tile.streamed and shape[2] <= 32:
        pytest.skip("its pieces have 64 columns")
    z, codebook = make(kind, *shape)
    z[shape[0] // 2, 0] = torch.nan
    found = kernels.assign(z.cuda(), kernels.prepare(codebook.cuda(), metric), metric, False, tile=tile)[0]
    assert torch.equal(found.cpu(), reference.assign(z, codebook, metric)[0])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["unit", "clustered", "near_ties", "duplicates", "offset"])
@pytest.mark.parametrize("depth", [39, 256, 768])
def test_equal_to_the_cpu_on_fresh_inputs(kind: str, depth: int, metric: str) -> None:
    # Fresh inputs at every run; the seed is in the message of a failure.
    seed = int(torch.seed() % 2**31)
    z, codebook = make(kind, 20_000, 700, depth, seed=seed)
    found = assign(z.cuda(), codebook.cuda(), metric=metric, return_scores=True)
    wanted = assign(z, codebook, metric=metric, return_scores=True)
    assert torch.equal(found.ids.cpu(), wanted.ids), seed
    assert torch.equal(assign(z.cuda(), codebook.cuda(), metric=metric).cpu(), wanted.ids), seed
    torch.testing.assert_close(found.scores.cpu(), wanted.scores, rtol=2e-7, atol=1e-30)
    size = float(z.norm(dim=1).max() + codebook.norm(dim=1).max()) ** 2
    torch.testing.assert_close(found.margins.cpu(), wanted.margins, rtol=1e-4, atol=1e-5 * size)


@pytest.mark.parametrize("metric", METRICS)
def test_two_runs_have_the_same_bits(metric: str) -> None:
    z, codebook = (x.cuda() for x in make("near_ties", 50_000, 1000, 256))
    first, second = (assign(z, codebook, metric=metric, return_scores=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_beyond_2_to_the_31_elements() -> None:
    rows = 2**31 // 256 + 1000
    if torch.cuda.mem_get_info()[0] < 30e9:
        pytest.skip("needs 30 GB of GPU memory")
    codebook = torch.nn.functional.normalize(torch.randn(64, 256, device="cuda"))
    z = codebook[torch.arange(rows, device="cuda") % 64]
    assert torch.equal(assign(z, codebook), (torch.arange(rows, device="cuda") % 64).int())


@pytest.mark.parametrize("shape", [(1500, 500, 256), (30_000, 500, 256), (3000, 700, 768)])
def test_nothing_waits_and_a_graph_replays(shape: tuple[int, int, int]) -> None:
    z, codebook = (x.cuda() for x in make("near_ties", *shape))
    prepared = prepare(codebook)
    wanted = assign(z, prepared)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assign(z, codebook)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = assign(z, prepared)
    z.copy_(z.flip(0))
    graph.replay()
    assert torch.equal(found, wanted.flip(0))


@pytest.mark.parametrize("metric", METRICS)
def test_at_most_three_launches(metric: str) -> None:
    z, codebook = (x.cuda() for x in make("near_ties", 30_000, 700, 256))
    for rows, depth in ((1500, 256), (30_000, 256), (30_000, 128), (30_000, 39)):
        part, book = z[:rows, :depth].contiguous(), prepare(codebook[:, :depth].contiguous(), metric)
        assign(part, book)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            assign(part, book)
            torch.cuda.synchronize()
        assert sum(event.count for event in profile.key_averages() if "memcpy" not in event.key.lower()) <= 3


def test_backends_say_triton() -> None:
    assert {b.implementation for b in backends() if b.device == "cuda" and b.op == "assign"} == {"triton"}


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    program = """
import torch
from spintok_kernels.assign import triton as kernels
for depth in (39, 256, 330):
    z, c = torch.randn(300, depth, device="cuda"), torch.randn(70, depth, device="cuda")
    c[60:] = c[:10]
    for metric in ("dot", "l2"):
        for details in (False, True):
            kernels.assign(z, kernels.prepare(c, metric), metric, details)
torch.cuda.synchronize()
"""
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert found.returncode == 0, found.stdout[-4000:]
