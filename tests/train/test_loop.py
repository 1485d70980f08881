import csv
import io
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from spintok.train.checkpoint import CheckpointError
from spintok.train.distributed import Ranks
from spintok.train.loop import TrainingError
from spintok.train.recipe import CodebookPlan, DataConfig, LabelConfig, LoopConfig, OptimizerConfig, SpinRecipe
from spintok.train.run import Speech, train

CPU = Ranks(torch.device("cpu"))
QUIET = Console(quiet=True)


def recipe(tiny, **changes) -> SpinRecipe:
    return SpinRecipe(
        name="test",
        start=str(tiny),
        codebooks=(CodebookPlan("primary", 6, width=4),),
        optimizer=replace(OptimizerConfig(steps=6, warmup=2, learning_rate=1e-3), **changes.pop("optimizer", {})),
        data=DataConfig(seconds=4, max_seconds=1.0, workers=0),
        loop=replace(LoopConfig(log_every=1, checkpoint_minutes=0), **changes.pop("loop", {})),
        **changes,
    )


def rows(output, name="log.csv") -> list[dict[str, str]]:
    with (output / "training" / name).open() as file:
        return list(csv.DictReader(file))


def losses(output) -> list[tuple[str, ...]]:
    """All of the log that does not tell the time."""
    return [tuple(value for name, value in row.items() if name != "real_time") for row in rows(output)]


def test_the_rate_rises_and_falls_in_straight_lines() -> None:
    config = OptimizerConfig(steps=5000, warmup=2500, start_rate=1e-6, learning_rate=1e-4, final_rate=1e-6)
    assert config.rate(0) == 1e-6
    assert config.rate(2500) == pytest.approx(1e-4)
    assert config.rate(1250) == pytest.approx((1e-6 + 1e-4) / 2)
    assert config.rate(3750) == pytest.approx((1e-6 + 1e-4) / 2)
    assert config.rate(5000) == pytest.approx(1e-6)
    assert OptimizerConfig(steps=1, warmup=0).rate(0) == 1e-4


@pytest.mark.parametrize("labels", [None, LabelConfig("mfcc-kmeans-100", source="codes")], ids=["spin", "labels"])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tiny, speech, tmp_path, labels) -> None:
    """SIGKILL in the middle of training, more than once: log and weights are those of a run in one go, bit for bit."""
    steps = 6
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
import torch
torch.set_num_threads(1)
from pathlib import Path
from rich.console import Console
from test_loop import recipe, train, LabelConfig, Speech, CPU
import test_loop, time
from spintok.train import loop
if sys.argv[1] == "killed":
    # A step that takes a while, so that the kill falls between the first and the last.
    real = loop.save_checkpoint
    def slow(*arguments):
        real(*arguments)
        time.sleep(0.3)
    loop.save_checkpoint = slow
