"""Two processes that share a batch against one that has all of it."""

import json
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import command_line
import pytest
import torch
from forks import ended, fork, start
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import spin_recipe, tiny_encoder
from torch.nn.parallel import DistributedDataParallel

from spintok.train.batching.examples import Batch
from spintok.train.batching.plan import Position
from spintok.train.distributed import Distributed, init_distributed
from spintok.train.recipe_sections import CodebookPlan, SpinLossConfig
from spintok.train.stages.ctc import CtcModel
from spintok.train.stages.masked import Head, MaskedPrediction
from spintok.train.stages.spin import SpinModel
from spintok.train.trainable import TrainableEncoder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
LENGTHS = torch.tensor([6000, 3000, 5000])
SHARES = ([0, 2], [1])
STAGES = ("spin", "spin from codes", "pretrain", "ctc")


def whole_batch() -> Batch:
    """Three utterances of different lengths, with all that any stage reads; in float64."""
    generator = torch.Generator().manual_seed(0)
    first, second = (0.1 * torch.randn(3, 6000, generator=generator, dtype=torch.float64) for _ in range(2))
    frames = (LENGTHS - 400) // 320 + 1
    valid = torch.arange(int(frames.max())) < frames[:, None]
    labels = torch.randint(0, 5, valid.shape, generator=generator).masked_fill(~valid, -1)
    masked = (torch.rand(valid.shape, generator=generator) < 0.5) & valid
    return Batch(Position(), 1.0, first, LENGTHS, second=second, labels=labels, masked=masked)


def share(batch: Batch, rows: list[int]) -> Batch:
    """The batch of some of its utterances, with no more padding than they need."""
    samples = int(batch.lengths[rows].max())
    frames = (samples - 400) // 320 + 1
    return Batch(
        batch.position,
        1.0,
        batch.inputs[rows, :samples],
        batch.lengths[rows],
        second=batch.second[rows, :samples],
        labels=batch.labels[rows, :frames],
        masked=batch.masked[rows, :frames],
    )


def build(stage: str, distributed: Distributed) -> torch.nn.Module:
    torch.manual_seed(0)
    encoder = TrainableEncoder(tiny_encoder())
    match stage:
        case "spin":
            plans = (CodebookPlan("primary", 6, width=5), CodebookPlan("auxiliary", 9, width=4))
            model = SpinModel(encoder, plans, SpinLossConfig(), distributed, labels=5, label_weight=2.0)
        case "spin from codes":
            plans = (CodebookPlan("primary", 6, width=5),)
            model = SpinModel(
                encoder, plans, SpinLossConfig(), distributed, labels=5, label_weight=2.0, label_source="codes"
            )
        case "pretrain":
            heads = [Head.new("primary", 5, 16, 4), Head.new("phones", 5, 16, 4, weight=0.5)]
            model = MaskedPrediction(encoder, heads, 0.1, 0.3, distributed)
        case "ctc":
            model = CtcModel(encoder, 6, 4, 0.1, distributed)
    model.double().normalize_codewords()
    return model


def with_labels(stage: str, batch: Batch) -> Batch:
    """The batch with its labels as the stage wants them: two kinds, or for CTC symbols 1 ... 5 of few frames."""
    match stage:
        case "pretrain":
            return replace(batch, labels=torch.stack([batch.labels, batch.labels], 2))
        case "ctc":
            return replace(batch, labels=batch.labels[:, :4] + 1)
    return batch


