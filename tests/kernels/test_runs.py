"""De-duplication on the CPU and in the interpreter, against the definition."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spintok_kernels import Runs, reference, runs
from torch import Tensor

SMALL = st.integers(-1, 2)


@given(rows=st.lists(st.lists(SMALL, max_size=12), max_size=5), extra=st.integers(0, 3), data=st.data())
@settings(max_examples=100, deadline=None)
def test_runs_are_the_definition(rows: list[list[int]], extra: int, data: st.DataObject) -> None:
    frames = max(map(len, rows), default=0) + extra
    codes = torch.tensor(
        [row + data.draw(st.lists(SMALL, min_size=frames - len(row), max_size=frames - len(row))) for row in rows],
        dtype=torch.int64,
    ).reshape(len(rows), frames)
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    found = runs(codes, lengths)
    for mine, true in zip(found, reference.runs(codes, lengths), strict=True):
        assert mine.dtype == true.dtype
        assert torch.equal(mine, true)
    # What the definition should mean: durations fill the rows, neighbours differ, expanding gives the codes
    # back.
    assert torch.equal(found.durations.sum(1), lengths)
    for row, count, run_codes, durations in zip(rows, found.counts.tolist(), found.codes, found.durations, strict=True):
        assert run_codes[:count].repeat_interleave(durations[:count]).tolist() == row
        assert bool((run_codes[1:count] != run_codes[: max(count - 1, 0)]).all())
    again = runs(found.codes, found.counts)
    assert torch.equal(again.codes, found.codes)
    assert torch.equal(again.counts, found.counts)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_interpreted_kernel(
    interpreted: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    kernels = interpreted("spintok_kernels.runs_triton")
    rng = torch.Generator().manual_seed(0)
    # Runs that cross blocks, a block that ends with a run, a row of one run, none, a whole block behind the
    # runs.
    codes = torch.randint(-1, 2, (9, 70), generator=rng, dtype=dtype)
    codes[1, 10:40] = 1
    codes[2] = 0
    codes[3, 31], codes[3, 32] = 0, 1
    lengths = torch.tensor([70, 69, 70, 64, 0, 1, 32, 33, 31], dtype=torch.int32)
    outputs = (
        torch.empty_like(codes).fill_(99),
        torch.full(codes.shape, 99, dtype=torch.int32),
        torch.empty_like(lengths),
    )
    kernels.runs_kernel[(9,)](codes, lengths, *outputs, 70, BLOCK=32)
    for mine, true in zip(outputs, reference.runs(codes, lengths), strict=True):
        assert torch.equal(mine, true)


def test_interpreted_kernel_reports_lengths_out_of_range(interpreted: Callable[[str], ModuleType]) -> None:
    kernels = interpreted("spintok_kernels.runs_triton")
    codes = torch.zeros(3, 5, dtype=torch.int32)
    lengths = torch.tensor([-1, 6, 5])
    outputs = torch.empty_like(codes), torch.empty_like(codes), torch.empty(3, dtype=torch.int32)
    kernels.runs_kernel[(3,)](codes, lengths, *outputs, 5, BLOCK=16)
    assert outputs[2].tolist() == [-1, -1, 1]
    assert outputs[1].tolist() == [[0] * 5, [0] * 5, [5, 0, 0, 0, 0]]


def test_empty() -> None:
    for shape in ((0, 4), (3, 0), (0, 0)):
        found = runs(torch.zeros(shape, dtype=torch.int64), torch.zeros(shape[0], dtype=torch.int64))
        assert isinstance(found, Runs)
        assert found.codes.shape == found.durations.shape == shape
        assert found.counts.tolist() == [0] * shape[0]


CODES, LENGTHS = torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3, 1])


@pytest.mark.parametrize(
    ("codes", "lengths", "message"),
    [
        (CODES[0], LENGTHS, "codes: 2 dimension"),
        (CODES.float(), LENGTHS, "codes: integers"),
        (CODES.tolist(), LENGTHS, "codes: a tensor"),
        (CODES.t(), torch.tensor([1, 1, 1]), "codes: is not contiguous"),
        (CODES, LENGTHS[:1], "lengths: 1 of them for 2 rows"),
        (CODES, LENGTHS[:, None], "lengths: 1 dimension"),
        (CODES, LENGTHS.double(), "lengths: integers"),
        (CODES, LENGTHS.to("meta"), "lengths: is on meta, codes on cpu"),
        (CODES.to("meta"), LENGTHS.to("meta"), "codes: no kernel for device meta"),
        (CODES, torch.tensor([4, 1]), "lengths: not all are between 0 and T = 3"),
        (CODES, torch.tensor([-1, 1]), "lengths: not all are between 0 and T = 3"),
    ],
)
def test_bad_input(codes: Tensor, lengths: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runs(codes, lengths)
