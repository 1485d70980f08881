"""Leases: which of many workers does which unit of work, while workers join, stop and die.

A lease is a small file that its holder makes grow a byte at a time. Its name has the number of the unit and a
generation: whoever takes the unit over makes the next generation, and ``create`` lets one succeed. A worker judges
others by changes that it sees itself, in time that passes on its own clock, so no two clocks are ever compared:

* a unit without a lease is free;
* a lease that did not change for ``seconds`` has a dead holder, and the unit is taken over;
* when nothing is free, a unit whose holder lives but takes far longer than units do is done a second time. How long it
  has taken, its growth tells whoever looks for the first time.

Nothing depends on a lease being exclusive: a unit that is done twice gives the same bytes. Time between two looks
counts up to a limit, so a clock that jumps, or a worker that was suspended, does not take everybody for dead.
"""

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Protocol

__all__ = ["FOLDER", "Lease", "LeaseStore", "Leases"]

FOLDER = ".work/leases"
BEATS = 6
"""How often a holder shows in ``seconds`` that it lives."""
LOOKS = 4
"""The smallest number of looks in which a holder can be found dead."""
SLOW = 1.5
"""A unit is done a second time when it takes so many times the median of this worker's units."""
_MISSES = 16
"""Units found leased in a row after which the list of free units is too old."""
_FIRST_SIZE = 64
"""Bytes of a lease that was taken just now."""
_FIRST_PAUSE = 0.1
_PATIENCE = 50
"""An idle worker looks at most so often while a unit is done: thousands of them share one store."""


class LeaseStore(Protocol):
    """The operations of ``spintok.corpus.cluster.store.Store`` that leases need."""

    def create(self, name: str, data: bytes) -> bool: ...
    def grow(self, name: str, size: int) -> bool: ...
    def sizes(self, folder: str) -> dict[str, int]: ...
    def delete(self, *names: str) -> None: ...


@dataclass
class Lease:
    """A unit of work that this worker holds.

    Attributes:
        unit: its number.
        generation: the generation of the lease.
        size: the size of its file.
        taken: when it was taken, on the worker's clock.
    """

    unit: int
    generation: int
    size: int
    taken: float


@dataclass
class _Seen:
    """What a worker knows of another's lease: how old it is, and for how long it did not change, in seconds."""

    generation: int
    size: int
    age: float = 0.0
    silent: float = 0.0


