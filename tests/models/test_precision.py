"""Full precision in overlapping blocks, also of several threads; afterwards everything is as before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from spintok.models.precision import full_precision

CPU = torch.device("cpu")


@pytest.fixture
def medium() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def precisions() -> list[str]:
    backends = torch.backends
    return [
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision,
        backends.mkldnn.matmul.fp32_precision,
    ]


@pytest.mark.usefixtures("medium")
def test_settings_are_restored() -> None:
    before = precisions()
    with full_precision(CPU), full_precision(CPU):
        assert precisions() == ["ieee"] * 3
    assert precisions() == before
    with pytest.raises(KeyError), full_precision(CPU):
        raise KeyError
    assert precisions() == before
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.usefixtures("medium")
def test_blocks_of_two_threads_overlap() -> None:
    before = precisions()
    inside, first_left = Barrier(2, timeout=10), Barrier(2, timeout=10)

    def leaves_first() -> None:
        with full_precision(CPU):
            inside.wait()
        first_left.wait()

    def leaves_last() -> list[str]:
        with full_precision(CPU):
            inside.wait()
            first_left.wait()
            return precisions()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(leaves_first)
        assert pool.submit(leaves_last).result() == ["ieee"] * 3
    assert precisions() == before
