"""Real signals at random times."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import soundfile

from spintok import cli

MESSAGE = "spintok: error: stopped; run the same command again to go on\n"


def run(*command, after=None, number=signal.SIGINT):
    """Run a Python process and send it a signal ``after`` so many seconds; return its exit code and outputs."""
    with subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        if after is not None:
            time.sleep(after)
            process.send_signal(number)
        out, err = process.communicate()
        return process.returncode, out, err


def run_until_ready(code):
    """Run Python code and send SIGINT when it has printed a line."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        return process.returncode, err.decode()


def test_a_signal_at_any_time_gives_the_message_and_keeps_what_is_done(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0)
    for index in range(6):
        soundfile.write(tmp_path / f"in/{index:02d}.wav", 0.1 * noise.standard_normal(80_000), 16_000)
    started = time.monotonic()
    assert run("-m", "spintok", "encode", tmp_path / "in", tmp_path / "whole")[0] == 0
    seconds = time.monotonic() - started
    command = ("-m", "spintok", "encode", tmp_path / "in", tmp_path / "out")
    stopped = 0
    for number, delay in zip(
        [signal.SIGINT, signal.SIGTERM] * 2, random.Random(1).sample(range(10, 90), 4), strict=True
    ):
        code, out, err = run(*command, after=delay / 100 * seconds, number=number)
        where = f"{number.name} after {delay} %: {err}"
        if code == cli.INTERRUPTED:
            stopped += 1
            assert (out, err) == ("", MESSAGE), where
        else:
            # The signal came before Python had started, or after everything was written.
            assert code in (0, -number), where
            assert "attribute" not in err, where
    assert stopped >= 1
    assert run(*command)[0] == 0
    for shard in (tmp_path / "whole").glob("tokens-*"):
        assert (tmp_path / "out" / shard.name).read_bytes() == shard.read_bytes()


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
