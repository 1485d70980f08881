"""The Triton kernels of Sinkhorn and the loss, run by Triton's interpreter on the CPU.

The interpreter computes in the kernels' own dtypes, so numerics, masks and tails are tested; races and
the matrix products, which are cuBLAS's on a GPU and float32 here, are not.
"""

from types import ModuleType

import pytest
import torch
from spintok_kernels.reference import reference_loss, reference_metrics, reference_sinkhorn
from spintok_kernels.swapped_prediction.op import LossPasses, compute
from spintok_kernels.swapped_prediction.sinkhorn import Passes
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.views import make_views, relative_error

# numpy's remarks on what masked lanes compute (log2 of 0, infinity minus infinity); a GPU makes none.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(params=["one step", "pass by pass"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def kernels(interpreted) -> ModuleType:
    return interpreted("spintok_kernels.swapped_prediction.triton", "passes", "ends")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `torch.empty` returns is NaN, or the lowest integer: an element left unwritten shows."""
    empty = torch.empty

    def poison(*shape, **options) -> Tensor:
        out = empty(*shape, **options)
        return out.fill_(torch.nan if out.is_floating_point() else torch.iinfo(out.dtype).min)

    monkeypatch.setattr(torch, "empty", poison)


def product(out: Tensor, a: Tensor, b: Tensor, scale: Tensor, add: bool) -> None:
    """Stands in for cuBLAS."""
    torch.addmm(out, a.float(), b.float(), beta=int(add), alpha=float(scale), out=out)


def run(kernels, form: str, inputs, dtype: torch.dtype = torch.float16, budget: int = 1 << 30, **options):
    options = {"temperature": 0.1, "epsilon": 0.02, "iterations": 3, "metrics": True, "needs": [True] * 3} | options
    if form == "one step":
        results = kernels.step(*inputs, processors=2, **options)
    else:
        columns = Passes(kernels.column_logsumexp, kernels.column_totals)
        passes = LossPasses(columns, kernels.swap, product)
        results = compute(*inputs, memory_budget=budget, score_dtype=dtype, group="", passes=passes, **options)
    loss, metrics, dz, dc, factor = results
    dz, dc = kernels.scale(torch.ones(()), factor, dz, dc)
    return loss, metrics, [*dz, dc]


# One row, K > N, tails in every dimension, K a power of two and not, more rows than programs.
SHAPES = [(1, 1, 16), (1, 17, 16), (33, 50, 16), (203, 70, 24), (20, 130, 16), (64, 64, 16)]


@pytest.mark.parametrize(("form", "dtype"), [("one step", torch.float16), ("pass by pass", torch.float32)])
@pytest.mark.parametrize(("n", "k", "d"), SHAPES)
def test_loss_and_gradients(kernels, form: str, n: int, k: int, d: int, dtype: torch.dtype) -> None:
    inputs = make_views(n, k, d)
    loss, metrics, gradients = run(kernels, form, inputs, dtype)
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


def test_blocks_within_a_budget(kernels) -> None:
    inputs = make_views(50, 33)
    whole = run(kernels, "pass by pass", inputs, torch.float32)
    parts = run(kernels, "pass by pass", inputs, torch.float32, budget=2 * 33 * 4 * 16)
    for a, b in zip((*whole[:2], *whole[2]), (*parts[:2], *parts[2]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("form", "k", "tolerance"), [("one step", 150, 3e-3), ("pass by pass", 4200, 2e-6)])
def test_rows_wider_than_a_tile(kernels, form: str, k: int, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "one step":
        # So many codes take the interpreter long: a narrower tile in place of more of them.
        swap_tile = kernels.swap_tile
        monkeypatch.setattr(kernels, "swap_tile", lambda k: (*swap_tile(k)[:3], 64))
    inputs = make_views(2, k)
    loss, _, gradients = run(kernels, form, inputs, torch.float32)
    truth = [x.double().requires_grad_() for x in inputs]
    true_loss = reference_loss(*truth)
    assert float(loss) == pytest.approx(float(true_loss.detach()), rel=tolerance)
    for got, true in zip(gradients, torch.autograd.grad(true_loss, truth), strict=True):
        assert relative_error(got, true) < tolerance


@pytest.mark.parametrize("epsilon", [0.5, 0.005])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_sinkhorn_at_any_scale(kernels, epsilon: float, scale: float) -> None:
    z, _, codebook = make_views(40, 21)
    scores = scale * (z @ codebook.T)
    u = -kernels.column_logsumexp(scores[None], 1 / epsilon)
    for _ in range(2):
        u = u - torch.log(kernels.column_totals(scores[None], 1 / epsilon, u))
    q = torch.softmax(scores.double() / epsilon + u, 1)
    tolerance = max(2e-6, 4 * scale * 2**-24 / epsilon)
    assert float((q - reference_sinkhorn(scores, epsilon)).abs().max()) < tolerance


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_is_never_silent(kernels, form: str, value: float) -> None:
    inputs = [x.clone() for x in make_views(20, 9)]
    inputs[1][3, 1] = value
    loss, metrics, gradients = run(kernels, form, inputs)
    assert loss.isnan()
    assert metrics.isnan().all()
    assert all(g.isnan().any() for g in gradients)


def test_two_runs_are_bit_equal(kernels, form: str) -> None:
    inputs = make_views(70, 40)
    first, again = (run(kernels, form, inputs) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(first[2], again[2], strict=True))


def test_other_settings(kernels) -> None:
    inputs = make_views(40, 50)
    for options in ({"iterations": 1}, {"epsilon": 0.005, "iterations": 5}, {"temperature": 0.4}):
        truth = [x.double().requires_grad_() for x in inputs]
        true_loss = reference_loss(*truth, **options)
        loss, _, gradients = run(kernels, "one step", inputs, **options)
        assert float(loss) == pytest.approx(float(true_loss.detach()), rel=5e-3)
        for got, true in zip(gradients, torch.autograd.grad(true_loss, truth), strict=True):
            assert relative_error(got, true) < 1e-2


def test_only_what_is_needed(kernels) -> None:
    inputs = make_views(20, 30)
    options = {"temperature": 0.1, "epsilon": 0.02, "iterations": 3, "processors": 2}
    everything = kernels.step(*inputs, metrics=True, needs=[True] * 3, **options)
    for metrics, needs in ((False, [True, False, True]), (True, [False] * 3), (False, [False, True, False])):
        loss, watched, dz, dc, _ = kernels.step(*inputs, metrics=metrics, needs=needs, **options)
        assert torch.equal(loss, everything[0])
        assert torch.equal(watched, everything[1] if metrics else watched.new_empty(0))
        assert torch.equal(dz, everything[2] if any(needs[:2]) else dz.new_empty(0))
        assert torch.equal(dc, everything[3] if needs[2] else dc.new_empty(0))


# They allocate, or only change the view of memory. `fill_` is the poison above; `_to_copy` is for the interpreter,
# where torch has no half products with float32 results.
NO_LAUNCH = {"empty", "empty_like", "view", "t", "transpose", "permute", "_unsafe_view", "slice", "select"}
NO_LAUNCH |= {"fill_", "_to_copy"}


def test_a_step_has_at_most_17_launches(kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[str] = []
    inside = False

    class Counted:
        def __init__(self, name: str) -> None:
            self.name, self.kernel = name, getattr(kernels, name)

        def __getitem__(self, grid):
            def launch(*arguments, **options) -> None:
                nonlocal inside
                launches.append(self.name)
                inside = True
                self.kernel[grid](*arguments, **options)
                inside = False

            return launch

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket.__name__
            if not inside and name not in NO_LAUNCH:
                launches.append(name)
            return function(*args, **(kwargs or {}))

    for name in [name for name in vars(kernels) if name.endswith("_kernel")]:
        monkeypatch.setattr(kernels, name, Counted(name))
    inputs, one = make_views(32, 100, 16), torch.ones(())
    options = {"temperature": 0.1, "epsilon": 0.02, "iterations": 3, "metrics": True, "needs": [True] * 3}
    with Operations():
        _, _, dz, dc, factor = kernels.step(*inputs, processors=2, **options)
        kernels.scale(one, factor, dz, dc)
    assert len(launches) <= 17, launches
    assert len(launches) > 12


def test_too_many_codes_raise(kernels) -> None:
    with pytest.raises(ValueError, match="at most 8192"):
        kernels.column_logsumexp(torch.zeros(1, 1, 8193), 1.0)
    with pytest.raises(ValueError, match="at most 8192"):
        run(kernels, "one step", (torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(8193, 1)))
