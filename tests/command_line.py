"""Run the command line in this process."""

import signal
import sys

import pytest

from spintok import cli


def run(capsys, *arguments):
    """Run ``spintok ARGUMENTS`` and return the exit code, standard output and standard error."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["spintok", *map(str, arguments)])
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    out, err = capsys.readouterr()
    return ended.value.code, out, err
