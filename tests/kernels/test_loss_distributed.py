"""Two gloo ranks with unequal numbers of rows equal one process with all rows."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from spintok_kernels import sinkhorn, swapped_prediction_loss

from tests.kernels.views import make_views, relative_error

ROWS = (61, 140)
CODES = 30


DTYPES = (torch.float32, torch.float64)


def rank_main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    torch.save([one_rank(rank, dtype) for dtype in DTYPES], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


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
    potentials = sinkhorn(z=inputs[0].detach(), codebook=inputs[2].detach(), group=dist.group.WORLD)
    return {
        "loss": mean_loss / 2,
        "gradients": [x.grad / 2 for x in inputs],
        "metrics": torch.cat([x.flatten() for x in out[1:]]),
        "code": potentials.code,
        "frame": potentials.frame,
    }


@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs gloo")
def test_two_unequal_ranks_equal_one_process(tmp_path: Path) -> None:
    mp.spawn(rank_main, (str(tmp_path),), nprocs=2)
    saved = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for dtype, first, second in zip(DTYPES, *saved, strict=True):
        inputs = [x.requires_grad_() for x in make_views(sum(ROWS), CODES, dtype=dtype)]
        out = swapped_prediction_loss(*inputs)
        out.loss.backward()
        potentials = sinkhorn(z=inputs[0].detach(), codebook=inputs[2].detach())

        assert float(first["loss"]) == pytest.approx(float(out.loss.detach()), rel=1e-6)
        for i in (0, 1):
            joined = torch.cat([first["gradients"][i], second["gradients"][i]])
            assert relative_error(joined, inputs[i].grad) < 1e-6
        assert relative_error(first["gradients"][2], inputs[2].grad) < 1e-6
        metrics = torch.cat([x.flatten() for x in out[1:]])
        for rank in (first, second):
            torch.testing.assert_close(rank["metrics"], metrics, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(rank["code"], potentials.code, rtol=1e-6, atol=1e-6)
        frame = torch.cat([first["frame"], second["frame"]])
        torch.testing.assert_close(frame, potentials.frame, rtol=1e-6, atol=1e-6)
