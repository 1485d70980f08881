"""The scripts of the page on clusters, run as Slurm and a reader run them, with two workers."""

import os
import subprocess
from pathlib import Path

import command_line
import pytest
from markdown_blocks import ROOT, blocks

from tests.corpus.scale_faults import shards

SETTINGS = {"OMP_NUM_THREADS": "1", "SPINTOK_TOKENIZER": "mfcc-kmeans-100", "SPINTOK_DEVICE": "cpu"}
SCRIPTS = [block.text for block in blocks(ROOT / "docs/guides/cluster.md") if block.language == "bash"]


@pytest.fixture
def environment(tmp_path: Path, speech: Path) -> dict[str, str]:
    (tmp_path / "wav").symlink_to(speech)
    return {**os.environ, **SETTINGS}


def encode(folder: Path) -> dict[str, bytes]:
    """The files that one process writes for the folder ``wav``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        assert command_line.call("encode", "wav", "alone", "--quiet") == 0
    return shards(folder / "alone")


def test_the_slurm_script(tmp_path: Path, environment: dict[str, str]) -> None:
    script = tmp_path / "tokens.sbatch"
    script.write_text(SCRIPTS[0])
    tasks = [
        subprocess.Popen(
            ["bash", script],
            cwd=tmp_path,
            env={
                **environment,
                "SPEECH": "wav",
                "TOKENS": "tokens",
                "SLURM_ARRAY_TASK_ID": str(number),
                "SLURM_CPUS_PER_TASK": "1",
            },
        )
        for number in range(2)
    ]
    assert [task.wait() for task in tasks] == [0, 0]
    assert shards(tmp_path / "tokens") == encode(tmp_path)


@pytest.mark.slow
def test_the_line_for_torchrun(tmp_path: Path, environment: dict[str, str]) -> None:
    line = SCRIPTS[1].replace("--nproc-per-node 8", "--nproc-per-node 2 --master-port 0")
    assert line != SCRIPTS[1]
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, check=True)
    assert shards(tmp_path / "tokens") == encode(tmp_path)
