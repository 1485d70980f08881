import csv
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spintok.train.checkpoint import CheckpointError, Checkpoints
from spintok.train.distributed import Distributed
from spintok.train.loop import TrainingError
from spintok.train.recipe import SpinRecipe
from spintok.train.recipe_sections import CodebookPlan, DataConfig, LoopConfig, OptimizerConfig
from spintok.train.run import TrainingData, train

CPU = Distributed(torch.device("cpu"))


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


def test_workers_prepare_what_the_loop_would(tiny, speech, tmp_path) -> None:
    plan = recipe(tiny, optimizer={"steps": 3})
    train(plan, TrainingData(speech), tmp_path / "here", CPU)
    train(replace(plan, data=replace(plan.data, workers=2)), TrainingData(speech), tmp_path / "there", CPU)
    assert losses(tmp_path / "here") == losses(tmp_path / "there")


def test_frozen_features_are_computed_once_and_change_nothing(tiny, speech, tmp_path, monkeypatch) -> None:
    """Two variants, five epochs: the same losses as when every batch goes through the frozen layers again."""
    plan = recipe(tiny, optimizer={"steps": 5})
    plan = replace(plan, views=replace(plan.views, variants=2))
    train(plan, TrainingData(speech), tmp_path / "kept", CPU)
    kept = list((tmp_path / "kept/training").glob("frozen-*"))
    assert len(kept) == 2

    from spintok.train.batching import frozen

    monkeypatch.setattr(frozen.FrozenExamples, "build", classmethod(lambda cls, examples, *rest: examples))
    train(plan, TrainingData(speech), tmp_path / "anew", CPU)
    for one, other in zip(rows(tmp_path / "kept"), rows(tmp_path / "anew"), strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4)


def test_recomputing_layers_changes_nothing(tiny, speech, tmp_path) -> None:
    for recompute in (False, True):
        train(recipe(tiny, loop={"recompute": recompute}), TrainingData(speech), tmp_path / str(recompute), CPU)
    for one, other in zip(rows(tmp_path / "False"), rows(tmp_path / "True"), strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-5)


def test_half_precision_trains(tiny, speech, tmp_path) -> None:
    train(recipe(tiny, loop={"precision": "bfloat16"}), TrainingData(speech), tmp_path / "half", CPU)
    train(recipe(tiny), TrainingData(speech), tmp_path / "full", CPU)
    half, full = (float(rows(tmp_path / name)[-1]["loss"]) for name in ("half", "full"))
    assert half != full
    assert half == pytest.approx(full, rel=0.05)
    with pytest.raises(ValueError, match="float16' needs a GPU"):
        train(recipe(tiny, loop={"precision": "float16"}), TrainingData(speech), tmp_path / "no", CPU)


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
        train(plan, TrainingData(speech), output, CPU)
    assert "\n" not in str(caught.value)
    assert len(losses(output)) == 3
    monkeypatch.undo()
    train(plan, TrainingData(speech), output, CPU)
    train(plan, TrainingData(speech), tmp_path / "whole", CPU)
    assert losses(output) == losses(tmp_path / "whole")


def test_a_collapsed_codebook_ends_the_run_after_the_warm_up(tiny, speech, tmp_path, monkeypatch) -> None:
    from spintok.train.stages.spin import SpinModel

    forward = SpinModel.forward

    def collapsed(self, batch):
        step = forward(self, batch)
        step.statistics["perplexity_primary"] = torch.tensor(1.25)
        return step

    monkeypatch.setattr(SpinModel, "forward", collapsed)
    with pytest.raises(TrainingError, match="^step 3: codebook 'primary' has collapsed: perplexity 1.25"):
        train(recipe(tiny), TrainingData(speech), tmp_path, CPU)


def test_another_recipe_does_not_go_on_from_this_one(tiny, speech, tmp_path) -> None:
    train(recipe(tiny), TrainingData(speech), tmp_path, CPU)
    other = recipe(tiny, optimizer={"learning_rate": 2e-3})
    with pytest.raises(CheckpointError, match=r"optimizer.learning_rate = 0.001, not 0.002"):
        train(other, TrainingData(speech), tmp_path, CPU)
    # How often it tells changes nothing.
    train(recipe(tiny, loop={"log_every": 3}), TrainingData(speech), tmp_path, CPU)


def test_frozen_weights_are_not_in_checkpoints_but_must_be_the_same(tiny, speech, tmp_path) -> None:
    start = shutil.copytree(tiny, tmp_path / "start")
    train(recipe(start), TrainingData(speech), tmp_path / "o", CPU)
    held = load_file(tmp_path / "o/training/checkpoint.safetensors")
    assert any(name.startswith("model.encoder.encoder.layers") for name in held)
    assert not any(name.startswith("model.encoder.encoder.front_end") for name in held)
    weights = load_file(start / "model.safetensors")
    name = next(name for name in weights if "front_end" in name)
    save_file({**weights, name: weights[name] + 1}, start / "model.safetensors")
    with pytest.raises(CheckpointError, match="belongs to a run with frozen_weights ="):
        train(recipe(start), TrainingData(speech), tmp_path / "o", CPU)


