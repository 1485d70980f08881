"""Sinkhorn's potentials against the exp form in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spintok_kernels import Potentials, sinkhorn
from spintok_kernels.reference import reference_sinkhorn
from torch import Tensor

from tests.kernels.views import make_views


def targets(scores: Tensor, potentials: Potentials, epsilon: float) -> Tensor:
    return torch.exp(scores.double() / epsilon + potentials.code.double() + potentials.frame.double()[:, None])


@pytest.fixture(params=["avx512", "avx2", "portable", "torch"])
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    from spintok_kernels import loss_native

    monkeypatch.setenv(loss_native.LOSS.variable, request.param)
    try:
        loss_native.LOSS.choose()
    except RuntimeError as error:
        pytest.skip(str(error))
    return request.param


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.02, 0.005, 0.002])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 17), (33, 50), (203, 70), (40, 130), (301, 33)])
def test_equals_the_exp_form(n: int, k: int, epsilon: float, core: str) -> None:
    z, _, codebook = make_views(n, k)
    scores = z @ codebook.T
    got = targets(scores, sinkhorn(scores, epsilon=epsilon), epsilon)
    # Terms of the exponent reach 1 / epsilon, each rounded to 2^-24 of its size.
    tolerance = max(2e-6, 4 * 2**-24 / epsilon)
    assert float((got - reference_sinkhorn(scores, epsilon)).abs().max()) < tolerance


def test_float64_is_exact() -> None:
    z, _, codebook = make_views(90, 40, dtype=torch.float64)
    scores = z @ codebook.T
    got = targets(scores, sinkhorn(scores, epsilon=0.005), 0.005)
    torch.testing.assert_close(got, reference_sinkhorn(scores, 0.005), rtol=1e-10, atol=1e-12)


def test_z_and_codebook_in_several_blocks_equal_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    z, _, codebook = make_views(97, 30, dtype=torch.float64)
    whole = sinkhorn(z @ codebook.T)
    # `import spintok_kernels.sinkhorn` would give the function of that name.
    monkeypatch.setitem(sinkhorn.__globals__, "BLOCK", 300)
    blocks = sinkhorn(z=z, codebook=codebook)
    torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(1, 60),
    k=st.integers(1, 60),
    epsilon=st.floats(0.005, 0.5),
    iterations=st.integers(1, 8),
    offset=st.floats(-3, 3),
    seed=st.integers(0, 99),
)
def test_properties(n: int, k: int, epsilon: float, iterations: int, offset: float, seed: int) -> None:
    z, _, codebook = make_views(n, k, seed=seed, dtype=torch.float64)
    scores = (z @ codebook.T).float() + offset
    q = targets(scores, sinkhorn(scores, epsilon=epsilon, iterations=iterations), epsilon)
    assert torch.isfinite(q).all()
    tolerance = 8 * 2**-24 * (4 / epsilon + 100)
    assert float((q.sum(1) - 1).abs().max()) < tolerance
    # After a codeword step each row holds at most K, so each codeword keeps 1 / K.
    assert float(q.sum(0).min()) > (1 - tolerance) / k
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    permuted = sinkhorn(scores[order], epsilon=epsilon, iterations=iterations)
    assert float((targets(scores[order], permuted, epsilon) - q[order]).abs().max()) < tolerance


def test_many_iterations_balance_the_codes() -> None:
    z, _, codebook = make_views(200, 20)
    scores = z @ codebook.T
    q = targets(scores, sinkhorn(scores, epsilon=0.05, iterations=200), 0.05)
    torch.testing.assert_close(q.sum(0), torch.full((20,), 10.0, dtype=torch.float64), rtol=1e-3, atol=0)


def test_an_outlying_frame_and_a_dead_code_stay_finite(core: str) -> None:
    scores = torch.full((50, 7), 0.9)
    scores[3] = -1.0
    scores[:, 5] = -1.0
    q = targets(scores, sinkhorn(scores, epsilon=0.005), 0.005)
    assert float((q - reference_sinkhorn(scores, 0.005)).abs().max()) < 1e-4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_come_out_as_nan(value: float, core: str) -> None:
    scores = make_views(9, 5)[0] @ make_views(9, 5)[2].T
    scores[4, 2] = value
    assert sinkhorn(scores).frame.isnan().all()


def test_no_gradient_flows() -> None:
    z, _, codebook = make_views(9, 5)
    code, frame = sinkhorn(z=z.requires_grad_(), codebook=codebook.requires_grad_())
    assert not code.requires_grad
    assert not frame.requires_grad


def test_ops_are_registered_well() -> None:
    z, _, codebook = make_views(9, 5)
    op = torch.ops.spintok.sinkhorn.default
    torch.library.opcheck(op, (z, codebook, 0.02, 3, ""))
    torch.library.opcheck(op, (z, None, 0.02, 3, ""))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "scores is missing"),
        ({"z": torch.ones(2, 3)}, "scores is missing"),
        ({"scores": torch.ones(2, 3), "z": torch.ones(2, 3)}, "scores excludes z"),
        ({"scores": torch.ones(3)}, "scores must have two dimensions"),
        ({"scores": torch.ones(0, 3)}, "scores is empty"),
        ({"scores": torch.ones(2, 0)}, "scores is empty"),
        ({"scores": torch.ones(2, 3, dtype=torch.int32)}, "scores must be float32 or float64"),
        ({"scores": torch.ones(3, 2).T}, "scores is not contiguous"),
        ({"scores": torch.ones(2, 3, device="meta")}, "scores is on meta"),
        ({"scores": torch.ones(2, 3), "epsilon": 0.0}, "epsilon must be"),
        ({"scores": torch.ones(2, 3), "epsilon": math.nan}, "epsilon must be"),
        ({"scores": torch.ones(2, 3), "iterations": 0}, "iterations must be"),
        ({"z": torch.ones(2, 3), "codebook": torch.ones(2, 4)}, "codebook has rows of 4"),
        ({"z": torch.ones(2, 3), "codebook": torch.ones(2, 3).double()}, "codebook must be float32"),
    ],
)
def test_bad_input_names_the_argument(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinkhorn(**arguments)
