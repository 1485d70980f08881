import errno
import hashlib
import json
import os
import subprocess
import sys

import pytest

from spintok._files import (
    MissingPackageError,
    atomic,
    digest,
    json_line,
    lock,
    read_json_lines,
    remove_orphans,
    require,
    write_text,
)


def test_a_planted_link_is_never_followed(tmp_path, monkeypatch) -> None:
    """Even somebody who guesses the name of the temporary file cannot make a write end up elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    names = iter(["guessed", "other"])
    monkeypatch.setattr("spintok._files.secrets.token_hex", lambda size: next(names))
    (tmp_path / ".out.guessed.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "out", "text")
    assert victim.read_text() == "precious"
    write_text(tmp_path / "out", "text")
    assert (tmp_path / "out").read_text() == "text"


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, atomic(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    # Another file that fails inside of the block is not blamed on this one.
    with pytest.raises(ConnectionError) as other, atomic(tmp_path / "out"):
        raise ConnectionError(errno.ECONNRESET, "reset")
    assert other.value.filename is None


def test_two_writers_of_one_file_do_not_meet(tmp_path) -> None:
    path = tmp_path / "out"
    with atomic(path) as one, atomic(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_files_and_folders_reach_the_disk(tmp_path, monkeypatch) -> None:
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_ino), fsync(file)))
    write_text(tmp_path / "out", "text")
    assert synced == [(tmp_path / "out").stat().st_ino, tmp_path.stat().st_ino]


def test_orphans_of_dead_processes_go_and_files_of_running_ones_stay(tmp_path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom spintok._files import atomic\n"
        "with atomic(Path(sys.argv[1])) as temporary:\n    temporary.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "dead")], check=False)
    (orphan,) = tmp_path.iterdir()
    (tmp_path / ".earlier.123.tmp").write_text("of an earlier version")
    with atomic(tmp_path / "live") as temporary:
        remove_orphans(tmp_path)
        assert list(tmp_path.iterdir()) == [temporary]
    assert not orphan.exists()


def test_locks(tmp_path) -> None:
    path = tmp_path / ".lock"
    with lock(path):
        for shared in (False, True):
            with pytest.raises(BlockingIOError), lock(path, shared=shared):
                pass
    with lock(path, shared=True), lock(path, shared=True):
        with pytest.raises(BlockingIOError), lock(path):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_lock_ends_with_its_process(tmp_path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom spintok._files import lock\n"
        "with lock(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / ".lock")], check=False)
    assert (tmp_path / ".lock").exists()
    with lock(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize("text", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\r", "\n", "\udce9"])
def test_json_lines_hold_any_text(tmp_path, text) -> None:
    values = [{"key": f"a{text}b"}, {"key": text}]
    (tmp_path / "f").write_bytes("".join(map(json_line, values)).encode())
    assert list(read_json_lines(tmp_path / "f")) == values


@pytest.mark.parametrize("line", [b"not json", b'"\xff"', b"[" * 100_000, b"1" * 5000])
def test_lines_that_are_not_json_are_named(tmp_path, line) -> None:
    (tmp_path / "f").write_bytes(b"1\n" + line + b"\n")
    with pytest.raises(ValueError, match="f:2: not JSON"):
        list(read_json_lines(tmp_path / "f"))


def test_a_digest_takes_names_that_are_not_utf_8() -> None:
    assert digest([("a", "b"), ("c", "\udce9")]) != digest([("a", "b"), ("c", "\udce8")])
    assert digest([("key", "path")]) == hashlib.sha256(b"key\tpath").hexdigest()


def test_a_missing_package_is_an_import_error_and_a_users_error(monkeypatch) -> None:
    assert require("json.decoder", extra="x", purpose="this") is json.decoder
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingPackageError, match=r"^Parquet needs pyarrow .*: pip install 'spintok\[export\]'$"
    ) as found:
        require("pyarrow.parquet", extra="export", purpose="Parquet")
    assert isinstance(found.value, ValueError)
    assert isinstance(found.value, ImportError)