def test_a_damaged_checkpoint_falls_back_on_the_one_before(tiny, speech, tmp_path) -> None:
    """A flipped byte anywhere in the file is noticed; the run ends in the weights of an undisturbed one."""
    train(recipe(tiny), TrainingData(speech), tmp_path / "whole", CPU)
    rng = np.random.default_rng(0)
    train(recipe(tiny), TrainingData(speech), tmp_path / "o", CPU)
    latest, previous = (tmp_path / "o/training" / f"checkpoint{end}.safetensors" for end in ("", "-previous"))
    intact, intact_previous = latest.read_bytes(), previous.read_bytes()
    model, optimizer = torch.nn.Linear(1, 1), torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    damages = [intact[:1000], b""]
    for place in [*rng.integers(0, len(intact), 20).tolist(), *range(0, 3000, 100)]:
        flipped = bytes([intact[place] ^ 1 << int(rng.integers(8))])
        damages += [intact[:place] + flipped + intact[place + 1 :]]
    for damaged in damages:
        latest.write_bytes(damaged)
        # The damaged file is passed over for the one before, which belongs to another run than this test's.
        with pytest.raises(CheckpointError, match="checkpoint-previous.safetensors: belongs to a run with"):
            Checkpoints(latest.parent, {"other": 1}).resume(model, optimizer, print)
    messages: list[str] = []
    train(recipe(tiny), TrainingData(speech), tmp_path / "o", CPU, message=messages.append)
    assert re.search(r"checkpoint.safetensors: not a valid checkpoint \(.*; using the one before it", messages[0])
    assert messages[1] == "resuming after step 5"
    assert previous.read_bytes() == intact_previous
    assert losses(tmp_path / "o") == losses(tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("o", "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_damaged_checkpoints_without_one_before_are_refused(tiny, speech, tmp_path) -> None:
    train(recipe(tiny), TrainingData(speech), tmp_path, CPU)
    for name in ("checkpoint", "checkpoint-previous"):
        path = tmp_path / f"training/{name}.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a valid checkpoint .*; delete it to start again"):
        train(recipe(tiny), TrainingData(speech), tmp_path, CPU)


def test_checks_are_written_once_and_do_not_disturb(tiny, speech, tmp_path, monkeypatch) -> None:
    """Also those before which a run ended: their checkpoint is on disk already."""
    from spintok.train.run import Validation

    plan, data = recipe(tiny, loop={"check_every": 4, "check_utterances": 2}), TrainingData(speech, dev=speech)
    train(plan, data, tmp_path / "checked", CPU)
    train(plan, TrainingData(speech), tmp_path / "plain", CPU)
    assert losses(tmp_path / "checked") == losses(tmp_path / "plain")
    validate = Validation.__call__
    for allowed in (0, 1):
        calls: list[int] = []

        def ends(self, tokenizer, calls=calls, allowed=allowed):
            calls.append(1)
            if len(calls) > allowed:
                raise OSError("ended")
            return validate(self, tokenizer)

        with monkeypatch.context() as patched, pytest.raises(OSError, match="ended"):
            patched.setattr(Validation, "__call__", ends)
            train(plan, data, tmp_path / "stopped", CPU)
        assert len(losses(tmp_path / "stopped")) == (4, 6)[allowed]
    train(plan, data, tmp_path / "stopped", CPU)
    assert [row["step"] for row in rows(tmp_path / "checked", "checks.csv")] == ["4", "6"]
    assert rows(tmp_path / "stopped", "checks.csv") == rows(tmp_path / "checked", "checks.csv")


def test_progress_and_messages(tiny, speech, tmp_path) -> None:
    shown: list[tuple[str, float, float, str]] = []
    messages: list[str] = []

    def progress(task: str, done: float, total: float, note: str = "") -> None:
        shown.append((task, done, total, note))

    train(recipe(tiny, loop={"log_every": 3}), TrainingData(speech), tmp_path, CPU, progress, messages.append)
    assert [call[:3] for call in shown] == [("training steps", step, 6) for step in range(1, 7)]
    (last,) = messages
    assert last.startswith("step 6 of 6: ")
    for text in (shown[3][3], last):
        for figure in ("loss", "perplexity primary", "agreement primary", "x real time"):
            assert figure in text


def test_tensorboard_when_asked_for(tiny, speech, tmp_path) -> None:
    pytest.importorskip("tensorboard")
    train(recipe(tiny, loop={"tensorboard": True}), TrainingData(speech), tmp_path, CPU)
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
            train(plan, TrainingData(tmp_path / "speech"), tmp_path / f"o{workers}", CPU)
        assert "\n" not in str(caught.value)
