"""The Sinkhorn potentials of the loss against the exp form in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spintok_kernels.reference import reference_sinkhorn
from spintok_kernels.swapped_prediction import cpu
from spintok_kernels.swapped_prediction import torch as torch_passes
from spintok_kernels.swapped_prediction.sinkhorn import Passes, code_potentials
from torch import Tensor

from tests.kernels.views import make_views


def targets(scores: Tensor, epsilon: float = 0.02, iterations: int = 3, blocks: int = 1) -> Tensor:
    """Q (N, K) in float64 from the potentials of the core that `SPINTOK_LOSS_CPU` selects."""
    compiled = scores.dtype == torch.float32 and cpu.LOSS.choose()[0] != "torch"
    columns = cpu if compiled else torch_passes
    parts = [(slice(0, 0), part[None].contiguous()) for part in scores.chunk(blocks)]
    passes = Passes(columns.column_logsumexp, columns.column_totals)
    u, rows = code_potentials(lambda: parts, passes, len(scores), epsilon=epsilon, iterations=iterations, group="")
    assert rows == len(scores)
    return torch.softmax(scores.double() / epsilon + u, 1)


@pytest.fixture(params=["avx512", "avx2", "portable", "torch"])
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(cpu.LOSS.variable, request.param)
    try:
        cpu.LOSS.choose()
    except RuntimeError as error:
        pytest.skip(str(error))
    return request.param


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.02, 0.005, 0.002])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 17), (33, 50), (203, 70), (40, 130), (301, 33)])
def test_equals_the_exp_form(n: int, k: int, epsilon: float, core: str) -> None:
    z, _, codebook = make_views(n, k)
    scores = z @ codebook.T
    got = targets(scores, epsilon)
    # Terms of the exponent reach 1 / epsilon, each rounded to 2^-24 of its size.
    tolerance = max(2e-6, 4 * 2**-24 / epsilon)
    assert float((got - reference_sinkhorn(scores, epsilon)).abs().max()) < tolerance


def test_float64_is_exact() -> None:
    z, _, codebook = make_views(90, 40, dtype=torch.float64)
    scores = z @ codebook.T
    got = targets(scores, 0.005)
    torch.testing.assert_close(got, reference_sinkhorn(scores, 0.005), rtol=1e-10, atol=1e-12)


def test_several_blocks_equal_one(core: str) -> None:
    z, _, codebook = make_views(97, 30)
    scores = z @ codebook.T
    torch.testing.assert_close(targets(scores, blocks=5), targets(scores), rtol=1e-4, atol=1e-6)


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
    q = targets(scores, epsilon, iterations)
    assert torch.isfinite(q).all()
    tolerance = 8 * 2**-24 * (4 / epsilon + 100)
    assert float((q.sum(1) - 1).abs().max()) < tolerance
    # After a codeword step each row holds at most K, so each codeword keeps 1 / K.
    assert float(q.sum(0).min()) > (1 - tolerance) / k
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert float((targets(scores[order], epsilon, iterations) - q[order]).abs().max()) < tolerance


def test_many_iterations_balance_the_codes() -> None:
    z, _, codebook = make_views(200, 20)
    scores = z @ codebook.T
    q = targets(scores, 0.05, 200)
    torch.testing.assert_close(q.sum(0), torch.full((20,), 10.0, dtype=torch.float64), rtol=1e-3, atol=0)


def test_an_outlying_frame_and_a_dead_code_stay_finite(core: str) -> None:
    scores = torch.full((50, 7), 0.9)
    scores[3] = -1.0
    scores[:, 5] = -1.0
    q = targets(scores, 0.005)
    assert float((q - reference_sinkhorn(scores, 0.005)).abs().max()) < 1e-4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_come_out_as_nan(value: float, core: str) -> None:
    scores = make_views(9, 5)[0] @ make_views(9, 5)[2].T
    scores[4, 2] = value
    assert targets(scores).isnan().all()
