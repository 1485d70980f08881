"""The Triton kernels of Sinkhorn and the loss, run by Triton's interpreter on the CPU.

The interpreter computes in the kernels' own dtypes, so numerics, masks and tails are tested; races and
the matrix products, which are cuBLAS's on a GPU and float32 here, are not.
"""

import pytest
import torch
from spintok_kernels.reference import reference_loss, reference_metrics, reference_sinkhorn
from spintok_kernels.swapped_prediction.op import LossPasses, compute
from spintok_kernels.swapped_prediction.sinkhorn import Passes
from torch import Tensor

from tests.kernels.views import make_views, relative_error

# numpy's remarks on what masked lanes compute (log2 of 0, infinity minus infinity); a GPU makes none.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture
def passes(interpreted):
    """LossPasses of the interpreted kernels; the last product stands in for cuBLAS."""
    kernels = interpreted("spintok_kernels.swapped_prediction.triton")

    def product(out: Tensor, a: Tensor, b: Tensor, scale: Tensor, add: bool) -> None:
        torch.addmm(out, a.float(), b.float(), beta=int(add), alpha=float(scale), out=out)

    columns = Passes(kernels.column_logsumexp, kernels.column_totals)
    return LossPasses(columns, kernels.swap, product), compute


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `torch.empty` returns is NaN, or the lowest integer: an element left unwritten shows."""
    empty = torch.empty

    def poison(*shape, **options) -> Tensor:
        out = empty(*shape, **options)
        return out.fill_(torch.nan if out.is_floating_point() else torch.iinfo(out.dtype).min)

    monkeypatch.setattr(torch, "empty", poison)


def run(passes, inputs, dtype: torch.dtype, budget: int = 1 << 30, **options):
    kernels, compute = passes
    loss, metrics, *gradients = compute(
        *inputs,
        **{"temperature": 0.1, "epsilon": 0.02, "iterations": 3, **options},
        metrics=True,
        needs=[True] * 3,
        memory_budget=budget,
        score_dtype=dtype,
        group="",
        passes=kernels,
    )
    return loss, metrics, gradients


# One row, K > N, tails in every dimension, K a power of two and not, more rows than programs.
SHAPES = [(1, 1, 16), (1, 17, 16), (33, 50, 16), (203, 70, 24), (20, 130, 16), (64, 64, 16)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("n", "k", "d"), SHAPES)
def test_loss_and_gradients(passes, n: int, k: int, d: int, dtype: torch.dtype) -> None:
    inputs = make_views(n, k, d)
    loss, metrics, gradients = run(passes, inputs, dtype)
    truth = [x.double().requires_grad_() for x in inputs]
    true_loss = reference_loss(*truth)
    tolerance = 2e-6 if dtype == torch.float32 else 3e-3
    assert float((loss - true_loss).detach().abs()) < tolerance * max(1.0, float(true_loss.detach()))
    for got, true in zip(gradients, torch.autograd.grad(true_loss, truth), strict=True):
        if k == 1:
            assert float((got - true).abs().max()) < tolerance
        else:
            assert relative_error(got, true) < tolerance
    prediction, assignment, agreement = reference_metrics(*inputs)
    torch.testing.assert_close(metrics[:2].double(), prediction, rtol=3e-3, atol=0)
    if dtype == torch.float32:
        torch.testing.assert_close(metrics[2:4].double(), assignment, rtol=1e-5, atol=0)
        assert float(metrics[4]) == pytest.approx(float(agreement), abs=1e-6)


def test_blocks_within_a_budget(passes) -> None:
    inputs = make_views(50, 33)
    whole = run(passes, inputs, torch.float32)
    parts = run(passes, inputs, torch.float32, budget=2 * 33 * 4 * 16)
    for a, b in zip((*whole[:2], *whole[2]), (*parts[:2], *parts[2]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_rows_wider_than_a_tile(passes) -> None:
    inputs = make_views(3, 4500)
    loss, _, gradients = run(passes, inputs, torch.float32)
    truth = [x.double().requires_grad_() for x in inputs]
    true_loss = reference_loss(*truth)
    assert float(loss) == pytest.approx(float(true_loss.detach()), rel=2e-6)
    for got, true in zip(gradients, torch.autograd.grad(true_loss, truth), strict=True):
        assert relative_error(got, true) < 2e-6


@pytest.mark.parametrize("epsilon", [0.5, 0.005])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_sinkhorn_at_any_scale(passes, epsilon: float, scale: float) -> None:
    kernels = passes[0].sinkhorn
    z, _, codebook = make_views(40, 21)
    scores = scale * (z @ codebook.T)
    u = -kernels.column_logsumexp(scores[None], 1 / epsilon)
    for _ in range(2):
        u = u - torch.log(kernels.column_totals(scores[None], 1 / epsilon, u))
    q = torch.softmax(scores.double() / epsilon + u, 1)
    tolerance = max(2e-6, 4 * scale * 2**-24 / epsilon)
    assert float((q - reference_sinkhorn(scores, epsilon)).abs().max()) < tolerance


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_is_never_silent(passes, value: float) -> None:
    inputs = [x.clone() for x in make_views(20, 9)]
    inputs[1][3, 1] = value
    loss, metrics, gradients = run(passes, inputs, torch.float16)
    assert loss.isnan()
    assert metrics.isnan().all()
    assert all(g.isnan().any() for g in gradients)


def test_two_runs_are_bit_equal(passes) -> None:
    inputs = make_views(70, 40)
    first, again = (run(passes, inputs, torch.float16) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(first[2], again[2], strict=True))


def test_too_many_codes_raise(passes) -> None:
    with pytest.raises(ValueError, match="at most 8192"):
        passes[0].sinkhorn.column_logsumexp(torch.zeros(1, 1, 8193), 1.0)
