"""The live page in a real browser: a fake microphone, a file, themes, widths and keys."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chromium import Tab, chromium
from small_decoders import untrained_decoder

from spintok.data.audio import read
from tests.serve.servers import running
from tests.streaming.streamers import tokenizer

TOKENIZER = tokenizer("streaming")


@pytest.fixture(scope="module")
def sound(tmp_path_factory, speech) -> Path:
    """What the fake microphone hears, again and again."""
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    soundfile.write(path, read(speech / "beth_river.flac").numpy(), 16000)
    return path


@pytest.fixture(scope="module")
def browser(sound):
    options = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}",
        "--autoplay-policy=no-user-gesture-required",
    )
    with chromium(*options) as opened:
        yield opened


@pytest.fixture
def tab(browser, address):
    opened = Tab(browser)
    opened.context.grant_permissions(["microphone"], origin=f"http://{address}")
    yield opened
    opened.context.close()


class Wire:
    """All that a page sends to and receives from the server."""

    def __init__(self, tab: Tab) -> None:
        self.sent = b""
        self.start: dict = {}
        self.codes: list[int] = []
        self.ended = False
        self.heard = 0
        tab.page.on("websocket", self._opened)

    def _opened(self, socket) -> None:
        socket.on("framesent", self._sent)
        socket.on("framereceived", self._received)

    def _sent(self, content) -> None:
        if isinstance(content, bytes):
            self.sent += content
        elif (message := json.loads(content))["type"] == "start":
            self.start = message

    def _received(self, content) -> None:
        if isinstance(content, bytes):
            self.heard += len(content) // 2
            return
        message = json.loads(content)
        self.codes += message.get("codes", [])
        self.ended |= message["type"] == "end"

    def check(self) -> None:
        """The codes that arrived are those of the samples that were sent."""
        samples = np.frombuffer(self.sent, "<i2")
        expected = TOKENIZER.encode(samples, self.start["sample_rate"], latency=0.08)
        assert self.codes == expected.codes.tolist()


def _wait(tab: Tab, wire: Wire) -> None:
    for _ in range(600):
        if wire.ended:
            return
        tab.page.wait_for_timeout(50)
    raise TimeoutError("the session has not ended")


def _colours(tab: Tab, canvas: str) -> int:
    return tab.page.evaluate(
        f"(() => {{ const c = document.getElementById('{canvas}'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return new Set(new Uint32Array(d.buffer)).size; })()"
    )


def _text(tab: Tab, name: str) -> str:
    return tab.page.evaluate(f"document.getElementById('{name}').textContent")


def test_the_microphone_gives_the_tokens_of_encode(tab, address) -> None:
    wire = Wire(tab)
    tab.page.goto(f"http://{address}/")
    tab.press("m")
    tab.wait("parseFloat(document.getElementById('heard').textContent) > 1.5")
    tab.press(" ")
    _wait(tab, wire)
    tab.wait("!document.getElementById('microphone').disabled")
    wire.check()
    assert len(wire.sent) > 2 * 1.5 * 16000
    assert len(set(wire.codes)) > 3
    assert _text(tab, "status").endswith("s.")
    assert _text(tab, "wait").endswith("ms")
    for canvas in ("waveform", "spectrogram", "lane"):
        assert _colours(tab, canvas) > 3, canvas
    assert tab.complaints == []
    assert all(a.startswith((f"http://{address}/", f"ws://{address}/", "data:")) for a in tab.addresses)


@pytest.mark.parametrize("width", [1280, 375])
def test_a_file_is_played_in_either_theme_and_width(tab, address, speech, width) -> None:
    wire = Wire(tab)
    tab.page.set_viewport_size({"width": width, "height": 900})
    tab.page.emulate_media(color_scheme="dark")
    tab.page.goto(f"http://{address}/")
    dark = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.page.set_input_files("#file", speech / "fred_yes.flac")
    _wait(tab, wire)
    tab.wait("!document.getElementById('microphone').disabled")
    wire.check()
    assert _text(tab, "heard") == "0.9 s"
    assert len(_text(tab, "units").split()) == int(_text(tab, "count"))
    tab.press("d")
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.complaints == []


def test_tokens_are_played_back(browser, speech) -> None:
    with running(TOKENIZER, untrained_decoder(TOKENIZER, "primary")) as address:
        tab = Tab(browser)
        wire = Wire(tab)
        tab.page.goto(f"http://{address}/")
        tab.page.select_option("#voice", "nobody")
        tab.page.set_input_files("#file", speech / "fred_yes.flac")
        _wait(tab, wire)
        tab.wait("!document.getElementById('microphone').disabled")
        wire.check()
        assert wire.start["voice"] == "nobody"
        assert (
            wire.heard
            == TOKENIZER.decode(np.array(wire.codes), decoder=untrained_decoder(TOKENIZER, "primary")).numel()
        )
        assert tab.complaints == []
        tab.context.close()


def test_what_cannot_be_played_is_told(tab, address, tmp_path) -> None:
    (tmp_path / "notes.flac").write_text("no audio")
    tab.page.goto(f"http://{address}/")
    tab.page.set_input_files("#file", tmp_path / "notes.flac")
    tab.wait("document.getElementById('status').classList.contains('error')")
    assert _text(tab, "status").startswith("notes.flac cannot be read as audio")
    assert tab.page.evaluate("!document.getElementById('microphone').disabled")


def test_a_full_server_says_so(browser, speech) -> None:
    with running(TOKENIZER, sessions=1) as address:
        first, second = Tab(browser), Tab(browser)
        first.context.grant_permissions(["microphone"], origin=f"http://{address}")
        first.page.goto(f"http://{address}/")
        second.page.goto(f"http://{address}/")
        first.page.click("#microphone")
        first.wait("parseFloat(document.getElementById('heard').textContent) > 0.2")
        second.page.set_input_files("#file", speech / "fred_yes.flac")
        second.wait("document.getElementById('status').classList.contains('error')")
        assert "full" in _text(second, "status")
        first.page.click("#stop")
        first.context.close()
        second.context.close()
