"""Real signals at random times."""

import os
import random
import signal
import subprocess
import sys
import time

import command_line
import numpy as np
import pytest
import soundfile
from forks import ended, start

from spintok import cli

MESSAGE = "spintok: error: stopped; run the same command again to go on\n"


def run(folder, *arguments, after=None, number=signal.SIGINT):
    """Run ``spintok`` in a forked process, with a signal ``after`` so many seconds: its exit code and outputs."""
    child = start(folder, *arguments)
    if after is not None:
        time.sleep(after)
        os.kill(child, number)
    return ended(child), (folder / "stdout").read_text(), (folder / "stderr").read_text()


def run_until_ready(code):
    """Run Python code and send SIGINT when it has printed a line."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        return process.returncode, err.decode()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_signal_at_any_time_gives_the_message_and_keeps_what_is_done(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0)
    for index in range(6):
        soundfile.write(tmp_path / f"in/{index:02d}.wav", 0.1 * noise.standard_normal(40_000), 16_000)
    # Forked processes share what this run imports.
    assert command_line.call("encode", tmp_path / "in", tmp_path / "whole", "--quiet") == 0
    command = ("encode", tmp_path / "in", tmp_path / "out")
    started = time.monotonic()
    assert run(tmp_path, "encode", tmp_path / "in", tmp_path / "again")[0] == 0
    seconds = time.monotonic() - started
    stopped = 0
    for number, delay in zip(
        [signal.SIGINT, signal.SIGTERM] * 3, random.Random(1).sample(range(5, 90), 6), strict=True
    ):
        code, out, err = run(tmp_path, *command, after=delay / 100 * seconds, number=number)
        where = f"{number.name} after {delay} %: {err}"
        if code == cli.INTERRUPTED:
            stopped += 1
            assert (out, err) == ("", MESSAGE), where
        else:
            # The signal came before the command had started, or after everything was written.
            assert code in (0, -number), where
            assert "attribute" not in err, where
    assert stopped >= 1
    assert run(tmp_path, *command)[0] == 0
    for shard in (tmp_path / "whole").glob("tokens-*"):
        assert (tmp_path / "out" / shard.name).read_bytes() == shard.read_bytes()


def test_a_signal_to_a_whole_process(tmp_path, speech) -> None:
    """With the start and the end of Python around the command."""
    # More than is encoded before the signal comes, however busy the machine is.
    for copy in range(10):
        (tmp_path / f"in/{copy}").mkdir(parents=True)
        for path in speech.glob("*.flac"):
            (tmp_path / f"in/{copy}" / path.name).symlink_to(path)
    with subprocess.Popen(
        [sys.executable, "-m", "spintok", "encode", tmp_path / "in", tmp_path / "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "out").glob("*.journal")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (cli.INTERRUPTED, "", MESSAGE)


def test_a_signal_during_an_import_ends_the_process_at_once(tmp_path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\ntry:\n    print('importing', flush=True)\n    time.sleep(60)\n"
        "except BaseException:\n    raise AttributeError('void') from None\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from spintok.cli import signals; signals.install(); "
        "import slow"
    )
    assert run_until_ready(code) == (cli.INTERRUPTED, MESSAGE)


def test_an_interrupt_that_is_swallowed_still_ends_the_process() -> None:
    code = (
        "import time\nfrom spintok.cli import signals\nsignals.CLEANUP_SECONDS = 0.2\nsignals.install()\n"
        "while True:\n    try:\n        print('ready', flush=True)\n        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n        pass\n"
    )
    assert run_until_ready(code) == (cli.INTERRUPTED, MESSAGE)
