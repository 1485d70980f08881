"""Signals during training, and two runs in one folder."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import torch
from forks import ended, start
from safetensors import safe_open
from small_models import spin_recipe

from spintok._files import lock
from spintok.train.distributed import Distributed
from spintok.train.interrupt import StopRequest
from spintok.train.recipe_file import read_recipe
from spintok.train.run import TrainingData, train


def rows(output: Path) -> int:
    try:
        with (output / "training/log.csv").open() as file:
            return sum(1 for _ in csv.DictReader(file))
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_saves_a_checkpoint(tiny, speech, tmp_path, number, workers) -> None:
    """The whole process group gets the signal, as from Ctrl-C or a batch system, so workers get it too."""
    (tmp_path / "r.toml").write_text(spin_recipe(tiny, steps=100_000, workers=workers))
    command = ["train", tmp_path / "r.toml", "--data", speech, "--device", "cpu", "--output", tmp_path / "o"]
    command += ["--checkpoint-minutes", "1000"]
    with ExitStack() as stack:
        if workers:
            # A forked process would share the server that forks workers with this one.
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            whole = [sys.executable, "-m", "spintok", *map(str, command)]
            output = stack.enter_context((tmp_path / "stderr").open("wb"))
            process = subprocess.Popen(whole, env=environment, stderr=output, start_new_session=True)
            child, wait, running = process.pid, process.wait, lambda: process.poll() is None
        else:
            child = start(tmp_path, *command)
            wait, running = partial(ended, child), lambda: os.waitpid(child, os.WNOHANG) == (0, 0)
        deadline = time.monotonic() + 120
        while rows(tmp_path / "o") < 3:
            assert running()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(child, number)
        code = wait()
    errors = (tmp_path / "stderr").read_text()
    assert code == 130, errors
    assert f"{number.name}: saving a checkpoint after this step" in errors
    assert "spintok: error: stopped; run the same command again" in errors
    assert "Traceback" not in errors
    with safe_open(tmp_path / "o/training/checkpoint.safetensors", framework="pt") as file:
        step = json.loads(file.metadata()["spintok"])["step"]
    assert f"saved a checkpoint after step {step} of 100000" in errors
    assert step == rows(tmp_path / "o") >= 3


def test_a_second_signal_is_handled_as_before() -> None:
    messages: list[str] = []
    with StopRequest(messages.append) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert len(messages) == 1
    ignored = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with StopRequest(messages.append) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGTERM, ignored)


def test_a_folder_in_which_another_run_works_is_refused(tiny, speech, tmp_path) -> None:
    (tmp_path / "r.toml").write_text(spin_recipe(tiny, steps=2, workers=0))
    recipe, output = read_recipe(tmp_path / "r.toml"), tmp_path / "o"
    output.mkdir()
    (output / ".config.json.0123456789abcdef.tmp").write_text("{")
    with lock(output / ".lock"), pytest.raises(ValueError, match="another process is training in this folder"):
        train(recipe, TrainingData(speech), output, Distributed(torch.device("cpu")))
    assert not (output / "training").exists()
    with pytest.raises(ValueError, match="no such"):
        train(recipe, TrainingData(speech / "none"), tmp_path / "new", Distributed(torch.device("cpu")))
    assert not (tmp_path / "new").exists()
    train(recipe, TrainingData(speech), output, Distributed(torch.device("cpu")))
    assert not list(output.rglob(".*"))
