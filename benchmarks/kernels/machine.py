"""The machine of a measurement and the ceilings of its arithmetic and memory."""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .devices import Device
from .harness import Row
from .switches import matmul_precision

__all__ = ["Ceilings", "Machine", "ceilings", "machine"]


@dataclass(frozen=True)
class Ceilings:
    """What this machine reaches: operations a second of a product, by precision, and bytes a second of a copy."""

    flops: dict[str, float] = field(default_factory=dict)
    bytes: float = 0.0

    def best(self, other: "Ceilings") -> "Ceilings":
        """Return the higher of each ceiling: on a shared machine one measurement may be far too low."""
        return Ceilings(
            {name: max(value, other.flops[name]) for name, value in self.flops.items()}, max(self.bytes, other.bytes)
        )

    def floor(self, flops: float, bytes: float, precision: str) -> float:
        """Return the least seconds for so many operations and bytes."""
        return max(flops / self.flops[precision], bytes / self.bytes)

    def rate(self, row: Row, flops: float, bytes: float, precision: str) -> Row:
        """Return the row with its rates and its share of the roofline, made from the median."""
        if row.ms is None:
            return row
        seconds = 1e-3 * (row.graph_ms or row.ms)
        return replace(
            row,
            tflops=flops / seconds / 1e12,
            gb_s=bytes / seconds / 1e9,
            flops_a_byte=flops / bytes,
            bound="compute" if flops / self.flops[precision] > bytes / self.bytes else "memory",
            percent_of_roofline=100 * self.floor(flops, bytes, precision) / seconds,
        )


@dataclass(frozen=True)
class Machine:
    """Everything that a reader needs to know where a figure comes from."""

    device: str
    threads: int
    python: str
    torch: str
    triton: str
    driver: str
    commit: str
    date: str


def machine(name: str) -> Machine:
    """Describe this machine and this commit."""
    return Machine(
        device=torch.cuda.get_device_name() if name == "cuda" else _cpu_name(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        triton=_version("triton"),
        driver=_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if name == "cuda" else "",
        commit=_commit(),
        date=time.strftime("%Y-%m-%d"),
    )


def ceilings(device: Device) -> Ceilings:
    """Measure the ceilings on random data: medians of a few calls."""
    cuda = device.name == "cuda"

    def fastest(call: Callable[[], Any]) -> float:
        call()
        return statistics.median(device.seconds(call) for _ in range(7))

    size = 8192 if cuda else 1536
    a = torch.randn(size, size, device=device.name)
    flops = {}
    for precision, setting in (("float32", "highest"), ("tf32", "high")) if cuda else (("float32", "highest"),):
        with matmul_precision(setting):
            flops[precision] = 2 * size**3 / fastest(lambda: torch.mm(a, a))
    if cuda:
        half = a.half()
        flops["float16"] = 2 * size**3 / fastest(lambda: torch.mm(half, half))
    source = torch.randint(256, ((4 << 30) if cuda else (96 << 20),), dtype=torch.uint8, device=device.name)
    target = torch.empty_like(source)
    return Ceilings(flops, 2 * len(source) / fastest(lambda: target.copy_(source)))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _output(*command: str) -> str:
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()


def _commit() -> str:
    changed = "+changes" if _output("git", "status", "--porcelain", "--untracked-files=no") else ""
    return (_output("git", "rev-parse", "--short", "HEAD") or "unknown") + changed


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
