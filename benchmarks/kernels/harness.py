"""What a kernel benchmark is made of: cases, providers, agreement with the truth, and results."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

__all__ = ["Agreement", "Case", "Op", "Provider", "Row", "Settings", "SkipError"]


@dataclass(frozen=True)
class Settings:
    """What to run. The shapes are all combinations of `n`, `k` and `d`.

    Attributes:
        device: "cpu" or "cuda".
        n, k, d: rows, codewords, dimensions.
        batch, samples: utterances and samples at 16 kHz, for the operations of perturbation.
        providers: run only providers whose name has one of these words; all if empty.
        seconds: time to measure each provider of a case.
        limit: skip cases of which one call takes longer at the ceiling, in seconds.
    """

    device: str
    n: tuple[int, ...] = (1500, 25_600, 200_000)
    k: tuple[int, ...] = (500,)
    d: tuple[int, ...] = (256,)
    batch: tuple[int, ...] = (24,)
    samples: tuple[int, ...] = (80_000,)
    providers: tuple[str, ...] = ()
    seconds: float = 2.0
    limit: float = 5.0

    def wants(self, provider: str) -> bool:
        return not self.providers or any(word in provider for word in self.providers)


class SkipError(Exception):
    """A provider cannot run here; the message says why."""


@dataclass(frozen=True)
class Agreement:
    """How a result compares with the truth.

    Attributes:
        wrong, rows: rows that differ from the truth, of all rows that were compared; None if results have no rows.
        worst: the largest error, in the unit of the operation.
        problem: "" if the error is tolerated, otherwise what is wrong; the provider is then not timed.
    """

    wrong: int | None = None
    rows: int | None = None
    worst: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Provider:
    """One way to compute a case.

    Attributes:
        name: shown in the results; those of this package begin with "spintok".
        setup: returns the function that is timed, or raises `SkipError`.
        check: compares its result with the truth.
        bytes: memory held at the peak, to skip what does not fit.
        context: entered around setup, check and calls: environment variables, switches of torch.
        precision: the precision of the products, for the roofline: "float32", "tf32" or "float16".
    """

    name: str
    setup: Callable[[], Callable[[], Any]]
    check: Callable[[Any], Agreement]
    bytes: float = 0
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    precision: str = "float32"


@dataclass(frozen=True)
class Case:
    """One problem: its shape, the arithmetic and memory traffic that no solution avoids, and the providers."""

    op: str
    mode: str
    shape: dict[str, int]
    flops: float
    bytes: float
    build: Callable[[], list[Provider]]

    @property
    def title(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.shape.items())


Op = Callable[[Settings], Iterator[Case]]


@dataclass(frozen=True)
class Row:
    """The result of one provider. Figures are None where nothing was measured; `note` says why.

    All times are of one call. `ms` is the median with warm caches; p20 and p80 are quantiles of the same calls.
    `cold_ms` is the median with caches that hold other data. `host_us` is the time of the host to start a call;
    `graph_ms` and `cold_graph_ms` are medians inside a CUDA graph, so without the host. Rates and the share of the
    roofline are made from `graph_ms` where there is one, otherwise from `ms`.
    """

    op: str
    mode: str
    shape: str
    provider: str
    note: str = ""
    rows_wrong: int | None = None
    rows_checked: int | None = None
    worst_error: float | None = None
    calls: int | None = None
    ms: float | None = None
    ms_p20: float | None = None
    ms_p80: float | None = None
    cold_ms: float | None = None
    graph_ms: float | None = None
    cold_graph_ms: float | None = None
    host_us: float | None = None
    launches: int | None = None
    kernels: str = ""
    compile_s: float | None = None
    peak_mb: float | None = None
    tflops: float | None = None
    gb_s: float | None = None
    flops_a_byte: float | None = None
    bound: str = ""
    percent_of_roofline: float | None = None
    joules: float | None = None
    clock_mhz: int | None = None
    throttled: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Identifies the same measurement in another run."""
        return self.op, self.mode, self.shape, self.provider
