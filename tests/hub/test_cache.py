import errno
import fcntl
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from file_server import Site, serving

from spintok.hub.cache import fetch, folder_of, is_cached, is_offline
from spintok.hub.download import DownloadError
from spintok.hub.registry_file import Entry, RemoteFile, write_entry

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 800, "README.md": b"# card"}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SPINTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spintok.hub.download.PAUSES", (0.0,))


@pytest.fixture
def site():
    with serving(Site({f"/{name}": data for name, data in FILES.items()})) as site:
        yield site


def entry_of(url: str, files=FILES, origin: Path = Path("r.toml")) -> Entry:
    remote = {
        name: RemoteFile(f"{url}/{name}", hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }
    return Entry("far", "Far away", "MIT", {"primary": 7}, remote, origin)


@pytest.fixture
def entry(site) -> Entry:
    return entry_of(site.url)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_files_come_once(entry, site, tmp_path) -> None:
    assert not is_cached(entry)
    seen = []
    folder = fetch(entry, progress=lambda *told: seen.append(told))
    assert contents(folder) == FILES
    assert folder == folder_of(entry) == tmp_path / f"cache/far-{entry.digest[:12]}"
    assert is_cached(entry)
    assert ("far/model.safetensors", 204_800, 204_800) in seen
    assert len(site.requests) == 3
    assert fetch(entry) == fetch(entry, offline=True) == folder
    assert len(site.requests) == 3


def test_other_weights_of_the_same_name_lie_elsewhere(entry, site) -> None:
    first = fetch(entry)
    site.files["/config.json"] = b"{ }"
    second = fetch(entry_of(site.url, {**FILES, "config.json": b"{ }"}))
    assert first != second
    assert contents(first) == FILES


def test_the_cache_is_where_the_environment_says(entry, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("SPINTOK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folder_of(entry).parent == tmp_path / "xdg/spintok"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folder_of(entry).parent == tmp_path / "home/.cache/spintok"


def test_offline_without_the_files_says_which_and_how_to_get_them(entry, site) -> None:
    (folder := folder_of(entry)).mkdir(parents=True)
    (folder / "config.json").write_bytes(FILES["config.json"])
    with pytest.raises(DownloadError) as caught:
        fetch(entry, offline=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "SPINTOK_OFFLINE" in message
    assert "spintok download far" in message
    assert f"{site.url}/model.safetensors as {folder / 'model.safetensors'}" in message
    assert "config.json" not in message
    assert site.requests == []


def test_files_put_there_by_hand_are_checked(entry, site) -> None:
    (folder := folder_of(entry)).mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    assert fetch(entry, offline=True) == folder
    (folder / "config.json").write_bytes(b"[]")
    with pytest.raises(DownloadError, match=r"config.json as .*config.json"):
        fetch(entry, offline=True)
    assert contents(fetch(entry)) == FILES
    assert site.requests == [("/config.json", None)]


def test_a_failure_names_address_cause_and_mending(entry, site, tmp_path) -> None:
    del site.files["/model.safetensors"]
    with pytest.raises(DownloadError) as caught:
        fetch(entry)
    message = str(caught.value)
    assert "\n" not in message
    assert f"tokenizer 'far': {site.url}/model.safetensors: HTTP 404" in message
    assert "the entry in r.toml" in message
    assert str(folder_of(entry) / "model.safetensors") in message
    # What came before the failure stays.
    assert set(contents(folder_of(entry))) == {"config.json"}


def test_a_cache_that_cannot_be_written_says_how_to_move_it(entry, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPINTOK_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="name another folder in SPINTOK_CACHE"):
        fetch(entry)


def test_without_locks_each_process_gathers_its_own_bytes(entry, monkeypatch) -> None:
    def unsupported(*arguments) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (folder := folder_of(entry)).mkdir(parents=True)
    (folder / ".model.safetensors.part").write_bytes(b"another process's")
    assert contents(fetch(entry)) == {**FILES, ".model.safetensors.part": b"another process's"}


def fetching(entry: Entry, registry: Path) -> "subprocess.Popen[str]":
    """Another process that asks for the entry."""
    registry.write_text(write_entry(entry))
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from spintok.hub.cache import fetch\nfrom spintok.hub.registry_file import read_entries\n"
        "print(fetch(read_entries(Path(sys.argv[1]))['far']))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, registry], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_at_once_download_once(entry, site, tmp_path) -> None:
    site.pause = 0.03
    processes = [fetching(entry, tmp_path / "r.toml") for _ in range(2)]
    told = [process.communicate(timeout=60) for process in processes]
    assert told == [(f"{folder_of(entry)}\n", "")] * 2
    assert contents(folder_of(entry)) == FILES
    assert sorted(path for path, _ in site.requests) == sorted(f"/{name}" for name in FILES)


def test_a_killed_process_leaves_bytes_to_go_on_from_and_no_lock(entry, site, tmp_path) -> None:
    site.pause = 0.2
    partial = folder_of(entry) / ".model.safetensors.part"
    with fetching(entry, tmp_path / "r.toml") as process:
        until = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
    site.pause = 0.0
    there = partial.stat().st_size
    assert 0 < there < len(FILES["model.safetensors"])
    assert contents(fetch(entry)) == FILES
    assert ("/model.safetensors", f"bytes={there}-") in site.requests


@pytest.mark.parametrize(
    ("value", "offline"), [("", False), ("0", False), ("no", False), ("1", True), ("TRUE", True), (" yes ", True)]
)
def test_offline_by_the_environment(monkeypatch, value, offline) -> None:
    monkeypatch.setenv("SPINTOK_OFFLINE", value)
    assert is_offline() is offline


def test_offline_is_yes_or_no(monkeypatch) -> None:
    monkeypatch.delenv("SPINTOK_OFFLINE", raising=False)
    assert not is_offline()
    monkeypatch.setenv("SPINTOK_OFFLINE", "maybe")
    with pytest.raises(ValueError, match="SPINTOK_OFFLINE must be 1 or 0, got 'maybe'"):
        is_offline()
