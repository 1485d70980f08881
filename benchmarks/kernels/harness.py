"""What every kernel benchmark shares: ceilings, agreement, interleaved time, peak memory."""

import ctypes
import gc
import math
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "Case",
    "Ceilings",
    "Machine",
    "Provider",
    "Row",
    "Settings",
    "SkipError",
    "ceilings",
    "machine",
    "measure",
]


@dataclass(frozen=True)
class Settings:
    """What to run: the shapes are crossed. A provider gets `seconds` a case; a call takes at most `limit`."""

    device: str
    n: tuple[int, ...]
    k: tuple[int, ...]
    d: tuple[int, ...]
    providers: tuple[str, ...] = ()
    seconds: float = 2.0
    limit: float = 5.0


class SkipError(Exception):
    """A provider cannot run here; the message says why."""


@dataclass(frozen=True)
class Provider:
    """One way to compute a case.

    `setup` returns the function that is timed, or raises `SkipError`. `check` looks at what it returns: "" if
    that agrees with the truth, else what is wrong. `bytes` are held at the peak, to skip what does not fit.
    """

    name: str
    setup: Callable[[], Callable[[], Any]]
    check: Callable[[Any], str]
    bytes: float
    # Entered around setup, check and every call: environment variables, torch's switches.
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Case:
    """One problem: the arithmetic and the traffic nobody can avoid, and who solves it."""

    op: str
    mode: str
    shape: dict[str, int]
    flops: float
    bytes: float
    build: Callable[[], list[Provider]]


@dataclass(frozen=True)
class Ceilings:
    """What this machine reached, a second: operations of a product, bytes read and written by a copy."""

    matmul_dtype: str
    flops: float
    bytes: float

    def best(self, other: "Ceilings") -> "Ceilings":
        return Ceilings(self.matmul_dtype, max(self.flops, other.flops), max(self.bytes, other.bytes))

    def rate(self, row: "Row") -> "Row":
        """The row with its percentage of the nearer ceiling."""
        if row.tflops is None or row.gb_s is None:
            return row
        share = max(1e12 * row.tflops / self.flops, 1e9 * row.gb_s / self.bytes)
        return replace(row, percent_of_ceiling=100 * share)


@dataclass(frozen=True)
class Machine:
    device: str
    threads: int
    python: str
    torch: str
    triton: str
    commit: str
    date: str


@dataclass(frozen=True)
class Row:
    """One provider's result; figures are None where it was not measured, and `note` says why."""

    op: str
    mode: str
    shape: str
    provider: str
    note: str = ""
    calls: int | None = None
    ms_min: float | None = None
    ms_p20: float | None = None
    ms_p50: float | None = None
    ms_p80: float | None = None
    peak_mb: float | None = None
    tflops: float | None = None
    gb_s: float | None = None
    percent_of_ceiling: float | None = None


@dataclass
class _Contestant:
    provider: Provider
    call: Callable[[], Any]
    peak: float | None
    times: list[float] = field(default_factory=list)


def machine(device: str) -> Machine:
    """Everything a reader needs to know what a figure belongs to."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        name = _cpu_name()
    try:
        from importlib.metadata import version

        triton = version("triton")
    except ImportError:
        triton = "none"
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        found = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return found.stdout.strip()

    changed = "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return Machine(
        device=name,
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        triton=triton,
        commit=(git("rev-parse", "--short", "HEAD") or "unknown") + changed,
        date=time.strftime("%Y-%m-%d"),
    )


def ceilings(device: str) -> Ceilings:
    """Best of a few calls each. float16 with float32 accumulation on a GPU, float32 on a CPU."""
    size, dtype = (8192, torch.float16) if device == "cuda" else (2048, torch.float32)
    a = torch.randn(size, size, device=device).to(dtype)
    product = torch.empty_like(a)
    source = torch.zeros((4 << 30) if device == "cuda" else (128 << 20), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    multiply = min(_once(lambda: torch.mm(a, a, out=product), device) for _ in range(8))
    copy = min(_once(lambda: target.copy_(source), device) for _ in range(8))
    return Ceilings(str(dtype).removeprefix("torch."), 2 * size**3 / multiply, 2 * len(source) / copy)


def measure(case: Case, settings: Settings, limits: Ceilings) -> Iterator[Row]:
    """Check every provider, then time those that agree, in turns."""
    shape = " ".join(f"{name}={value}" for name, value in case.shape.items())

    def row(provider: str, **values: Any) -> Row:
        return Row(case.op, case.mode, shape, provider, **values)

    expected = max(case.flops / limits.flops, case.bytes / limits.bytes)
    if expected > settings.limit:
        yield row("all", note=f"skipped: {expected:.0f} s a call even at the ceiling")
        return
    if case.bytes > 0.6 * _free(settings.device):
        yield row("all", note=f"skipped: the inputs alone need {case.bytes / 1e9:.1f} GB")
        return
    contestants = []
    for provider in case.build():
        if settings.providers and not any(word in provider.name for word in settings.providers):
            continue
        try:
            contestants.append(_enter(provider, settings.device))
        except SkipError as reason:
            yield row(provider.name, note=f"skipped: {reason}")
        except _WrongError as reason:
            yield row(provider.name, note=f"WRONG, not timed: {reason}")
    if not contestants:
        return
    flush = torch.empty(64 << 20, dtype=torch.int32, device="cuda") if settings.device == "cuda" else None
    started, rounds = time.perf_counter(), 0
    while rounds < 3 or (rounds < 100 and time.perf_counter() - started < settings.seconds * len(contestants)):
        # Another one first in each round: what ran before leaves its mark on caches and clocks.
        for i in range(len(contestants)):
            contestant = contestants[(i + rounds) % len(contestants)]
            if flush is not None:
                flush.zero_()
            with contestant.provider.context():
                contestant.times.append(_once(contestant.call, settings.device))
        rounds += 1
    for contestant in contestants:
        times = sorted(contestant.times)
        seconds = times[len(times) // 2] if settings.device == "cuda" else times[0]
        yield row(
            contestant.provider.name,
            calls=len(times),
            ms_min=1e3 * times[0],
            ms_p20=1e3 * times[len(times) // 5],
            ms_p50=1e3 * times[len(times) // 2],
            ms_p80=1e3 * times[len(times) * 4 // 5],
            peak_mb=contestant.peak,
            tflops=case.flops / seconds / 1e12,
            gb_s=case.bytes / seconds / 1e9,
        )


class _WrongError(Exception):
    pass


def _enter(provider: Provider, device: str) -> _Contestant:
    free = _free(device)
    if provider.bytes > 0.8 * free:
        raise SkipError(f"needs {provider.bytes / 1e9:.1f} GB of {free / 1e9:.1f} free")
    with provider.context():
        call = provider.setup()
        if wrong := provider.check(call()):
            raise _WrongError(wrong)
        return _Contestant(provider, call, _peak_mb(call, device))


def _once(call: Callable[[], Any], device: str) -> float:
    """Seconds of one call."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _peak_mb(call: Callable[[], Any], device: str) -> float | None:
    """Memory a call takes beyond what was there before it, its result included."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    # What malloc keeps from earlier calls would hide this one.
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        # Makes the kernel start a new high-water mark.
        reset.write_text("5")
    except OSError:
        return None
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before) / 1e3


def _status(name: str) -> int:
    """A line of /proc/self/status, kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def _free(device: str) -> float:
    """Bytes that can be had."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    info = Path("/proc/meminfo")
    if not info.exists():
        return math.inf
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
    return 1024.0 * int(lines["MemAvailable"].split()[0])


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