def compute(stage: str, batch: Batch, distributed: Distributed) -> dict[str, torch.Tensor]:
    """Loss, figures and gradients, as the loop sees them."""
    model = build(stage, distributed)
    parallel = model if distributed.group is None else DistributedDataParallel(model, process_group=distributed.group)
    loss, figures = parallel(with_labels(stage, batch))
    loss.backward()
    found = {f"gradient.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    found |= {f"figure.{name}": value.detach() for name, value in figures.items()}
    return found | {"loss": distributed.sum(loss.detach()) / distributed.world_size}


def environments(count: int) -> list[dict[str, str]]:
    """What ``torchrun`` tells the processes of a run."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29500 + os.getpid() % 2000), "WORLD_SIZE": str(count)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def start_ranks(count: int, folder: Path, *arguments: object) -> list[int]:
    """Start the ``count`` processes of a run of ``spintok``, whose outputs go to a folder for each."""
    return [
        start(folder / f"rank-{rank}", *arguments, environment=environment)
        for rank, environment in enumerate(environments(count))
    ]


def save_shares(folder: Path, environment: dict[str, str]) -> None:
    """What one of two processes computes for its share of the batch, for every stage."""
    os.environ.update(environment)
    with init_distributed("cpu") as distributed:
        for stage in STAGES:
            found = compute(stage, share(whole_batch(), SHARES[distributed.rank]), distributed)
            found = {name: value.contiguous() for name, value in found.items()}
            save_file(found, folder / f"{stage}-{distributed.rank}.safetensors")


def test_two_processes_have_the_loss_and_the_gradients_of_one(tmp_path) -> None:
    children = [fork(partial(save_shares, tmp_path, environment)) for environment in environments(2)]
    assert [ended(child) for child in children] == [0, 0]
    for stage in STAGES:
        alone = compute(stage, whole_batch(), Distributed(torch.device("cpu")))
        for rank in range(2):
            shared = load_file(tmp_path / f"{stage}-{rank}.safetensors")
            assert shared.keys() == alone.keys()
            for name, value in alone.items():
                # Sums in another order, in float64.
                torch.testing.assert_close(shared[name], value, rtol=1e-9, atol=1e-12, msg=f"{stage} {name}")


def test_a_run_of_two_processes_learns_what_one_does(tiny, speech, tmp_path) -> None:
    """The command line under torchrun's environment, with frozen features and a development set."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'stage = "spin"\nname = "t"\nstart = "{tiny}"\n[[codebooks]]\nname = "primary"\nsize = 6\nwidth = 4\n'
        "[views]\nvariants = 2\n[data]\nseconds = 6\nmax_seconds = 1\nworkers = 0\n"
        "[optimizer]\nsteps = 4\nwarmup = 1\nlearning_rate = 1e-3\n[loop]\nlog_every = 1\n"
    )
    common = ["train", recipe, "--data", speech, "--dev", speech, "--device", "cpu", "--quiet"]
    # This test's own process is the run of one, and has imported everything when the two start.
    assert command_line.call(*common, "--output", tmp_path / "1") == 0
    children = start_ranks(2, tmp_path, *common, "--output", tmp_path / "2")
    assert [ended(child) for child in children] == [0, 0], (tmp_path / "rank-0/stderr").read_text()
    logs = [(tmp_path / str(count) / "training/log.csv").read_text().splitlines() for count in (1, 2)]
    assert len(logs[0]) == len(logs[1]) == 5
    header = logs[0][0].split(",")
    for one, two in zip(logs[0][1:], logs[1][1:], strict=True):
        for name, a, b in zip(header, one.split(","), two.split(","), strict=True):
            if name != "real_time":
                assert float(a) == pytest.approx(float(b), rel=1e-3), name
    one, two = (load_file(tmp_path / str(count) / "model.safetensors") for count in (1, 2))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)


def test_a_signal_to_one_process_stops_all_at_the_same_step(tiny, speech, tmp_path) -> None:
    (tmp_path / "r.toml").write_text(
        spin_recipe(tiny, steps=100_000, workers=0).replace("log_every = 1", "log_every = 3")
    )
    command = ["train", tmp_path / "r.toml", "--data", speech, "--device", "cpu"]
    children = start_ranks(2, tmp_path, *command, "--output", tmp_path / "o")
    log = tmp_path / "o/training/log.csv"
    deadline = time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < 3:
        assert [os.waitpid(child, os.WNOHANG) for child in children] == [(0, 0)] * 2
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(children[1], signal.SIGTERM)
    codes = [ended(child) for child in children]
    errors = [(tmp_path / f"rank-{rank}/stderr").read_text() for rank in range(2)]
    assert codes == [130, 130], errors
    with safe_open(tmp_path / "o/training/checkpoint.safetensors", framework="pt") as file:
        step = json.loads(file.metadata()["spintok"])["step"]
    assert step % 3 == 0
    assert f"saved a checkpoint after step {step} of 100000" in errors[0]
    assert int(log.read_text().splitlines()[-1].partition(",")[0]) == step
