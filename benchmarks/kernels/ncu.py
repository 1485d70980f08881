"""Write a report of Nsight Compute."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["profile"]


def profile(arguments: Sequence[str], folder: Path) -> Path:
    """Run this benchmark with `arguments` under ncu, one call of each provider, and return the report's path.

    Raises ValueError if ncu is not installed or fails.
    """
    ncu = shutil.which("ncu")
    if ncu is None:
        raise ValueError("--ncu needs Nsight Compute's command `ncu` on the PATH; it comes with the CUDA toolkit")
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "kernels.ncu-rep"
    command = [ncu, "--set", "full", "--target-processes", "all", "--force-overwrite", "--export", str(report)]
    command += [sys.executable, "-m", "spintok.benchmarks.kernels", *arguments, "--once"]
    found = subprocess.run(command, check=False)
    if found.returncode:
        raise ValueError(f"ncu failed with exit status {found.returncode}")
    return report
