"""The swapped-prediction loss and its gradients against float64 autograd of the literal formula."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from spintok_kernels import swapped_prediction_loss
from spintok_kernels.reference import reference_loss, reference_metrics, reference_sinkhorn
from spintok_kernels.swapped_prediction import cpu
from torch import Tensor

from tests.kernels.views import make_views, relative_error


@pytest.fixture(params=["avx512", "avx2", "portable", "torch"])
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(cpu.LOSS.variable, request.param)
    try:
        cpu.LOSS.choose()
    except RuntimeError as error:
        pytest.skip(str(error))
    return request.param


def with_gradients(function, inputs, **options) -> tuple[Tensor, tuple[Tensor, ...]]:
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs, **options)
    loss = out if isinstance(out, Tensor) else out.loss
    return loss.detach(), torch.autograd.grad(loss, inputs)


SHAPES = [(1, 1), (1, 17), (33, 50), (203, 70), (40, 130), (700, 33)]


@pytest.mark.parametrize("epsilon", [0.5, 0.02, 0.005])
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_equals_autograd_of_the_formula(n: int, k: int, epsilon: float, core: str) -> None:
    inputs = make_views(n, k, d=24)
    loss, gradients = with_gradients(swapped_prediction_loss, inputs, epsilon=epsilon)
    truth, true_gradients = with_gradients(reference_loss, [x.double() for x in inputs], epsilon=epsilon)
    # At epsilon 0.005 a rounding error of a score, 2^-25, moves its target by 200 times that.
    tolerance = 2e-6 if epsilon >= 0.02 else 1e-5
    assert abs(float(loss) - float(truth)) < tolerance * max(1.0, float(truth))
    scale = sum(float(g.norm()) for g in true_gradients)
    for got, true in zip(gradients, true_gradients, strict=True):
        # K = 1 has no gradient; what is left there is rounding.
        assert float((got - true).norm()) < tolerance * max(float(true.norm()), 1e-3 * scale, 1e-3)


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_rows_need_not_have_unit_length(scale: float, core: str) -> None:
    inputs = [scale * x for x in make_views(120, 40)]
    _, gradients = with_gradients(swapped_prediction_loss, inputs)
    _, truth = with_gradients(reference_loss, [x.double() for x in inputs])
    for got, true in zip(gradients, truth, strict=True):
        assert relative_error(got, true) < 2e-6 * max(1.0, scale**2)


def test_float64_is_exact() -> None:
    inputs = make_views(90, 40, dtype=torch.float64)
    loss, gradients = with_gradients(swapped_prediction_loss, inputs)
    truth, true_gradients = with_gradients(reference_loss, inputs)
    torch.testing.assert_close(loss, truth, rtol=1e-12, atol=0)
    for got, true in zip(gradients, true_gradients, strict=True):
        assert relative_error(got, true) < 1e-12


def test_metrics(core: str) -> None:
    inputs = make_views(300, 40, noise=1.0)
    out = swapped_prediction_loss(*inputs)
    truth = reference_metrics(*inputs)
    got = (out.prediction_perplexity, out.assignment_perplexity, out.agreement)
    for value, true in zip(got, truth, strict=True):
        torch.testing.assert_close(value.double(), true, rtol=1e-5, atol=1e-6)
    assert 0 < float(out.agreement) < 1
    off = swapped_prediction_loss(*inputs, metrics=False)
    assert off[1:] == (None, None, None)
    assert torch.equal(off.loss, out.loss)


def test_a_chain_through_normalisation_and_a_projection() -> None:
    features = torch.randn(80, 12, dtype=torch.float64)
    _, z2, codebook = make_views(80, 20, dtype=torch.float64)
    weight = torch.randn(16, 12, dtype=torch.float64)

    def run(loss) -> tuple[Tensor, Tensor]:
        w, c = weight.clone().requires_grad_(), (3 * codebook).requires_grad_()
        value = loss(F.normalize(features @ w.T, dim=1), z2, F.normalize(c, dim=1))
        (7 * value).backward()
        return w.grad, c.grad

    ours = run(lambda *inputs: swapped_prediction_loss(*inputs).loss)
    for got, true in zip(ours, run(reference_loss), strict=True):
        assert relative_error(got, true) < 1e-12


def test_targets_carry_no_gradient() -> None:
    inputs = [x.requires_grad_() for x in make_views(6, 4, d=3, dtype=torch.float64)]

    def loss(*x: Tensor) -> Tensor:
        return swapped_prediction_loss(*x).loss

    # The numerical derivative moves the targets too, so it must differ...
    assert not torch.autograd.gradcheck(loss, inputs, raise_exception=False)
    # ...and with the targets held it must not.
    z1, z2, codebook = inputs
    q = [reference_sinkhorn(z @ codebook.T, 0.02) for z in (z1, z2)]

    def held(z1: Tensor, z2: Tensor, codebook: Tensor) -> Tensor:
        log_p = [torch.log_softmax(z @ codebook.T / 0.1, 1) for z in (z1, z2)]
        return -((q[1] * log_p[0]).sum() + (q[0] * log_p[1]).sum()) / (2 * len(z1))

    assert torch.autograd.gradcheck(held, inputs)
    for got, true in zip(with_gradients(loss, inputs)[1], with_gradients(held, inputs)[1], strict=True):
        assert relative_error(got, true) < 1e-12


@pytest.mark.parametrize("memory_budget", [1 << 30, 2 * 20 * 8 * 30])
def test_frames_that_do_not_count_claim_no_codewords(memory_budget: int) -> None:
    inputs = make_views(90, 20, dtype=torch.float64)
    counted = torch.arange(90) % 3 > 0
    loss, gradients = with_gradients(
        lambda *x: swapped_prediction_loss(*x, counted=counted, memory_budget=memory_budget), inputs
    )
    truth, true_gradients = with_gradients(lambda *x: reference_loss(*x, counted=counted), inputs)
    torch.testing.assert_close(loss, truth, rtol=1e-12, atol=0)
    for got, true in zip(gradients, true_gradients, strict=True):
        assert relative_error(got, true) < 1e-12
    assert not torch.isclose(loss, reference_loss(*inputs))
    everything = swapped_prediction_loss(*inputs, counted=torch.ones(90, dtype=torch.bool)).loss
    assert torch.equal(everything, swapped_prediction_loss(*inputs).loss)


@pytest.mark.parametrize(
    ("counted", "message"),
    [(torch.ones(5, dtype=torch.bool), "must be"), (torch.ones(6), "bool"), (torch.zeros(6, dtype=torch.bool), "one")],
)
def test_frames_that_count_are_checked(counted: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"counted.*{message}"):
        swapped_prediction_loss(*make_views(6, 4), counted=counted)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (0, 2)])
def test_only_the_gradients_that_are_needed(wanted: tuple[int, ...]) -> None:
    inputs = make_views(50, 20)
    _, everything = with_gradients(swapped_prediction_loss, inputs)
    some = [x.clone().requires_grad_(i in wanted) for i, x in enumerate(inputs)]
    swapped_prediction_loss(*some).loss.backward()
    for i, x in enumerate(some):
        assert (x.grad is not None) == (i in wanted)
        assert x.grad is None or torch.equal(x.grad, everything[i])


def test_without_gradients_none_is_computed() -> None:
    inputs = make_views(50, 20)
    for needs in ([False] * 3, [True] * 3):
        out = torch.ops.spintok.swapped_prediction_loss(*inputs, 0.1, 0.02, 3, False, needs, 1 << 30, torch.float32, "")
        # One gradient of both views, and that of the codebook.
        assert [x.numel() > 0 for x in out[2:4]] == needs[1:]
    with torch.no_grad():
        assert not swapped_prediction_loss(*(x.requires_grad_() for x in inputs)).loss.requires_grad


def test_two_runs_are_bit_equal(core: str) -> None:
    inputs = make_views(1500, 60, d=32)
    first = with_gradients(swapped_prediction_loss, inputs)
    again = with_gradients(swapped_prediction_loss, inputs)
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))


def test_the_passes_do_not_depend_on_the_number_of_threads() -> None:
    if cpu.LOSS.choose()[0] == "torch":
        pytest.skip("no compiled core here")
    scores, u = torch.randn(2, 900, 70), torch.randn(2, 70).double()
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(
                [
                    cpu.column_logsumexp(scores, 5.0),
                    cpu.column_totals(scores, 5.0, u),
                    *cpu.swap(scores.clone(), 5.0, u, 0.1, True, True),
                ]
            )
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(1, 60),
    k=st.integers(1, 60),
    epsilon=st.floats(0.005, 0.5),
    temperature=st.floats(0.03, 2),
    iterations=st.integers(1, 6),
    seed=st.integers(0, 99),
    budget=st.integers(1, 40000),
)
def test_properties(
    n: int, k: int, epsilon: float, temperature: float, iterations: int, seed: int, budget: int
) -> None:
    z1, z2, codebook = make_views(n, k, seed=seed)
    options = {"epsilon": epsilon, "temperature": temperature, "iterations": iterations}
    loss, gradients = with_gradients(swapped_prediction_loss, (z1, z2, codebook), **options)
    out = swapped_prediction_loss(z1, z2, codebook, **options)
    assert float(loss) >= 0
    for perplexity in (out.prediction_perplexity, out.assignment_perplexity):
        assert bool(((perplexity > 1 - 1e-5) & (perplexity < k * (1 + 1e-5))).all())
    close = {"rtol": 1e-4, "atol": 1e-5 / epsilon}
    # Swapped views, another order of rows, and blocks of any size are the same loss.
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for same, arguments, put_back in (
        ({}, (z2, z1, codebook), lambda g: (g[1], g[0], g[2])),
        (
            {},
            (z1[order], z2[order], codebook),
            lambda g: (g[0][order.argsort()], g[1][order.argsort()], g[2]),
        ),
        ({"memory_budget": budget}, (z1, z2, codebook), lambda g: g),
    ):
        other, theirs = with_gradients(swapped_prediction_loss, arguments, **options, **same)
        torch.testing.assert_close(other, loss, rtol=1e-5, atol=1e-5)
        for a, b in zip(put_back(theirs), gradients, strict=True):
            torch.testing.assert_close(n * a, n * b, **close)


def test_the_memory_budget_bounds_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_views(100, 20, dtype=torch.float64)
    seen = []
    empty = torch.empty

    def watch(shape, *rest, **options):
        if isinstance(shape, tuple) and len(shape) == 3 and shape[0] == 2:
            seen.append(shape)
        return empty(shape, *rest, **options)

    monkeypatch.setattr(torch, "empty", watch)
    swapped_prediction_loss(*inputs, memory_budget=2 * 20 * 8 * 30)
    swapped_prediction_loss(*inputs)
    assert seen == [(2, 30, 20), (2, 100, 20)]


def test_uniform_scores_give_log_k(core: str) -> None:
    z = torch.zeros(10, 4)
    out = swapped_prediction_loss(z, z, torch.ones(8, 4))
    assert float(out.loss) == pytest.approx(math.log(8), rel=1e-6)
    torch.testing.assert_close(out.prediction_perplexity, torch.full((2,), 8.0))
    # All tie; the lowest index wins.
    assert out.assignment_perplexity.tolist() == [1, 1]
    assert float(out.agreement) == 1


def test_equal_codewords_share_their_frames() -> None:
    z1, z2, codebook = make_views(60, 5)
    both = torch.cat([codebook, codebook])
    truth, _ = with_gradients(reference_loss, (z1, z2, both))
    loss, gradients = with_gradients(swapped_prediction_loss, (z1, z2, both))
    assert float(loss) == pytest.approx(float(truth), rel=1e-6)
    torch.testing.assert_close(gradients[2][:5], gradients[2][5:])


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_never_silent(which: int, value: float, core: str) -> None:
    inputs = [x.clone() for x in make_views(40, 9)]
    inputs[which][3, 1] = value
    loss, gradients = with_gradients(swapped_prediction_loss, inputs)
    assert loss.isnan()
    assert all(g.isnan().any() for g in gradients)
    out = swapped_prediction_loss(*inputs)
    for metric in out[1:]:
        assert metric.isnan().all()


def test_no_second_derivative() -> None:
    inputs = [x.requires_grad_() for x in make_views(9, 4)]
    loss = swapped_prediction_loss(*inputs).loss
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, inputs, create_graph=True)


def test_autocast_changes_nothing() -> None:
    inputs = make_views(50, 20)
    truth = with_gradients(swapped_prediction_loss, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        got = with_gradients(swapped_prediction_loss, inputs)
    assert torch.equal(got[0], truth[0])
    assert all(torch.equal(a, b) for a, b in zip(got[1], truth[1], strict=True))


@pytest.mark.parametrize("needs", [[False] * 3, [True] * 3, [True, True, False]])
def test_op_is_registered_well(needs: list[bool]) -> None:
    inputs = [x.requires_grad_(need) for x, need in zip(make_views(9, 5), needs, strict=True)]
    op = torch.ops.spintok.swapped_prediction_loss.default
    torch.library.opcheck(op, (*inputs, 0.1, 0.02, 3, True, needs, 1 << 30, torch.float32, ""))


def test_compiles_whole_at_any_length() -> None:
    graphs = 0

    def count(graph, _):
        nonlocal graphs
        graphs += 1
        return graph.forward

    def step(z1: Tensor, z2: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
        out = swapped_prediction_loss(F.normalize(z1, dim=1), F.normalize(z2, dim=1), codebook)
        return 2 * out.loss, out.agreement

    torch._dynamo.reset()
    fast = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    counted = torch.compile(step, fullgraph=True, dynamic=True, backend=count)
    for n in (30, 41, 57, 64, 80):
        inputs = make_views(n, 12)
        value, agreement = step(*inputs)
        assert torch.equal(fast(*inputs)[0], value)
        assert torch.equal(counted(*inputs)[1], agreement)
        loss, gradients = with_gradients(lambda *x: fast(*x)[0], inputs)
        truth, true_gradients = with_gradients(lambda *x: step(*x)[0], inputs)
        assert torch.equal(loss, truth)
        for a, b in zip(gradients, true_gradients, strict=True):
            torch.testing.assert_close(a, b)
    assert graphs == 1


z, c = torch.ones(4, 3), torch.ones(5, 3)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ((z[0], z, c), {}, "z1 must have two dimensions"),
        ((z, z[:2], c), {}, "z2 has shape"),
        ((z, z, torch.ones(5, 4)), {}, "codebook has rows of 4"),
        ((z[:0], z[:0], c), {}, "z1 is empty"),
        ((z, z, c[:0]), {}, "codebook is empty"),
        ((z, z, torch.ones(3, 5).T), {}, "codebook is not contiguous"),
        ((torch.ones(3, 4).T, z, c), {}, "z1 is not contiguous"),
        ((z.half(), z.half(), c.half()), {}, "z1 must be float32 or float64"),
        ((z, z, c.double()), {}, "codebook is torch.float64"),
        ((z.to("meta"), z, c), {}, "z1"),
        ((z, z, c), {"epsilon": 0.0}, "epsilon must be"),
        ((z, z, c), {"epsilon": math.inf}, "epsilon must be"),
        ((z, z, c), {"temperature": -1.0}, "temperature must be"),
        ((z, z, c), {"iterations": 0}, "iterations must be"),
        ((z, z, c), {"memory_budget": 0}, "memory_budget must be"),
        ((z, z, c), {"score_dtype": torch.float16}, "score_dtype must be"),
        (([1.0], z, c), {}, "z1 must be a tensor"),
    ],
)
def test_bad_input_names_the_argument(inputs: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        swapped_prediction_loss(*inputs, **options)


def test_an_unknown_core_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu.LOSS.variable, "sse")
    with pytest.raises(ValueError, match="not one of"):
        swapped_prediction_loss(z, z, c)
