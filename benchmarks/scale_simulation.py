"""Many workers on a simulated clock, with the real lease rules: they die, are replaced, and some are slow."""

import heapq
import random
from dataclasses import dataclass
from itertools import count

from spintok.corpus.cluster.leases import BEATS, Lease, Leases

__all__ = ["Cluster", "Outcome", "simulate"]


@dataclass(frozen=True)
class Cluster:
    """What is simulated. Times are in seconds.

    Attributes:
        workers: how many run at a time.
        shards: how many there are.
        shard_seconds: the mean time of a shard on a usual worker; shards vary by ``spread``.
        spread: standard deviation of a shard's time over its mean.
        between_failures: mean time between two failures of a worker; what it did of its shard is lost.
        replaced_after: time until a dead worker's successor begins.
        slow_share: share of workers that take ``slow_factor`` times as long.
        slow_factor: see there.
        lease_seconds: the duration of a lease.
        joining: the workers begin at random moments within this time.
        seed: seeds all random draws.
    """

    workers: int = 1000
    shards: int = 50_000
    shard_seconds: float = 720.0
    spread: float = 0.2
    between_failures: float = 48 * 3600.0
    replaced_after: float = 300.0
    slow_share: float = 0.02
    slow_factor: float = 4.0
    lease_seconds: float = 120.0
    joining: float = 600.0
    seed: int = 0


@dataclass
class Outcome:
    """What a simulation did.

    Attributes:
        seconds: from the first worker's start to the last shard.
        ideal: the time that the same workers need when none fails, waits or does a shard twice.
        failures: workers that died.
        taken_over: leases of dead holders, or of slow ones, that another worker took.
        twice: shards that were encoded to the end more than once.
        looks: lists of the leases that were read.
    """

    seconds: float = 0.0
    ideal: float = 0.0
    failures: int = 0
    taken_over: int = 0
    twice: int = 0
    looks: int = 0

    @property
    def efficiency(self) -> float:
        """The ideal time over the time."""
        return self.ideal / self.seconds


class _Store:
    """Leases in memory, which grow while their holders live, and the finished shards."""

    def __init__(self, beat: float) -> None:
        self.beat = beat
        self.now = 0.0
        self.looks = 0
        # How large each lease was at first, when it was taken, and when its holder dies.
        self.held: dict[str, tuple[int, float, float]] = {}
        self.dies = float("inf")
        self.finished: set[int] = set()
        self.ended: list[int] = []

    def finish(self, unit: int) -> None:
        if unit not in self.finished:
            self.finished.add(unit)
            self.ended.append(unit)

    def create(self, name: str, data: bytes) -> bool:
        if name in self.held:
            return False
        self.held[name] = len(data), self.now, self.dies
        return True

    def grow(self, name: str, size: int) -> bool:
        raise NotImplementedError("leases grow by themselves here")

    def sizes(self, folder: str) -> dict[str, int]:
        self.looks += 1
        start = len(folder) + 1
        return {
            name[start:]: size + int((min(self.now, dies) - taken) / self.beat)
            for name, (size, taken, dies) in self.held.items()
        }

    def delete(self, *names: str) -> None:
        for name in names:
            self.held.pop(name, None)


class _Worker:
    def __init__(self, store: _Store, cluster: Cluster, name: str, speed: float, dies: float) -> None:
        self.speed, self.dies = speed, dies
        self.lease: Lease | None = None
        self.store, self.known = store, 0
        self.leases = Leases(
            store,
            cluster.shards,
            name,
            self._list_finished,
            store.finished.__contains__,
            seconds=cluster.lease_seconds,
            clock=lambda: store.now,
        )

    def _list_finished(self) -> list[int]:
        """Only what is new, as leases keep what they know: a list of all would take most of the time here."""
        new = self.store.ended[self.known :]
        self.known += len(new)
        return new


def simulate(cluster: Cluster) -> Outcome:
    """Run a cluster until its last shard is finished."""
    rng = random.Random(cluster.seed)
    times = [max(rng.gauss(1.0, cluster.spread), 0.1) * cluster.shard_seconds for _ in range(cluster.shards)]
    store = _Store(cluster.lease_seconds / BEATS)
    outcome = Outcome()
    names, order = count(), count()
    events: list[tuple[float, int, _Worker]] = []
    rate = 0.0

    def join(at: float, speed: float) -> None:
        dies = at + rng.expovariate(1 / cluster.between_failures)
        worker = _Worker(store, cluster, f"worker-{next(names)}", speed, dies)
        heapq.heappush(events, (at, next(order), worker))

    for _ in range(cluster.workers):
        speed = 1 / cluster.slow_factor if rng.random() < cluster.slow_share else 1.0
        rate += speed
        join(rng.uniform(0.0, cluster.joining), speed)
    outcome.ideal = sum(times) / rate
    while len(store.finished) < cluster.shards:
        store.now, _, worker = heapq.heappop(events)
        if store.now >= worker.dies:
            outcome.failures += 1
            join(store.now + cluster.replaced_after, worker.speed)
            continue
        if worker.lease is not None:
            outcome.twice += worker.lease.unit in store.finished
            store.finish(worker.lease.unit)
            worker.leases.release(worker.lease, finished=True)
            worker.lease = None
        store.dies = worker.dies
        lease = worker.leases.take()
        if lease is not None:
            outcome.taken_over += lease.generation > 1
            worker.lease = lease
            after = times[lease.unit] / worker.speed
        else:
            after = worker.leases.pause()
        heapq.heappush(events, (min(store.now + after, worker.dies), next(order), worker))
    outcome.seconds, outcome.looks = store.now, store.looks
    return outcome
