"""The folder in which workers meet, which other hosts change: what NFS answers, and what a kill leaves."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import ended, fork

from spintok.corpus.cluster.store import FolderStore


def stale(call: Callable[..., Any], times: int) -> Callable[..., Any]:
    """A call that NFS answers with ESTALE so many times, as it does when another host has replaced the file."""
    left = iter(range(times))

    def first_stale(*arguments: Any, **options: Any) -> Any:
        if next(left, None) is not None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return call(*arguments, **options)

    return first_stale


def test_a_file_that_another_host_replaces_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    store = FolderStore(tmp_path)
    store.write("a", b"data")
    for where, name, call in (
        (Path, "read_bytes", lambda: store.read("a") == b"data"),
        (os, "truncate", lambda: store.grow("a", 4)),
        (Path, "exists", lambda: store.exists("a")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, stale(getattr(where, name), 2))
            assert call()
            patch.setattr(where, name, stale(getattr(where, name), 9))
            with pytest.raises(OSError, match="[Ss]tale"):
                call()


def test_a_workspace_that_goes_while_it_is_deleted_is_none_s_concern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    monkeypatch.setattr(shutil, "rmtree", stale(shutil.rmtree, 2))
    with store.workspace("a", "worker"):
        pass
    store.clear("a")
    store.clear("a")
    assert not (tmp_path / ".work/a").exists()


def test_a_killed_worker_leaves_nothing_among_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.kill(os.getpid(), signal.SIGKILL))
    assert ended(fork(lambda: store.write("a", b"data"))) == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".work"]
    assert len(list((tmp_path / ".work").glob(".a.*.tmp"))) == 1