plan = recipe({str(tiny)!r}, optimizer=dict(steps={steps}, accumulation=2), labels={labels!r})
train(plan, Speech(Path({str(speech)!r})), Path(sys.argv[2]), CPU, Console(quiet=True))
"""

    def start(kind: str, output) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        return subprocess.Popen([sys.executable, "-c", code, kind, str(output)], env=environment)

    assert start("whole", whole).wait() == 0
    for so_far in (2, 4):
        process = start("killed", killed)
        deadline = time.monotonic() + 120
        while not (killed / "training" / "log.csv").exists() or len(losses(killed)) < so_far:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (killed / "config.json").exists()
    assert start("killed", killed).wait() == 0
    assert len(losses(whole)) == steps
    assert losses(killed) == losses(whole)
    for name in ("model.safetensors", "training/checkpoint.safetensors"):
        one, other = load_file(whole / name), load_file(killed / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_workers_prepare_what_the_loop_would(tiny, speech, tmp_path) -> None:
    plan = recipe(tiny, optimizer={"steps": 3})
    train(plan, Speech(speech), tmp_path / "here", CPU, QUIET)
    train(replace(plan, data=replace(plan.data, workers=2)), Speech(speech), tmp_path / "there", CPU, QUIET)
    assert losses(tmp_path / "here") == losses(tmp_path / "there")


def test_frozen_features_are_computed_once_and_change_nothing(tiny, speech, tmp_path, monkeypatch) -> None:
    """Two variants, five epochs: the same losses as when every batch goes through the frozen layers again."""
    plan = recipe(tiny, optimizer={"steps": 5})
    plan = replace(plan, views=replace(plan.views, variants=2))
    train(plan, Speech(speech), tmp_path / "kept", CPU, QUIET)
    kept = list((tmp_path / "kept/training").glob("frozen-*"))
    assert len(kept) == 2

    from spintok.train.batching import frozen

    monkeypatch.setattr(frozen.FrozenExamples, "build", classmethod(lambda cls, examples, *rest: examples))
    train(plan, Speech(speech), tmp_path / "anew", CPU, QUIET)
    for one, other in zip(rows(tmp_path / "kept"), rows(tmp_path / "anew"), strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4)


def test_recomputing_layers_changes_nothing(tiny, speech, tmp_path) -> None:
    for recompute in (False, True):
        train(recipe(tiny, loop={"recompute": recompute}), Speech(speech), tmp_path / str(recompute), CPU, QUIET)
    for one, other in zip(rows(tmp_path / "False"), rows(tmp_path / "True"), strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-5)


def test_half_precision_trains(tiny, speech, tmp_path) -> None:
    train(recipe(tiny, loop={"precision": "bfloat16"}), Speech(speech), tmp_path / "half", CPU, QUIET)
    train(recipe(tiny), Speech(speech), tmp_path / "full", CPU, QUIET)
    half, full = (float(rows(tmp_path / name)[-1]["loss"]) for name in ("half", "full"))
    assert half != full
    assert half == pytest.approx(full, rel=0.05)
    with pytest.raises(ValueError, match="float16' needs a GPU"):
        train(recipe(tiny, loop={"precision": "float16"}), Speech(speech), tmp_path / "no", CPU, QUIET)


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_the_checkpoint(tiny, speech, tmp_path, monkeypatch) -> None:
    from spintok.train.stages.spin import SpinModel

    plan, output = recipe(tiny), tmp_path / "o"
    forward, calls = SpinModel.forward, []

    def fails_at_the_fourth(self, batch):
        calls.append(1)
        step = forward(self, batch)
        return step._replace(loss=step.loss * math.nan) if len(calls) == 4 else step

    monkeypatch.setattr(SpinModel, "forward", fails_at_the_fourth)
    with pytest.raises(TrainingError, match=r"^step 4: the loss is nan") as caught:
        train(plan, Speech(speech), output, CPU, QUIET)
    assert "\n" not in str(caught.value)
    assert len(losses(output)) == 3
    monkeypatch.undo()
    train(plan, Speech(speech), output, CPU, QUIET)
    train(plan, Speech(speech), tmp_path / "whole", CPU, QUIET)
    assert losses(output) == losses(tmp_path / "whole")


def test_a_collapsed_codebook_ends_the_run_after_the_warm_up(tiny, speech, tmp_path, monkeypatch) -> None:
    from spintok.train.stages.spin import SpinModel

    forward = SpinModel.forward

    def collapsed(self, batch):
        step = forward(self, batch)
        step.figures["perplexity_primary"] = torch.tensor(1.25)
        return step

    monkeypatch.setattr(SpinModel, "forward", collapsed)
    with pytest.raises(TrainingError, match="^step 3: codebook 'primary' has collapsed: perplexity 1.25"):
        train(recipe(tiny), Speech(speech), tmp_path, CPU, QUIET)


def test_another_recipe_does_not_go_on_from_this_one(tiny, speech, tmp_path) -> None:
    train(recipe(tiny), Speech(speech), tmp_path, CPU, QUIET)
    other = recipe(tiny, optimizer={"learning_rate": 2e-3})
    with pytest.raises(CheckpointError, match=r"optimizer.learning_rate = 0.001, not 0.002"):
        train(other, Speech(speech), tmp_path, CPU, QUIET)
    # How often it tells changes nothing.
    train(recipe(tiny, loop={"log_every": 3}), Speech(speech), tmp_path, CPU, QUIET)


def test_a_damaged_checkpoint_is_refused(tiny, speech, tmp_path) -> None:
    train(recipe(tiny), Speech(speech), tmp_path, CPU, QUIET)
    path = tmp_path / "training/checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        train(recipe(tiny), Speech(speech), tmp_path, CPU, QUIET)


def test_checks_are_written_and_do_not_disturb(tiny, speech, tmp_path) -> None:
    plan = recipe(tiny, loop={"check_every": 4})
    train(plan, Speech(speech, dev=speech), tmp_path / "checked", CPU, QUIET)
    assert [row["step"] for row in rows(tmp_path / "checked", "checks.csv")] == ["4", "6"]
    train(plan, Speech(speech), tmp_path / "plain", CPU, QUIET)
    assert losses(tmp_path / "checked") == losses(tmp_path / "plain")


def test_a_log_file_gets_lines_instead_of_a_bar(tiny, speech, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("spintok.train.log.LINE_SECONDS", 0.0)
    heard = io.StringIO()
    train(recipe(tiny, loop={"log_every": 3}), Speech(speech), tmp_path, CPU, Console(file=heard, width=200))
    lines = [line for line in heard.getvalue().splitlines() if line.startswith("step")]
    assert [line.partition(":")[0] for line in lines] == ["step 3 of 6", "step 6 of 6"]
    for figure in ("loss", "perplexity primary", "agreement primary", "x real time"):
        assert figure in lines[0]


def test_tensorboard_when_asked_for(tiny, speech, tmp_path) -> None:
    pytest.importorskip("tensorboard")
    train(recipe(tiny, loop={"tensorboard": True}), Speech(speech), tmp_path, CPU, QUIET)
    assert list((tmp_path / "training").glob("events.out.tfevents.*"))


def test_a_recording_that_cannot_be_read_ends_the_run_with_one_line(tiny, speech, tmp_path) -> None:
    import shutil

    shutil.copytree(speech, tmp_path / "speech")
    whole = (tmp_path / "speech/eve_bus.flac").read_bytes()
    (tmp_path / "speech/eve_bus.flac").write_bytes(whole[: len(whole) // 2])
    for workers in (0, 1):
        plan = recipe(tiny)
        plan = replace(plan, data=replace(plan.data, workers=workers))
        with pytest.raises(ValueError, match=r"eve_bus.flac") as caught:
            train(plan, Speech(tmp_path / "speech"), tmp_path / f"o{workers}", CPU, QUIET)
        assert "\n" not in str(caught.value)
