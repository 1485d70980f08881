"""What all tests share."""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from s3_server import S3Server

# A shell without job control starts background commands with SIGINT ignored, and their children inherit that: the tests
# of Ctrl-C need the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


MEMORY = Path("/dev/shm")
"""Linux's file system in memory; containers often have too little of it, or run no programs there."""

if (
    "TMPDIR" not in os.environ
    and os.access(MEMORY, os.W_OK)
    and shutil.disk_usage(MEMORY).free > 2 << 30
    and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
):
    # Tests flush thousands of small files, for which a disk takes minutes. Commands that they start follow.
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        # This process only hands tests out, and would import all this for seconds before the others start.
        return
    import torch
    from hypothesis import HealthCheck, settings

    # The tests' problems are small: a second thread only waits, and on a loaded machine it makes them 20 times slower.
    torch.set_num_threads(1)
    # No test may fail because the machine is busy.
    settings.register_profile("spintok", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("spintok")


def pytest_collection_finish() -> None:
    """Leave what was imported so far out of garbage collections, each of which would take a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _signal_handlers() -> None:
    """Python's own handlers: a command that ran in this process leaves the system's, with which Ctrl-C would end it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session")
def speech() -> Path:
    """A folder of synthesised speech: six short FLACs, six voices."""
    return Path(__file__).parent / "speech"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> "Iterator[S3Server]":
    """An S3 server on this machine, to which ``s3://`` addresses lead."""
    from s3_server import connected_s3_server

    with connected_s3_server(monkeypatch) as running:
        yield running
