"""Run the command line in this process."""

import signal
import sys

import pytest

from spintok import cli


def call(*arguments):
    """Run ``spintok ARGUMENTS`` and return the exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["spintok", *map(str, arguments)])
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return ended.value.code


def run(capsys, *arguments):
    """Run ``spintok ARGUMENTS`` and return the exit code, standard output and standard error."""
    code = call(*arguments)
    out, err = capsys.readouterr()
    return code, out, err
