"""Leases: who may take a unit, and when; on clocks that the tests turn."""

import pytest

from spintok.corpus.cluster.leases import BEATS, SLOW, Leases
from tests.corpus.cluster.memory_store import MemoryStore

SECONDS = 60.0


class Worker:
    """A worker with a clock of its own."""

    def __init__(self, store: MemoryStore, name: str, done: set[int], count: int = 4, now: float = 0.0) -> None:
        self.now = now
        self.done = done
        self.leases = Leases(
            store, count, name, lambda: set(done), done.__contains__, seconds=SECONDS, clock=lambda: self.now
        )

    def finish(self, lease) -> None:
        self.done.add(lease.unit)
        self.leases.release(lease, finished=True)

    def wait(self, seconds: float, step: float = SECONDS / 8):
        """Look again and again while the clock moves on; what is taken."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            if (lease := self.leases.take()) is not None:
                return lease
        return None


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_units_are_held_by_one_worker_and_done_by_all(store: MemoryStore) -> None:
    done: set[int] = set()
    workers = [Worker(store, name, done, count=5) for name in "ab"]
    units = []
    while not all(worker.leases.done for worker in workers):
        held = [worker.leases.take() for worker in workers]
        units += [lease.unit for lease in held if lease]
        for worker, lease in zip(workers, held, strict=True):
            if lease:
                worker.finish(lease)
    assert sorted(units) == [0, 1, 2, 3, 4]
    assert store.files == {}


def test_a_silent_holder_is_replaced_and_a_living_one_is_not(store: MemoryStore) -> None:
    done: set[int] = set()
    a, b = Worker(store, "a", done, count=1), Worker(store, "b", done, count=1)
    held = a.leases.take()
    assert held is not None
    for _ in range(20):
        assert a.leases.beat(held)
        assert b.wait(SECONDS / 4) is None
    assert b.wait(SECONDS / 2) is None
    taken = b.wait(SECONDS)
    assert taken is not None
    assert (taken.unit, taken.generation) == (held.unit, held.generation + 1)
    # The first holder was only suspended: both go on, and either may finish.
    assert a.leases.beat(held)
    a.finish(held)
    assert not b.leases.beat(taken)


def test_only_one_worker_replaces_a_dead_one(store: MemoryStore) -> None:
    done: set[int] = set()
    Worker(store, "dead", done, count=1).leases.take()
    others = [Worker(store, name, done, count=1) for name in "abc"]
    taken = []
    for _ in range(12):
        for other in others:
            other.now += SECONDS / 8
            if (lease := other.leases.take()) is not None:
                taken.append(lease)
    assert [lease.generation for lease in taken] == [2]


@pytest.mark.parametrize("jump", [1e9, -1e9])
def test_a_clock_that_jumps_takes_nobody_for_dead(store: MemoryStore, jump: float) -> None:
    done: set[int] = set()
    a, b = Worker(store, "a", done, count=1), Worker(store, "b", done, count=1, now=1e12)
    held = a.leases.take()
    assert b.wait(SECONDS / 4) is None
    b.now += jump
    assert b.leases.take() is None
    a.leases.beat(held)
    assert b.leases.take() is None
    assert b.wait(2 * SECONDS) is not None


def test_a_straggler_is_done_a_second_time_when_nothing_else_is_left(store: MemoryStore) -> None:
    done: set[int] = set()
    slow, fast = Worker(store, "slow", done), Worker(store, "fast", done)
    held = slow.leases.take()
    for _ in range(3):
        lease = fast.leases.take()
        assert lease is not None
        fast.now += 100.0
        fast.finish(lease)
    waited = 0.0
    second = None
    while second is None:
        slow.leases.beat(held)
        second = fast.wait(SECONDS / BEATS, SECONDS / BEATS)
        waited += SECONDS / BEATS
    assert second.unit == held.unit
    # The gap before the first of these looks counts for at most a quarter of SECONDS.
    assert SLOW * 100 - SECONDS / 4 <= waited <= SLOW * 100 + SECONDS / BEATS
    fast.finish(second)
    # Nothing is left for the slow one, nor for anybody else.
    assert not slow.leases.beat(held)
    assert fast.leases.take() is None
    assert fast.leases.done


def test_how_long_a_unit_has_taken_is_known_at_the_first_look(store: MemoryStore) -> None:
    done: set[int] = set()
    slow, fast = Worker(store, "slow", done, count=2), Worker(store, "fast", done, count=2)
    held, lease = slow.leases.take(), fast.leases.take()
    fast.now += 100.0
    fast.finish(lease)
    for _ in range(int(SLOW * 100 / SECONDS * BEATS)):
        assert fast.leases.take() is None
        slow.leases.beat(held)
    second = fast.leases.take()
    assert (second.unit, second.generation) == (held.unit, 2)


def test_many_idle_workers_do_not_look_all_the_time(store: MemoryStore) -> None:
    done: set[int] = set()
    busy, idle = Worker(store, "busy", done, count=2), Worker(store, "idle", done, count=2)
    busy.leases.take()
    lease = idle.leases.take()
    idle.now += 100.0
    idle.finish(lease)
    pauses = []
    for _ in range(4):
        assert idle.leases.take() is None
        pauses.append(idle.leases.pause())
    # A fiftieth of a unit at first, and at last an eighth of the time after which a holder is dead.
    assert pauses == [2.0, 4.0, SECONDS / 8, SECONDS / 8]


def test_what_is_given_back_is_free_at_once(store: MemoryStore) -> None:
    done: set[int] = set()
    a, b = Worker(store, "a", done, count=1), Worker(store, "b", done, count=1)
    held = a.leases.take()
    assert b.leases.take() is None
    a.leases.release(held, finished=False)
    assert b.leases.take() is not None


def test_a_unit_that_was_finished_after_the_list_was_read_is_not_done_again(store: MemoryStore) -> None:
    done: set[int] = set()
    a, b = Worker(store, "a", done, count=2), Worker(store, "b", done, count=2)
    first = b.leases.take()
    b.finish(first)
    # b has listed the other unit as free; a does it meanwhile.
    other = a.leases.take()
    assert other is not None
    a.finish(other)
    assert b.leases.take() is None
    assert store.files == {}
