"""Time, memory, caches and energy of the CPU and of a CUDA device."""

import ctypes
import gc
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["EVICTING", "Cpu", "Cuda", "Device", "device"]

EVICTING = 128 << 20
"""Bytes, more than last-level caches of today's desktop CPUs and of one chiplet of a server have."""


class Cpu:
    """The CPU: wall time, resident memory, a cache that a large buffer evicts."""

    name = "cpu"

    def __init__(self) -> None:
        self._other = torch.ones(EVICTING, dtype=torch.uint8)

    def seconds(self, call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def evict(self) -> None:
        """Fill the caches with other data by reading, so that no dirty lines are left."""
        self._other.max()

    def free(self) -> float:
        """Bytes of memory that can be allocated."""
        info = Path("/proc/meminfo")
        if not info.exists():
            return math.inf
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        return 1024.0 * int(lines["MemAvailable"].split()[0])

    def peak_mb(self, call: Callable[[], Any]) -> float | None:
        """Memory that a call takes at its peak beyond what was allocated before, its result included."""
        gc.collect()
        reset = Path("/proc/self/clear_refs")
        if not reset.exists():
            return None
        # Memory that malloc keeps from earlier calls would hide this one.
        if hasattr(ctypes.CDLL(None), "malloc_trim"):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            # Starts a new high-water mark.
            reset.write_text("5")
        except OSError:
            return None
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before) / 1e3

    def extras(self, call: Callable[[], Any]) -> dict[str, Any]:
        """Figures that only this kind of device has, as fields of `Row`."""
        return {}


class Cuda(Cpu):
    """The current CUDA device: events, graphs, the profiler, NVML."""

    name = "cuda"

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        self._other = torch.ones(4 * properties.L2_cache_size, dtype=torch.uint8, device="cuda")
        self._nvml = _nvml()

    def seconds(self, call: Callable[[], Any]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def free(self) -> float:
        return float(torch.cuda.mem_get_info()[0])

    def peak_mb(self, call: Callable[[], Any]) -> float | None:
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6

    def extras(self, call: Callable[[], Any]) -> dict[str, Any]:
        return self._host(call) | self._graphs(call) | self._kernels(call) | self._power(call)

    def _host(self, call: Callable[[], Any]) -> dict[str, Any]:
        """Time of the host for a call, while the device is busy and cannot make it wait."""
        times = []
        for _ in range(20):
            torch.cuda.synchronize()
            torch.cuda._sleep(2_000_000)
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        torch.cuda.synchronize()
        return {"host_us": 1e6 * statistics.median(times)}

    def _graphs(self, call: Callable[[], Any], repeats: int = 20) -> dict[str, Any]:
        """Time of a call in a CUDA graph of `repeats` calls; cold: less that of a graph that only evicts the cache."""

        def graph(*steps: Callable[[], Any]) -> float:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                for _ in range(repeats):
                    for step in steps:
                        step()
            captured.replay()
            return statistics.median(self.seconds(captured.replay) for _ in range(15)) / repeats

        try:
            return {
                "graph_ms": 1e3 * graph(call),
                "cold_graph_ms": 1e3 * (graph(self.evict, call) - graph(self.evict)),
            }
        except RuntimeError as error:
            # A provider that waits for the device cannot be captured.
            torch.cuda.synchronize()
            return {"note": f"no CUDA graph: {str(error).splitlines()[0]}"}

    def _kernels(self, call: Callable[[], Any]) -> dict[str, Any]:
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            call()
            torch.cuda.synchronize()
        events = [event for event in profile.key_averages() if event.device_time_total > 0]
        events.sort(key=lambda event: -event.device_time_total)
        kernels = "; ".join(f"{e.key[:60]} x{e.count} {e.device_time_total:.0f} us" for e in events[:5])
        return {"launches": sum(event.count for event in events), "kernels": kernels}

    def _power(self, call: Callable[[], Any], seconds: float = 1.0) -> dict[str, Any]:
        """Energy of a call, and the clock and the throttle reasons while it is repeated."""
        if self._nvml is None:
            return {}
        nvml, handle = self._nvml
        start, calls = time.perf_counter(), 0
        before = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        while time.perf_counter() - start < seconds:
            for _ in range(10):
                call()
            torch.cuda.synchronize()
            calls += 10
        joules = (nvml.nvmlDeviceGetTotalEnergyConsumption(handle) - before) / 1e3
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        harmless = nvml.nvmlClocksThrottleReasonGpuIdle | nvml.nvmlClocksThrottleReasonApplicationsClocksSetting
        return {
            "joules": joules / calls,
            "clock_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "throttled": f"{reasons & ~harmless:#x}" if reasons & ~harmless else "",
        }


Device = Cpu | Cuda


def device(name: str) -> Device:
    """Return the device of this name."""
    return Cuda() if name == "cuda" else Cpu()


def _status(name: str) -> int:
    """Return a number of /proc/self/status, in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def _nvml() -> tuple[Any, Any] | None:
    try:
        import pynvml
    except ImportError:
        return None
    pynvml.nvmlInit()
    return pynvml, pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
