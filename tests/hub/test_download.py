import hashlib
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from file_server import Site, serving

from spintok.hub.download import DownloadError, fetch, folder_of, is_cached, is_offline
from spintok.hub.registry_file import Entry, RemoteFile, write_entry

WEIGHTS = bytes(range(256)) * 800
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "README.md": b"# card"}
BLOCK = 50_000


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SPINTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spintok.hub.transport.PAUSES", (0.0, 0.0))
    monkeypatch.setattr("spintok.hub.transport.BLOCK", BLOCK)


@pytest.fixture
def site():
    with serving(Site({f"/{name}": data for name, data in FILES.items()})) as site:
        yield site


def entry_of(url: str, files=FILES) -> Entry:
    remote = {
        name: RemoteFile(f"{url}/{name}", hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }
    return Entry("far", "Far away", "MIT", {"primary": 7}, remote, Path("r.toml"))


@pytest.fixture
def entry(site) -> Entry:
    return entry_of(site.url)


@pytest.fixture
def partial(entry) -> Path:
    """Where an interrupted download of the weights leaves its bytes; the other files are complete."""
    (folder := folder_of(entry)).mkdir(parents=True)
    for name in ("config.json", "README.md"):
        (folder / name).write_bytes(FILES[name])
    return folder / ".model.safetensors.part"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def ranges(site: Site) -> list[str | None]:
    return [wanted for _, wanted in site.requests]


def test_files_are_downloaded_once(entry, site, tmp_path) -> None:
    assert not is_cached(entry)
    seen = []
    folder = fetch(entry, progress=lambda task, done, total, note="": seen.append((task, done, total)))
    assert contents(folder) == FILES
    assert folder == folder_of(entry) == tmp_path / f"cache/far-{entry.digest[:12]}"
    assert is_cached(entry)
    assert ("far/model.safetensors", 150_000, 204_800) in seen
    assert ("far/model.safetensors", 204_800, 204_800) in seen
    asked = len(site.requests)
    assert fetch(entry) == fetch(entry, offline=True) == folder
    assert len(site.requests) == asked


def test_other_weights_of_the_same_name_get_another_folder(entry, site) -> None:
    first = fetch(entry)
    site.files["/config.json"] = b"{ }"
    second = fetch(entry_of(site.url, {**FILES, "config.json": b"{ }"}))
    assert first != second
    assert contents(first) == FILES


def test_the_environment_says_where_the_cache_is(entry, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("SPINTOK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folder_of(entry).parent == tmp_path / "xdg/spintok"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folder_of(entry).parent == tmp_path / "home/.cache/spintok"


def test_offline_names_the_missing_files_and_how_to_get_them(entry, site) -> None:
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


def test_files_copied_by_hand_are_checked(entry, site) -> None:
    (folder := folder_of(entry)).mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    assert fetch(entry, offline=True) == folder
    (folder / "config.json").write_bytes(b"[]")
    with pytest.raises(DownloadError, match=r"config.json as .*config.json"):
        fetch(entry, offline=True)
    assert contents(fetch(entry)) == FILES
    assert [path for path, _ in site.requests] == ["/config.json"]


def test_a_failure_names_address_cause_and_remedy(entry, site) -> None:
    del site.files["/model.safetensors"]
    with pytest.raises(DownloadError) as caught:
        fetch(entry)
    message = str(caught.value)
    assert "\n" not in message
    assert f"tokenizer 'far': {site.url}/model.safetensors: HTTP 404" in message
    assert "the entry in r.toml" in message
    assert str(folder_of(entry) / "model.safetensors") in message
    assert set(contents(folder_of(entry))) == {"config.json", ".model.safetensors.part"}
    # A file that does not exist is not asked for again.
    assert len(site.requests) == 2


def test_a_cache_that_cannot_be_written_says_how_to_move_it(entry, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPINTOK_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="set SPINTOK_CACHE to another folder"):
        fetch(entry)


@pytest.mark.parametrize("lengths", [True, False])
def test_a_broken_connection_costs_at_most_a_block(partial, entry, site, lengths) -> None:
    site.lengths, site.cuts = lengths, [BLOCK, 20_000]
    assert contents(fetch(entry)) == FILES
    have = BLOCK if lengths else BLOCK + 20_000
    assert ranges(site)[:3] == [
        f"bytes=0-{BLOCK - 1}",
        f"bytes={BLOCK}-{2 * BLOCK - 1}",
        f"bytes={have}-{have + BLOCK - 1}",
    ]


def test_an_earlier_run_is_resumed(partial, entry, site) -> None:
    partial.write_bytes(WEIGHTS[:180_000])
    assert contents(fetch(entry)) == FILES
    assert ranges(site) == ["bytes=180000-204799"]


@pytest.mark.parametrize("have", [0, 180_000])
def test_a_server_without_ranges_sends_the_whole_file(partial, entry, site, have) -> None:
    site.ranges = False
    partial.write_bytes(WEIGHTS[:have])
    assert contents(fetch(entry)) == FILES


@pytest.mark.parametrize("stale", [b"x" * 90_000, b"x" * len(WEIGHTS), b"x" * (len(WEIGHTS) + 1)])
def test_bytes_of_another_file_are_thrown_away(partial, entry, stale) -> None:
    partial.write_bytes(stale)
    assert contents(fetch(entry)) == FILES


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_is_out_of_order_is_asked_again(partial, entry, site, status) -> None:
    site.statuses = [status, status]
    assert contents(fetch(entry)) == FILES


def test_retries_end(partial, entry, site) -> None:
    site.statuses = [503] * 9
    with pytest.raises(DownloadError, match=r"127.0.0.1:\d+/model.safetensors: HTTP 503"):
        fetch(entry)
    assert len(site.requests) == 3


def test_a_wrong_checksum_is_refused_and_nothing_stays(partial, entry, site) -> None:
    site.files["/model.safetensors"] = WEIGHTS[:-1] + b"?"
    expected = entry.files["model.safetensors"].sha256
    with pytest.raises(DownloadError, match=f"wrong checksum.*{expected} was expected") as caught:
        fetch(entry)
    assert "\n" not in str(caught.value)
    assert set(contents(folder_of(entry))) == {"config.json", "README.md"}


def test_a_shorter_file_is_refused(partial, entry, site) -> None:
    site.files["/model.safetensors"] = WEIGHTS[:-1]
    with pytest.raises(DownloadError, match="ends after 204,799 of 204,800 bytes"):
        fetch(entry)


def test_no_server_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(DownloadError, match=f"{url}/config.json: Connection refused"):
        fetch(entry_of(url))


def test_a_silent_server_is_given_up(entry, monkeypatch) -> None:
    monkeypatch.setattr("spintok.hub.transport.BLOCK_SECONDS", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DownloadError, match="no block of 0.1 MB arrived within 0.05 s"),
    ):
        fetch(entry_of(f"http://127.0.0.1:{silent.getsockname()[1]}"))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_dripping_server_is_given_up(partial, entry, site, monkeypatch, ranges) -> None:
    """Some bytes every 20 ms: a timeout between bytes would never end it. At that rate the file takes 40 s."""
    monkeypatch.setattr("spintok.hub.transport.BLOCK_SECONDS", 0.2)
    site.ranges, site.chunk, site.pause = ranges, 100, 0.02
    started = time.monotonic()
    with pytest.raises(DownloadError, match="arrived within 0.2 s"):
        fetch(entry)
    assert time.monotonic() - started < 20


def test_nonsense_from_the_server_is_one_line(entry, monkeypatch, site) -> None:
    def answer(handler, code, message=None) -> None:
        handler.wfile.write(b"nonsense\r\n\r\n")

    monkeypatch.setattr("http.server.BaseHTTPRequestHandler.send_error", answer)
    del site.files["/config.json"]
    with pytest.raises(DownloadError) as caught:
        fetch(entry)
    assert re.match(r"tokenizer 'far': http://\S+/config.json: .*Bad status line", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["file://{folder}/secret", "ftp://127.0.0.1/f", "/model.safetensors"])
def test_redirections_lead_to_the_web_only(entry, site, tmp_path, target) -> None:
    (tmp_path / "secret").write_bytes(WEIGHTS)
    site.files["/moved"] = site.files.pop("/model.safetensors")
    site.moved = {"/model.safetensors": target.format(folder=tmp_path)}
    with pytest.raises(DownloadError, match="/model.safetensors: "):
        fetch(entry)
    site.moved = {"/model.safetensors": "/moved"}
    assert contents(fetch(entry)) == FILES


def test_local_files(tmp_path) -> None:
    (source := tmp_path / "with a space").mkdir()
    for name, data in FILES.items():
        (source / name).write_bytes(data)
    entry = entry_of(source.as_uri())
    assert contents(fetch(entry)) == FILES
    with pytest.raises(DownloadError, match="config.json: No such file or directory"):
        fetch(entry_of((tmp_path / "none").as_uri(), {**FILES, "README.md": b"other"}))


def fetching(entry: Entry, registry: Path) -> "subprocess.Popen[str]":
    """Another process that fetches the entry in small blocks."""
    registry.write_text(write_entry(entry))
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from spintok.hub import transport\nfrom spintok.hub.download import fetch\n"
        "from spintok.hub.registry_file import read_entries\n"
        f"transport.BLOCK = {BLOCK}\n"
        "print(fetch(read_entries(Path(sys.argv[1]))['far']))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, registry], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_at_once_download_once(entry, site, tmp_path) -> None:
    site.pause = 0.03
    processes = [fetching(entry, tmp_path / "r.toml") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert outputs == [(f"{folder_of(entry)}\n", "")] * 2
    assert contents(folder_of(entry)) == FILES
    assert len(set(site.requests)) == len(site.requests) == 2 + 5


def test_a_killed_process_leaves_bytes_to_resume_from_and_no_lock(entry, site, partial, tmp_path) -> None:
    site.pause = 0.1
    with fetching(entry, tmp_path / "r.toml") as process:
        until = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
    site.pause = 0.0
    have = partial.stat().st_size
    assert 0 < have < len(WEIGHTS)
    site.requests.clear()
    assert contents(fetch(entry)) == FILES
    assert ranges(site)[0] == f"bytes={have}-{min(have + BLOCK, len(WEIGHTS)) - 1}"


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
