"""Training under injected faults: the n-th file operation fails, or the process is killed there.

After a resume every run must end in the bytes of one that nothing disturbed. ``SPINTOK_TEST_FAULTS=200`` tries 200
faults of each kind in place of a few.
"""

import errno
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import ended, fork
from small_models import spin_recipe

from spintok.train import checkpoint
from spintok.train.distributed import Distributed
from spintok.train.recipe import Recipe
from spintok.train.recipe_file import read_recipe
from spintok.train.run import TrainingData, train
from tests.train.folders import contents

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FAULTS = int(os.environ.get("SPINTOK_TEST_FAULTS", "3"))


class Injector:
    """Counts the file operations below ``folder``, and fails or kills the process at number ``at``."""

    def __init__(self, folder: Path, at: int, kind: str) -> None:
        self.folder, self.at, self.kind = str(folder), at, kind
        self.count = 0

    def install(self) -> None:
        sys.addaudithook(self._hook)
        save_file = checkpoint.save_file

        def save(tensors, path, metadata):
            # Rust writes the file, which Python does not see: die in the middle of it.
            save_file(tensors, path, metadata)
            size = Path(path).stat().st_size
            self._operation(lambda: os.truncate(path, size // 2))

        checkpoint.save_file = save

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(arguments[0]).startswith(
            self.folder
        ):
            self._operation(lambda: None)

    def _operation(self, damage) -> None:
        self.count += 1
        if self.count == self.at:
            damage()
            if self.kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device (injected)")


def run(recipe: Recipe, speech: Path, output: Path, at: int = 0, kind: str = "fail") -> int:
    """Train in a forked process with a fault at operation ``at``; return 0, 1 for an error, or -9 if killed.

    A run without a fault writes the number of its operations to ``count``.
    """

    def job() -> int:
        injector = Injector(output, at, kind)
        injector.install()
        try:
            train(recipe, TrainingData(speech), output, Distributed(torch.device("cpu")))
        except (OSError, ValueError):
            if not at:
                traceback.print_exc()
            return 1
        if not at:
            output.with_name("count").write_text(str(injector.count))
        return 0

    return ended(fork(job))


@pytest.mark.slow
def test_every_fault_ends_in_the_bytes_of_an_undisturbed_run(tiny, speech, tmp_path) -> None:
    (tmp_path / "r.toml").write_text(spin_recipe(tiny, steps=4, workers=0))
    # Labels too, which are encoded into shards and merged before the first step.
    settings = ["loop.checkpoint_minutes=0", "labels.tokenizer=mfcc-kmeans-100"]
    recipe = read_recipe(tmp_path / "r.toml", settings)
    # Forked processes share what one run has imported, or they would import anew each time.
    train(recipe, TrainingData(speech), tmp_path / "warm-up", Distributed(torch.device("cpu")))
    assert run(recipe, speech, tmp_path / "whole") == 0
    expected, operations = contents(tmp_path / "whole"), int((tmp_path / "count").read_text())
    assert operations > 50
    rng = np.random.default_rng(0)
    output, ended = tmp_path / "o", set()
    for kind in ("fail", "kill"):
        for at in rng.choice(np.arange(1, operations + 1), min(FAULTS, operations), replace=False).tolist():
            codes = [run(recipe, speech, output, at, kind)]
            # A second fault, during the resume.
            codes.append(run(recipe, speech, output, int(rng.integers(1, operations)), kind))
            codes.append(run(recipe, speech, output))
            assert codes[-1] == 0, (kind, at, codes)
            assert set(codes[:2]) <= {0, 1 if kind == "fail" else -signal.SIGKILL}, (kind, at, codes)
            found = contents(output)
            assert found.keys() == expected.keys(), (kind, at)
            assert [name for name in found if found[name] != expected[name]] == [], (kind, at)
            ended |= set(codes)
            shutil.rmtree(output)
    assert ended == {0, 1, -signal.SIGKILL}
