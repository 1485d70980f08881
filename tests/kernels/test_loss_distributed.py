"""Two gloo ranks with unequal numbers of rows equal one process with all rows."""

import os
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forks import ended, fork
from spintok_kernels import swapped_prediction_loss
from spintok_kernels.swapped_prediction import torch as torch_passes
from spintok_kernels.swapped_prediction.ranks import group_name
from spintok_kernels.swapped_prediction.sinkhorn import Passes, code_potentials

from tests.kernels.views import make_views, relative_error

ROWS = (61, 140)
CODES = 30


DTYPES = (torch.float32, torch.float64)


def rank_main(rank: int, folder: Path) -> None:
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    torch.save([one_rank(rank, dtype) for dtype in DTYPES], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def potentials(z: torch.Tensor, codebook: torch.Tensor, group: str) -> torch.Tensor:
    scores = (z @ codebook.T).detach()[None]
    passes = Passes(torch_passes.column_logsumexp, torch_passes.column_totals)
    blocks = [(slice(0, len(z)), scores)]
    u, rows = code_potentials(lambda: blocks, passes, len(z), epsilon=0.02, iterations=3, group=group)
    assert rows == (sum(ROWS) if group else len(z))
    return u


def one_rank(rank: int, dtype: torch.dtype) -> dict:
    mine = slice(0, ROWS[0]) if rank == 0 else slice(ROWS[0], None)
    z1, z2, codebook = make_views(sum(ROWS), CODES, dtype=dtype)
    inputs = [x.requires_grad_() for x in (z1[mine], z2[mine], codebook)]
    out = swapped_prediction_loss(*inputs, group=dist.group.WORLD)
    out.loss.backward()
    # What DistributedDataParallel does with a parameter's gradient.
    dist.all_reduce(inputs[2].grad)
    mean_loss = out.loss.detach().clone()
    dist.all_reduce(mean_loss)
    u = potentials(inputs[0], inputs[2], group_name(dist.group.WORLD))
    return {
        "loss": mean_loss / 2,
        "gradients": [x.grad / 2 for x in inputs],
        "metrics": torch.cat([x.flatten() for x in out[1:]]),
        "potentials": u,
    }


@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs gloo")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_unequal_ranks_equal_one_process(tmp_path: Path) -> None:
    children = [fork(partial(rank_main, rank, tmp_path)) for rank in (0, 1)]
    assert [ended(child) for child in children] == [0, 0]
    saved = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for dtype, first, second in zip(DTYPES, *saved, strict=True):
        inputs = [x.requires_grad_() for x in make_views(sum(ROWS), CODES, dtype=dtype)]
        out = swapped_prediction_loss(*inputs)
        out.loss.backward()
        u = potentials(inputs[0], inputs[2], "")

        assert float(first["loss"]) == pytest.approx(float(out.loss.detach()), rel=1e-6)
        for i in (0, 1):
            joined = torch.cat([first["gradients"][i], second["gradients"][i]])
            assert relative_error(joined, inputs[i].grad) < 1e-6
        assert relative_error(first["gradients"][2], inputs[2].grad) < 1e-6
        metrics = torch.cat([x.flatten() for x in out[1:]])
        for rank in (first, second):
            torch.testing.assert_close(rank["metrics"], metrics, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(rank["potentials"], u, rtol=1e-6, atol=1e-6)
