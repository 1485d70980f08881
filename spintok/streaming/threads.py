"""One thread for each step on a CPU, so that its rounding does not depend on how many there are.

It is also fastest: the products of a chunk are too small to divide, and a pool gives each thread a session of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

__all__ = ["one_thread"]


class _Threads:
    """Torch's number of threads. MKL's is global to the process, so the last block to leave restores it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.blocks = 0
        self.before = 1

    def enter(self) -> None:
        with self.lock:
            if self.blocks == 0:
                self.before = torch.get_num_threads()
            if torch.get_num_threads() != 1:
                torch.set_num_threads(1)
            self.blocks += 1

    def leave(self) -> None:
        with self.lock:
            self.blocks -= 1
            if self.blocks == 0 and self.before != 1:
                torch.set_num_threads(self.before)


_THREADS = _Threads()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread. Other threads do so too while a block runs."""
    _THREADS.enter()
    try:
        yield
    finally:
        _THREADS.leave()
