"""Jobs in forked processes, which have everything imported that this one has: a start costs nothing."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

import pytest
import torch

__all__ = ["FAILED", "ended", "fork", "fork_commands", "start"]

FAILED = 250
"""The exit status of a forked job that raised an exception."""


def fork(job: Callable[[], int | None]) -> int:
    """Run ``job`` in a forked process, which ends with its result; the process id."""
    with warnings.catch_warnings():
        # That other threads run, such as pytest-xdist's; the job uses none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = FAILED
        # A forked torch makes its thread pool anew at the first call, which must not come from several threads.
        torch.set_num_threads(1)
        try:
            status = job() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def ended(child: int) -> int:
    """Wait for a process: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start(outputs: Path, *arguments: object, environment: Mapping[str, str] | None = None) -> int:
    """Run ``spintok ARGUMENTS`` in a forked process of its own group; the process id.

    Its standard output and error go to files of these names in the folder ``outputs``.
    """
    from spintok import cli

    def job() -> int:
        os.setsid()
        os.environ.update(environment or {})
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(outputs / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), descriptor)
            setattr(sys, name, os.fdopen(descriptor, "w"))
        sys.argv = ["spintok", *map(str, arguments)]
        # Not errors, as in pytest.
        warnings.simplefilter("default")
        try:
            cli.main()
        except SystemExit as ended:
            sys.stdout.flush()
            sys.stderr.flush()
            return int(ended.code or 0)
        return FAILED

    outputs.mkdir(parents=True, exist_ok=True)
    return fork(job)


class _Worker:
    """A command of ``spintok verify`` in a forked process, with what it uses of ``subprocess.Popen``."""

    def __init__(self, command: Sequence[str], outputs: Path) -> None:
        self._errors = outputs / "stderr"
        self._child = start(outputs, *command[command.index("spintok") + 1 :])
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            child, status = os.waitpid(self._child, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if child else None
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self._child, signal.SIGKILL)

    def communicate(self) -> tuple[str, str]:
        if self.returncode is None:
            self.returncode = ended(self._child)
        return "", self._errors.read_text()


def fork_commands(patch: pytest.MonkeyPatch, outputs: Path) -> None:
    """Let ``spintok verify`` fork its workers from this process; their outputs go to folders in ``outputs``."""
    number = count()
    patch.setattr("spintok.corpus.verify._start", lambda command: _Worker(command, outputs / f"worker-{next(number)}"))
