"""Check every provider of a case, then time those that agree with the truth, in turns."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .devices import Device
from .harness import Agreement, Case, Provider, Row, Settings, SkipError
from .machine import Ceilings

__all__ = ["measure"]

LEAST_ROUNDS, MOST_ROUNDS = 5, 100


@dataclass
class _Contestant:
    provider: Provider
    call: Callable[[], Any]
    agreement: Agreement
    compile_s: float
    peak_mb: float | None
    warm: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)


def measure(case: Case, settings: Settings, device: Device, limits: Ceilings) -> Iterator[Row]:
    """Yield one row for each provider: its disagreement first, then, if that is tolerated, its times."""

    def row(provider: str, **values: Any) -> Row:
        return Row(case.op, case.mode, case.title, provider, **values)

    expected = min(limits.floor(case.flops, case.bytes, precision) for precision in limits.flops)
    if expected > settings.limit:
        yield row("all", note=f"skipped: {expected:.0f} s a call even at the ceiling")
        return
    if case.bytes > 0.6 * device.free():
        yield row("all", note=f"skipped: the inputs alone need {case.bytes / 1e9:.1f} GB")
        return
    contestants = []
    for provider in case.build():
        if not settings.wants(provider.name):
            continue
        try:
            contestant = _enter(provider, device)
        except SkipError as reason:
            yield row(provider.name, note=f"skipped: {reason}")
            continue
        if contestant.agreement.problem:
            yield row(
                provider.name,
                note=f"WRONG, not timed: {contestant.agreement.problem}",
                rows_wrong=contestant.agreement.wrong,
                rows_checked=contestant.agreement.rows,
                worst_error=contestant.agreement.worst,
            )
            continue
        contestants.append(contestant)
    _take_turns(contestants, device, settings.seconds)
    for contestant in contestants:
        with contestant.provider.context():
            extras = device.extras(contestant.call)
        ms = sorted(1e3 * seconds for seconds in contestant.warm)
        result = row(
            contestant.provider.name,
            rows_wrong=contestant.agreement.wrong,
            rows_checked=contestant.agreement.rows,
            worst_error=contestant.agreement.worst,
            calls=len(ms),
            ms=statistics.median(ms),
            ms_p20=ms[len(ms) // 5],
            ms_p80=ms[len(ms) * 4 // 5],
            cold_ms=1e3 * statistics.median(contestant.cold),
            compile_s=contestant.compile_s,
            peak_mb=contestant.peak_mb,
            **extras,
        )
        yield limits.rate(result, case.flops, case.bytes, contestant.provider.precision)


def _enter(provider: Provider, device: Device) -> _Contestant:
    free = device.free()
    if provider.bytes > 0.8 * free:
        raise SkipError(f"needs {provider.bytes / 1e9:.1f} GB of {free / 1e9:.1f} free")
    with provider.context():
        call = provider.setup()
        start = time.perf_counter()
        result = call()
        device.seconds(lambda: None)  # waits for a GPU
        first = time.perf_counter() - start
        agreement = provider.check(result)
        del result
        peak = None if agreement.problem else device.peak_mb(call)
        # The first call compiles; a later one does not.
        again = 0.0 if agreement.problem else device.seconds(call)
        return _Contestant(provider, call, agreement, max(0.0, first - again), peak)


def _take_turns(contestants: list[_Contestant], device: Device, seconds: float) -> None:
    started, rounds = time.perf_counter(), 0
    while contestants and rounds < MOST_ROUNDS:
        if rounds >= LEAST_ROUNDS and time.perf_counter() - started > seconds * len(contestants):
            return
        # Each round begins with another one: the one before leaves its mark on caches and clocks.
        for i in range(len(contestants)):
            contestant = contestants[(i + rounds) % len(contestants)]
            with contestant.provider.context():
                device.evict()
                contestant.cold.append(device.seconds(contestant.call))
                contestant.warm.append(device.seconds(contestant.call))
        rounds += 1
