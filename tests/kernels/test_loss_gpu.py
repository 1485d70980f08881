"""Sinkhorn and the loss on a CUDA device, against float64."""

import shutil
import subprocess
import sys

import pytest
import torch
from spintok_kernels import swapped_prediction_loss
from spintok_kernels.reference import reference_loss, reference_metrics, reference_sinkhorn
from spintok_kernels.swapped_prediction.sinkhorn import Passes, code_potentials

from tests.kernels.views import make_views, relative_error

pytestmark = [
    pytest.mark.requires_gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SHAPES = [
    (1, 1, 16),
    (1, 17, 64),
    (33, 50, 64),
    (1021, 500, 256),
    (300, 2000, 256),
    (257, 4096, 256),
    (64, 8192, 256),
]


def kernels():
    return pytest.importorskip("spintok_kernels.swapped_prediction.triton")


def step(inputs, **options):
    inputs = [x.cuda().requires_grad_() for x in inputs]
    out = swapped_prediction_loss(*inputs, **options)
    gradients = torch.autograd.grad(out.loss, inputs)
    return out._replace(loss=out.loss.detach()), gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("n", "k", "d"), SHAPES)
def test_loss_and_gradients(n: int, k: int, d: int, dtype: torch.dtype) -> None:
    inputs = make_views(n, k, d, seed=n + k)
    out, gradients = step(inputs, score_dtype=dtype)
    truth = [x.double().requires_grad_() for x in inputs]
    true_loss = reference_loss(*truth)
    value = float(true_loss.detach())
    # float32 sums run in another order than the reference's at every K.
    tolerance = 1e-5 if dtype == torch.float32 else 3e-3
    assert abs(float(out.loss) - value) < tolerance * max(1.0, value)
    for got, true in zip(gradients, torch.autograd.grad(true_loss, truth), strict=True):
        if k == 1:
            assert float(got.abs().max()) < tolerance
        else:
            assert relative_error(got, true) < tolerance
    prediction, _, agreement = reference_metrics(*inputs)
    torch.testing.assert_close(out.prediction_perplexity.cpu().double(), prediction, rtol=tolerance, atol=0)
    assert float(out.agreement) == pytest.approx(float(agreement), abs=0.02 + 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_two_runs_are_bit_equal(dtype: torch.dtype) -> None:
    inputs = make_views(5000, 500, 256)
    (first, gradients), (again, others) = (step(inputs, score_dtype=dtype) for _ in range(2))
    assert torch.equal(first.loss, again.loss)
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))


def test_blocks_within_a_budget_and_their_memory() -> None:
    inputs = make_views(20_000, 500, 64)
    whole, gradients = step(inputs)
    inputs = [x.cuda() for x in inputs]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    parts, others = step(inputs, memory_budget=8 << 20)
    # Scores take 40 MB when kept; besides the budget there are the gradients and copies of the inputs.
    assert torch.cuda.max_memory_allocated() - before < 40 << 20
    torch.testing.assert_close(parts.loss, whole.loss, rtol=1e-4, atol=0)
    for a, b in zip(others, gradients, strict=True):
        assert relative_error(a, b) < 3e-3


@pytest.mark.parametrize("epsilon", [0.5, 0.02, 0.005])
@pytest.mark.parametrize("k", [500, 8192])
def test_sinkhorn(k: int, epsilon: float) -> None:
    z, _, codebook = make_views(700, k, 64)
    scores = z @ codebook.T
    blocks = [(slice(0, 700), scores.cuda()[None])]
    passes = Passes(kernels().column_logsumexp, kernels().column_totals)
    u, _ = code_potentials(lambda: blocks, passes, 700, epsilon=epsilon, iterations=3, group="")
    q = torch.softmax(scores.double() / epsilon + u.cpu(), 1)
    assert float((q - reference_sinkhorn(scores, epsilon)).abs().max()) < max(1e-5, 8 * 2**-24 / epsilon)


def test_a_step_launches_little_and_can_be_captured() -> None:
    inputs = [x.cuda().requires_grad_() for x in make_views(6400, 500, 256)]
    wanted = swapped_prediction_loss(*inputs)
    wanted.loss.backward()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        torch.autograd.grad(swapped_prediction_loss(*inputs).loss, inputs)
        torch.cuda.synchronize()
    assert sum(event.count for event in profile.key_averages()) <= 18  # one more creates the gradient 1
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = swapped_prediction_loss(*inputs)
    graph.replay()
    assert torch.equal(found.loss, wanted.loss)


@pytest.mark.slow
def test_more_than_two_to_the_31_scores() -> None:
    n, k = 140_000, 8192
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("needs 12 GB of GPU memory")
    draw = torch.Generator("cuda").manual_seed(0)
    z, codebook = (torch.nn.functional.normalize(torch.randn(m, 16, device="cuda", generator=draw)) for m in (n, k))
    # Far rows are copies of near ones, so their gradients must be equal where 32-bit addresses would wrap.
    z[-1000:] = z[:1000]
    inputs = [z.clone().requires_grad_(), z.clone().requires_grad_(), codebook]
    out = swapped_prediction_loss(*inputs, memory_budget=8 << 30)
    assert 2 * n * k > 2**31
    gradient = torch.autograd.grad(out.loss, inputs[1])[0]
    assert float(out.agreement) == 1
    assert relative_error(gradient[-1000:], gradient[:1000].cpu()) < 1e-6


def test_nan_is_never_silent() -> None:
    z1, z2, codebook = (x.cuda() for x in make_views(50, 20))
    z2[3, 1] = torch.nan
    out = swapped_prediction_loss(z1, z2, codebook)
    assert all(x.isnan().all() for x in out)


def test_compiles_whole() -> None:
    def loss(*x: torch.Tensor) -> torch.Tensor:
        return 2 * swapped_prediction_loss(*x).loss

    fast = torch.compile(loss, fullgraph=True, dynamic=True)
    for n in (100, 123, 128):
        inputs = [x.cuda() for x in make_views(n, 40)]
        torch.testing.assert_close(fast(*inputs), loss(*inputs))


def test_too_many_codes_raise() -> None:
    z, codebook = torch.ones(4, 8, device="cuda"), torch.ones(8193, 8, device="cuda")
    with pytest.raises(ValueError, match="at most 8192"):
        swapped_prediction_loss(z, z, codebook)


PROGRAM = """
import torch
from spintok_kernels import swapped_prediction_loss
z, c = torch.randn(203, 16, device="cuda", requires_grad=True), torch.randn(70, 16, device="cuda")
for dtype in (torch.float32, torch.float16):
    swapped_prediction_loss(z, z.flip(0), c, score_dtype=dtype).loss.backward()
torch.cuda.synchronize()
"""


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_sanitizer(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
