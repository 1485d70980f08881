"""Files by HTTP, health, metrics, and the files of the page."""

import httpx
import pytest

from spintok.serve import ServerOptions
from tests.serve.servers import running
from tests.streaming.streamers import tokenizer

TOKENIZER = tokenizer("streaming")


def test_a_posted_file_gives_the_tokens_of_encode(address, speech) -> None:
    path = speech / "fred_yes.flac"
    answer = httpx.post(f"http://{address}/tokens", content=path.read_bytes())
    assert answer.status_code == 200
    expected = TOKENIZER.encode(path, latency=0.08)
    assert answer.json()["codes"] == expected.codes.tolist()
    assert answer.json()["units"] == expected.units.tolist()
    assert answer.json()["fingerprint"] == TOKENIZER.at(0.08).fingerprint


def test_what_is_no_audio_is_refused(address) -> None:
    for content, reason in ((b"", "empty"), (b"no audio at all", "the file")):
        answer = httpx.post(f"http://{address}/tokens", content=content)
        assert answer.status_code == 422
        assert reason in answer.json()["error"]
        assert "/tmp" not in answer.text
    assert httpx.get(f"http://{address}/nothing").status_code == 404
    assert httpx.get(f"http://{address}/..%2fpage.py").status_code == 404


def test_a_large_file_is_refused() -> None:
    with running(TOKENIZER, upload_bytes=1000) as address:
        answer = httpx.post(f"http://{address}/tokens", content=b"x" * 2000)
        assert answer.status_code == 413
        assert "1000 bytes" in answer.json()["error"]


def test_metrics_are_those_of_prometheus(address) -> None:
    answer = httpx.get(f"http://{address}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "spintok_sessions 0.0" in answer.text
    assert 'spintok_step_seconds_bucket{le="0.001"}' in answer.text


def test_the_page_is_framed_by_nobody_and_loads_nothing_from_elsewhere(address) -> None:
    page = httpx.get(f"http://{address}/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for name in ("live.js", "strips.js", "recorder.js", "screen.js", "live.css", "page.css"):
        assert httpx.get(f"http://{address}/{name}").status_code == 200


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"sessions": 0}, "--sessions"),
        ({"idle_seconds": float("nan")}, "--idle-seconds"),
        ({"port": 70000}, "--port"),
        ({"token": " "}, "empty"),
    ],
)
def test_impossible_options_are_refused(values, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        ServerOptions(latency=0.08, **values)
