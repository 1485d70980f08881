import hashlib
import socket

import numpy as np
import pytest
from file_server import Site, serving

from spintok.hub.download import DownloadError, download

DATA = np.random.default_rng(0).bytes(200_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("spintok.hub.download.PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture
def site():
    with serving(Site({"/f": DATA})) as site:
        yield site


@pytest.fixture
def get(site, tmp_path):
    """Downloads "/f", and gives the bytes that lie there then."""

    def got(url: str | None = None, sha256: str = SHA256, size: int = len(DATA), progress=None) -> bytes:
        path, partial = tmp_path / "f", tmp_path / ".f.part"
        download(url or f"{site.url}/f", path, partial, sha256=sha256, size=size, progress=progress)
        assert not partial.exists()
        return path.read_bytes()

    return got


def test_a_file_comes_whole_and_says_how_far_it_is(get, site) -> None:
    seen: list[int] = []
    assert get(progress=seen.append) == DATA
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)
    assert site.requests == [("/f", None)]


def test_a_broken_connection_is_gone_on_from(get, site) -> None:
    site.cuts = [70_000, 50_000]
    assert get() == DATA
    assert site.requests == [("/f", None), ("/f", "bytes=70000-"), ("/f", "bytes=120000-")]


def test_answers_without_a_length_are_gone_on_from(get, site) -> None:
    site.lengths, site.cuts = False, [70_000]
    assert get() == DATA
    assert len(site.requests) == 2


def test_what_an_earlier_run_left_is_gone_on_from(get, site, tmp_path) -> None:
    (tmp_path / ".f.part").write_bytes(DATA[:150_000])
    assert get() == DATA
    assert site.requests == [("/f", "bytes=150000-")]


def test_all_bytes_of_an_earlier_run_need_no_server(get, tmp_path) -> None:
    (tmp_path / ".f.part").write_bytes(DATA)
    assert get("http://127.0.0.1:9/f") == DATA


def test_a_server_without_ranges_begins_anew(get, site) -> None:
    site.ranges, site.cuts = False, [70_000]
    assert get() == DATA
    assert site.requests == [("/f", None), ("/f", "bytes=70000-")]


@pytest.mark.parametrize("stale", [b"x" * 90_000, b"x" * 200_000, b"x" * 200_001])
def test_bytes_of_another_file_are_thrown_away(get, tmp_path, stale) -> None:
    (tmp_path / ".f.part").write_bytes(stale)
    assert get() == DATA


def test_a_part_from_elsewhere_is_asked_for_again_and_then_given_up(get, site, tmp_path) -> None:
    (tmp_path / ".f.part").write_bytes(DATA[:150_000])
    site.shift = 5
    with pytest.raises(DownloadError, match="from 150,005 on and was asked for those from 150,000 on"):
        get()


def test_a_refused_part_begins_anew(get, site, tmp_path) -> None:
    (tmp_path / ".f.part").write_bytes(DATA[:150_000])
    site.statuses = [416]
    assert get() == DATA
    assert site.requests[-1] == ("/f", None)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_out_of_order_is_tried_again(get, site, status) -> None:
    site.statuses = [status, status]
    assert get() == DATA


def test_tries_end(get, site) -> None:
    site.statuses = [503] * 9
    with pytest.raises(DownloadError, match=r"127.0.0.1:\d+/f: HTTP 503"):
        get()
    assert len(site.requests) == 4


def test_tries_begin_anew_with_every_mebibyte(site, tmp_path) -> None:
    data = bytes(range(256)) * (7 << 12)
    site.files["/g"] = data
    site.cuts = [1 << 20] * 6
    sha256 = hashlib.sha256(data).hexdigest()
    download(f"{site.url}/g", tmp_path / "g", tmp_path / "p", sha256=sha256, size=len(data))
    assert (tmp_path / "g").read_bytes() == data
    assert len(site.requests) == 7


def test_what_is_not_there_is_asked_for_once(get, site) -> None:
    with pytest.raises(DownloadError, match="/other: HTTP 404 Not Found"):
        get(f"{site.url}/other")
    assert len(site.requests) == 1


def test_a_wrong_checksum_is_refused_and_nothing_stays(get, site, tmp_path) -> None:
    site.files["/f"] = DATA[:-1] + b"?"
    with pytest.raises(DownloadError, match=f"wrong checksum.*{SHA256} was expected") as caught:
        get()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lengths", [True, False])
def test_a_longer_file_is_refused_before_it_is_stored(get, site, tmp_path, lengths) -> None:
    site.lengths, site.files["/f"] = lengths, DATA * 50
    with pytest.raises(DownloadError, match="wrong size.*200,000 were expected"):
        get()
    assert list(tmp_path.iterdir()) == []


def test_a_shorter_file_is_refused(get, site) -> None:
    site.files["/f"] = DATA[:-1]
    with pytest.raises(DownloadError, match="wrong size: it has 199,999 bytes"):
        get()
    assert len(site.requests) == 1


def test_no_server_says_so(get) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match=f"127.0.0.1:{port}/f: Connection refused"):
        get(f"http://127.0.0.1:{port}/f")


def test_a_silent_server_is_given_up(get, monkeypatch) -> None:
    monkeypatch.setattr("spintok.hub.download.TIMEOUT", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DownloadError, match=r"no answer within 0.05 s"),
    ):
        get(f"http://127.0.0.1:{silent.getsockname()[1]}/f")


def test_a_server_that_talks_nonsense_is_given_up(get, site, monkeypatch) -> None:
    def answer(handler, code, message=None) -> None:
        handler.wfile.write(b"nonsense\r\n\r\n")

    monkeypatch.setattr("http.server.BaseHTTPRequestHandler.send_error", answer)
    with pytest.raises(DownloadError, match="nonsense"):
        get(f"{site.url}/other")


def test_redirections_are_followed_to_the_web_only(get, site, tmp_path) -> None:
    site.moved = {"/moved": "/f", "/file": f"file://{tmp_path}/secret", "/ftp": "ftp://127.0.0.1/f", "/loop": "/loop"}
    (tmp_path / "secret").write_bytes(DATA)
    site.cuts = [1000]
    assert get(f"{site.url}/moved") == DATA
    for path in ("file", "ftp", "loop"):
        with pytest.raises(DownloadError, match=f"/{path}: "):
            get(f"{site.url}/{path}")


def test_files_of_this_machine(get, tmp_path) -> None:
    source = tmp_path / "with a space"
    source.write_bytes(DATA)
    (tmp_path / ".f.part").write_bytes(DATA[:9])
    assert get(source.as_uri()) == DATA
    with pytest.raises(DownloadError, match="No such file"):
        get((tmp_path / "no").as_uri())
    source.write_bytes(DATA * 2)
    with pytest.raises(DownloadError, match="400,000 bytes"):
        get(source.as_uri())
