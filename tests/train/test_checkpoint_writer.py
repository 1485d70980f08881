"""Checkpoints that are written while training goes on."""

import threading

import pytest
import torch

from spintok.train import checkpoint_writer
from spintok.train.checkpoint import Checkpoints, TrainState
from spintok.train.checkpoint_writer import CheckpointWriter


@pytest.fixture
def run() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def resumed(checkpoints: Checkpoints) -> tuple[torch.nn.Module, torch.optim.Optimizer, TrainState]:
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    return model, optimizer, checkpoints.resume(model, optimizer, print)


def test_a_checkpoint_is_of_the_moment_of_save(run, tmp_path, monkeypatch) -> None:
    """Training changes weights and optimizer while the file is written."""
    model, optimizer = run
    go_on, write = threading.Event(), Checkpoints.write

    def slow(*arguments) -> None:
        assert go_on.wait(60)
        write(*arguments)

    monkeypatch.setattr(Checkpoints, "write", slow)
    checkpoints = Checkpoints(tmp_path, {})
    with CheckpointWriter(checkpoints, model, optimizer, minutes=0) as writer:
        for step in (1, 2):
            weights = {name: value.clone() for name, value in model.state_dict().items()}
            mean = optimizer.state[model.weight]["exp_avg"].clone()
            writer.save(TrainState(step))
            assert not checkpoints.latest.exists() or step == 2
            optimizer.step()
            go_on.set()
    found, its_optimizer, state = resumed(checkpoints)
    assert state == TrainState(2)
    assert all(torch.equal(value, weights[name]) for name, value in found.state_dict().items())
    assert not torch.equal(model.weight, found.weight)
    assert torch.equal(its_optimizer.state[found.weight]["exp_avg"], mean)
    assert checkpoints.previous.exists()


@pytest.mark.parametrize("place", ["due", "save", "end of the run"])
def test_a_write_that_fails_ends_the_run(run, tmp_path, monkeypatch, place) -> None:
    def full(*arguments) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Checkpoints, "write", full)
    with (
        pytest.raises(OSError, match="No space left"),
        CheckpointWriter(Checkpoints(tmp_path, {}), *run, minutes=0) as writer,
    ):
        writer.save(TrainState(1))
        if place == "due":
            writer._thread.join()
            writer.due()
        if place == "save":
            writer.save(TrainState(2))
        assert place == "end of the run"


def test_another_error_is_not_hidden_by_a_write_that_fails(run, tmp_path, monkeypatch) -> None:
    def full(*arguments) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Checkpoints, "write", full)
    with (
        pytest.raises(ValueError, match="unreadable"),
        CheckpointWriter(Checkpoints(tmp_path, {}), *run, minutes=0) as writer,
    ):
        writer.save(TrainState(1))
        raise ValueError("unreadable")


@pytest.mark.parametrize(
    ("cost", "writing", "seconds"),
    [(0.001, 0.01, 2), (0.1, 0.1, 5), (0.1, 3, 30), (1, 1, 50), (30, 1, 600)],
)
def test_checkpoints_are_as_frequent_as_their_cost_permits(cost, writing, seconds) -> None:
    """2 % of the machine, 10 % of the disk, and between 2 s and 10 minutes."""
    assert checkpoint_writer._interval(cost, writing) == pytest.approx(seconds)


@pytest.mark.parametrize(("minutes", "intervals"), [(None, (0.5, 40)), (5, (300, 300))])
def test_when_a_checkpoint_is_due(run, tmp_path, monkeypatch, minutes, intervals) -> None:
    """The first after 0.5 s, the next by what the one before took; or at fixed intervals, counted from the copy."""
    now, write = [100.0], Checkpoints.write
    monkeypatch.setattr(checkpoint_writer.time, "monotonic", lambda: now[0])

    def four_seconds(*arguments) -> None:
        now[0] += 4
        write(*arguments)

    monkeypatch.setattr(Checkpoints, "write", four_seconds)
    with CheckpointWriter(Checkpoints(tmp_path, {}), *run, minutes) as writer:
        for interval in intervals:
            copied = now[0]
            writer.finish()
            now[0] = copied + interval - 0.1
            assert not writer.due()
            now[0] = copied + interval
            assert writer.due()
            writer.save(TrainState(1))
            writer._thread.join()
            now[0] = copied + interval