class Leases:
    """The view of one worker.

    Args:
        store: where the leases are.
        count: the number of units.
        worker: a name that no other worker has.
        finished: lists the units that are finished, by whomever.
        is_finished: whether one unit is.
        seconds: a holder that is silent for so long is dead.
        first: units to take before all others.
        kind: the beginning of the leases' names.
        clock: seconds from any start.
    """

    def __init__(
        self,
        store: LeaseStore,
        count: int,
        worker: str,
        finished: Callable[[], Iterable[int]],
        is_finished: Callable[[int], bool],
        *,
        seconds: float,
        first: Iterable[int] = (),
        kind: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._worker = worker
        self._list_finished = finished
        self._is_finished = is_finished
        self._seconds = seconds
        self._kind = kind
        self._clock = clock
        self._name = re.compile(rf"{re.escape(kind)}(\d+)\.(\d+)")
        # Workers begin at different places, or all would try for the same unit.
        start = int.from_bytes(hashlib.sha256(worker.encode()).digest()[:8], "big") % max(count, 1)
        early = dict.fromkeys(first)
        rest = [*range(start, count), *range(start)]
        self._count = count
        self._order = [*early, *(unit for unit in rest if unit not in early)] if early else rest
        self._free: Iterator[int] = iter(())
        self._seen: dict[int, _Seen] = {}
        self._looked: float | None = None
        self._durations: deque[float] = deque(maxlen=31)
        self._pause = 0.0
        self.finished: set[int] = set()
        self.changed = False

    @property
    def done(self) -> bool:
        """Whether all units were finished at the last look."""
        return len(self.finished) >= self._count

    def take(self) -> Lease | None:
        """A unit to do now; None when there is nothing to do but to wait and ask again, or when all is ``done``."""
        lease = self._take_free()
        if lease is None:
            self._look()
            lease = self._take_free() or self._take_over()
        if lease is not None:
            self._pause = 0.0
        return lease

    def pause(self) -> float:
        """Seconds to wait before the next ``take`` when the last one found nothing."""
        longest = self._seconds / 8
        first = min(max(_FIRST_PAUSE, self._usual / _PATIENCE), longest)
        self._pause = first if self.changed else min(max(2 * self._pause, first), longest)
        return self._pause

    @property
    def _usual(self) -> float:
        """Seconds that a unit takes this worker; 0 before the first."""
        return median(self._durations) if self._durations else 0.0

    def beat(self, lease: Lease) -> bool:
        """Show that this worker lives; False when its unit is finished, and there is no more to do."""
        if self._is_finished(lease.unit):
            return False
        lease.size += 1
        return self._store.grow(self._path(lease.unit, lease.generation), lease.size)

    def release(self, lease: Lease, *, finished: bool) -> None:
        """Give a unit back, which the worker has finished or not."""
        names = [self._path(lease.unit, lease.generation)]
        if finished:
            self._durations.append(self._clock() - lease.taken)
            self.finished.add(lease.unit)
            # Those of dead holders too.
            names += [self._path(lease.unit, generation) for generation in range(1, lease.generation)]
        self._store.delete(*names)

    def _take_free(self) -> Lease | None:
        misses = 0
        while misses < _MISSES and (unit := next(self._free, None)) is not None:
            if unit not in self.finished and (lease := self._create(unit, 1)):
                return lease
            misses += 1
        self._free = iter(())
        return None

    def _take_over(self) -> Lease | None:
        slow = max(SLOW * self._usual, self._seconds) if self._durations else 10 * self._seconds
        silent = [unit for unit, seen in self._seen.items() if seen.silent >= self._seconds]
        slowest = sorted(
            (unit for unit, seen in self._seen.items() if seen.age >= slow and unit not in silent),
            key=lambda unit: -self._seen[unit].age,
        )
        for unit in [*silent, *slowest]:
            if lease := self._create(unit, self._seen[unit].generation + 1):
                return lease
        return None

    def _create(self, unit: int, generation: int) -> Lease | None:
        # The end of the name is what no other has.
        data = self._worker.encode()[-_FIRST_SIZE:].ljust(_FIRST_SIZE)
        if not self._store.create(self._path(unit, generation), data):
            return None
        lease = Lease(unit, generation, len(data), self._clock())
        if self._is_finished(unit):
            # Finished after it was listed, with its lease deleted.
            self.release(lease, finished=False)
            self.finished.add(unit)
            return None
        return lease

    def _look(self) -> None:
        """See which units are finished, leased and free, and which leases have changed since the last look."""
        now = self._clock()
        passed = 0.0 if self._looked is None else min(max(now - self._looked, 0.0), self._seconds / LOOKS)
        self._looked = now
        before = len(self.finished)
        # Leases first: a unit whose lease is deleted between the two lists is finished in the second.
        newest: dict[int, tuple[int, int]] = {}
        for name, size in self._store.sizes(FOLDER).items():
            if (found := self._name.fullmatch(name)) is not None:
                unit, generation = int(found[1]), int(found[2])
                newest[unit] = max(newest.get(unit, (0, 0)), (generation, size))
        self.finished.update(self._list_finished())
        self.changed = len(self.finished) > before
        seen, self._seen = self._seen, {}
        for unit, (generation, size) in newest.items():
            if unit in self.finished:
                continue
            last = seen.get(unit)
            age = (size - _FIRST_SIZE) * self._seconds / BEATS
            silent = 0.0
            if last is not None and last.generation == generation:
                age = max(age, last.age + passed)
                silent = last.silent + passed if size == last.size else 0.0
            self._seen[unit] = _Seen(generation, size, age, silent)
        # What is finished stays so. The list gets shorter, but not at every look: it may be long.
        if len(self._order) > 2 * (self._count - len(self.finished)):
            self._order = [unit for unit in self._order if unit not in self.finished]
        self._free = (unit for unit in self._order if unit not in newest and unit not in self.finished)

    def _path(self, unit: int, generation: int) -> str:
        return f"{FOLDER}/{self._kind}{unit:05d}.{generation}"
