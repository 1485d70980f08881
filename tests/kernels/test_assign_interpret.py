"""The GPU kernels of assignment, run by Triton's interpreter: every tier, every tail."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from spintok_kernels import reference
from torch import Tensor

from tests.kernels.inputs import make

Load = Callable[[str], ModuleType]
MODULE = "spintok_kernels.assign.triton"
# What NaN and infinities do to numpy is the point of some of these tests.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero|All-NaN):RuntimeWarning")
SMALL = [(1, 1, 1), (1, 17, 16), (33, 50, 39), (64, 131, 100), (5, 300, 24)]


def assign(
    kernels: ModuleType, z: Tensor, codebook: Tensor, metric: str, details: bool = False, small: int = 0
) -> tuple:
    return kernels.assign(z, kernels.prepare(codebook, metric), metric, details, small=small)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel does not write holds NaN, or an id that no test expects."""
    empty = torch.empty

    def poisoned(*shape: int, **options: object) -> torch.Tensor:
        result = empty(*shape, **options)
        return result.fill_(torch.nan if result.is_floating_point() else 2**30)

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("shape", SMALL)
def test_tiers_are_exact(interpreted: Load, shape: tuple[int, int, int], metric: str) -> None:
    kernels = interpreted(MODULE)
    z, codebook = make("random", *shape)
    ids, scores, margins = assign(kernels, z, codebook, metric)
    assert torch.equal(ids, reference.assign(z, codebook, metric)[0])
    assert scores is margins is None


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("kind", ["near_ties", "duplicates", "integers", "offset", "tiny", "huge"])
def test_hard_inputs(interpreted: Load, kind: str, metric: str) -> None:
    kernels = interpreted(MODULE)
    z, codebook = make(kind, 21, 40, 18)
    z[3] = 0
    z[5, 2] = torch.nan
    z[20, 0] = -torch.inf
    ids = assign(kernels, z, codebook, metric)[0]
    assert torch.equal(ids, reference.assign(z, codebook, metric)[0])


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("small", [0, 1 << 28])
@pytest.mark.parametrize("shape", [(33, 50, 24), (3, 1, 8)])
def test_scores_and_margins(interpreted: Load, shape: tuple[int, int, int], small: int, metric: str) -> None:
    kernels = interpreted(MODULE)
    z, codebook = make("offset", *shape)
    z[1, 1] = torch.inf
    ids, scores, margins = assign(kernels, z, codebook, metric, True, small)
    true_ids, true_scores, true_margins = reference.assign(z, codebook, metric)
    assert torch.equal(ids, true_ids)
    torch.testing.assert_close(scores, true_scores.float(), rtol=2e-7, atol=0, equal_nan=True)
    torch.testing.assert_close(margins, true_margins.float(), rtol=1e-4, atol=1e-2, equal_nan=True)


def test_several_codebooks_and_more_codewords_than_rows(interpreted: Load) -> None:
    kernels = interpreted(MODULE)
    z, first = make("unit", 7, 90, 16)
    second = first[:5].contiguous()
    for codebook in (first, second):
        assert torch.equal(assign(kernels, z, codebook, "dot")[0], reference.assign(z, codebook)[0])


def test_wide_rows(interpreted: Load) -> None:
    # More than 256 columns: the loop over D, with a tail.
    kernels = interpreted(MODULE)
    z, codebook = make("offset", 20, 150, 330)
    for metric in ("dot", "l2"):
        ids = assign(kernels, z, codebook, metric)[0]
        assert torch.equal(ids, reference.assign(z, codebook, metric)[0])


def test_a_codebook_that_is_not_finite_is_reported(interpreted: Load) -> None:
    kernels = interpreted(MODULE)
    z, codebook = make("unit", 9, 40, 16)
    codebook[33, 3] = torch.nan
    for small in (0, 1 << 28):
        for metric in ("dot", "l2"):
            assert assign(kernels, z, codebook, metric, False, small)[0].tolist() == [-1] * 9


def test_few_random_rows_need_more_than_float16(interpreted: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else the first kernel would be no use: its worklist is read after the run.
    kernels = interpreted(MODULE)
    counters = []
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *a, **o: counters.append(zeros(*a, **o)) or counters[-1])
    z, codebook = make("unit", 256, 100, 256)
    ids = assign(kernels, z, codebook, "dot")[0]
    after_half, after_split = counters[0].tolist()
    assert 0 < after_half < 0.1 * 256
    assert after_split <= 2
    assert torch.equal(ids, reference.assign(z, codebook)[0])
