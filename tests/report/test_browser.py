"""The pages in a real browser: real keys, a real pointer, and what its console says."""

from pathlib import Path

import pytest
from chromium import Chromium, find_chromium

from spintok.report import corpus_report, recording_report

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here to open the pages in")

EVIL = "<img src=x onerror=window.hit=1>.flac"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_chromium()
    assert program is not None
    with Chromium(program, tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, token_folder, phones, evaluation) -> Path:
    path = tmp_path_factory.mktemp("pages") / "corpus.html"
    path.write_text(corpus_report(token_folder, alignments=phones, evaluation=evaluation), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory, speech, two_codebooks, phones) -> Path:
    path = tmp_path_factory.mktemp("pages") / "recording.html"
    path.write_text(recording_report(speech / "beth_river.flac", two_codebooks, alignments=phones), encoding="utf-8")
    return path


@pytest.fixture(params=["corpus", "recording"])
def page(request) -> Path:
    return request.getfixturevalue(request.param)


def _background(browser) -> str:
    return browser.run("getComputedStyle(document.body).backgroundColor")


def _inked(browser, selector: str) -> int:
    """How many colours a canvas shows."""
    return browser.run(
        f"(() => {{ const c = document.querySelector('{selector}'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return new Set(new Uint32Array(d.buffer)).size; })()"
    )


@pytest.mark.parametrize("width", [1280, 375])
def test_a_page_opens_in_either_theme_and_width(browser, page, width) -> None:
    browser.open(page, width)
    light = _background(browser)
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.view(width, 900, dark=True)
    dark = _background(browser)
    assert dark != light
    # A change of what the system prefers is told with the next picture.
    browser.wait("byId('theme').getAttribute('aria-pressed') === 'true'")
    browser.run("byId('theme').click()")
    assert _background(browser) == light
    browser.run("byId('theme').click()")
    assert _background(browser) == dark
    assert browser.complaints == []
    assert all(address.startswith(("data:", page.as_uri())) for address in browser.addresses)


def test_a_chart_is_read_by_pointer_and_keys(browser, corpus) -> None:
    browser.open(corpus)
    for name in ("usage", "imbalance", "run-lengths", "speakers", "heat", "robustness", "most", "least"):
        assert browser.box(f"#{name}")["height"] > 100
    plot = browser.box("#usage .plot")
    browser.move(plot["x"] + 0.5, plot["y"] + 50)
    assert browser.run("byId('tip').textContent") == browser.run("data.charts.usage[0][2]")
    assert browser.run("byId('tip').hidden") is False
    browser.run("document.querySelector('#usage .plot').focus()")
    browser.press("ArrowRight", 3)
    expected = browser.run("data.charts.usage[3][2]")
    assert browser.run("document.activeElement.getAttribute('aria-valuetext')") == expected
    browser.press("Tab")
    assert browser.run("byId('tip').hidden") is True
    assert browser.complaints == []


def test_the_heat_map_is_read_by_pointer_and_keys(browser, corpus) -> None:
    browser.open(corpus)
    assert _inked(browser, "#heat-canvas") > 5
    canvas = browser.box("#heat-canvas")
    browser.move(canvas["x"] + 1, canvas["y"] + 1)
    first = browser.run("byId('heat-cell').textContent")
    assert first.startswith(f"code {browser.run('data.heat.codes[0]')} · AA 100 %")
    browser.run("byId('heat-canvas').focus()")
    browser.press("ArrowDown")
    assert "· T 0 % ·" in browser.run("byId('heat-cell').textContent")
    browser.press("End")
    assert browser.run("byId('heat-cell').textContent").startswith(f"code {browser.run('data.heat.codes.at(-1)')} ")


def test_a_token_says_its_code_and_duration(browser, recording, speech, two_codebooks) -> None:
    tokens = two_codebooks.encode(speech / "beth_river.flac")
    index = int(tokens.durations.argmax())
    start, end = tokens.times[index]
    browser.open(recording)
    lane = browser.box('[aria-label="primary"]')
    browser.run(f"scroller.scrollLeft = {start} * zoom")
    x = lane["x"] + browser.run(f"({(start + end) / 2} - from()) * zoom")
    browser.move(x, lane["y"] + 15)
    expected = f"primary: code {tokens.units[index]}\n{start:.3f} to {end:.3f} s\n"
    expected += f"{round(1000 * (end - start))} ms ({tokens.durations[index]} frames)"
    assert browser.run("byId('tip').textContent") == expected
    browser.click(x, lane["y"] + 15)
    browser.wait(f"Math.abs(audio.currentTime - {start}) < 0.001")
    assert f"primary {tokens.units[index]} {start:.3f} to {end:.3f} s" in browser.run("byId('selected').textContent")
    for selector in ("#waveform", "#mel", "#overview", '[aria-label="phones"]', '[aria-label="auxiliary"]'):
        assert _inked(browser, selector) > 2
    assert browser.complaints == []


def test_keys_move_through_tokens_and_play_them(browser, recording, speech, two_codebooks) -> None:
    tokens = two_codebooks.encode(speech / "beth_river.flac")
    browser.open(recording)
    browser.run("byId('overview').focus()")
    browser.press("Tab", 2)
    assert browser.run("document.activeElement.getAttribute('aria-label')") == "primary"
    browser.press("ArrowRight", 5)
    browser.press("ArrowLeft")
    start, end = tokens.times[4]
    said = browser.run("document.activeElement.getAttribute('aria-valuetext')")
    assert said.startswith(f"code {tokens.units[4]}, {start:.3f} to {end:.3f} s, {round(1000 * (end - start))} ms (")
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("ArrowDown")
    assert browser.run("document.activeElement.getAttribute('aria-label')") == "auxiliary"
    browser.press("ArrowUp")
    browser.press("End")
    number = len(tokens.units)
    assert browser.run("document.activeElement.getAttribute('aria-valuenow')") == str(number)
    # The last token is in view.
    assert browser.run(f"from() + visible() > {tokens.times[-1][0]}")
    browser.press("Home")
    browser.press(" ")
    browser.wait("!audio.paused && audio.currentTime > 0.1")
    assert browser.run("byId('play').textContent") == "Pause"
    browser.press(" ")
    browser.wait("audio.paused")
    browser.press("Enter")
    browser.wait(f"audio.paused && audio.currentTime >= {tokens.times[0][1]}")
    assert browser.complaints == []


def test_the_recording_zooms_and_seeks(browser, recording) -> None:
    browser.open(recording)
    whole = browser.run("visible()")
    browser.press("+")
    assert browser.run("visible()") == pytest.approx(whole / 1.6)
    browser.press("0")
    assert browser.run("visible()") == pytest.approx(browser.run("seconds"))
    wave = browser.box("#waveform")
    browser.click(wave["x"] + wave["width"] / 2, wave["y"] + 20)
    browser.wait("Math.abs(audio.currentTime - seconds / 2) < 0.01")
    overview = browser.box("#overview")
    browser.click(overview["x"] + overview["width"] / 4, overview["y"] + 10)
    browser.wait("Math.abs(audio.currentTime - seconds / 4) < 0.01")
    browser.press("+", 12)
    assert browser.run("zoom") == 1200
    browser.run("document.querySelectorAll('details')[1].open = true")
    rows = browser.run("lanes[1].items.length")
    browser.wait(f"document.querySelectorAll('[data-table=\"1\"] tbody tr').length === {rows}")


def test_a_hostile_file_name_is_only_a_name(browser, tmp_path, speech, two_codebooks) -> None:
    (tmp_path / EVIL).write_bytes((speech / "fred_yes.flac").read_bytes())
    (tmp_path / "phones.jsonl").write_text(
        '{"id": "<img src=x onerror=window.hit=1>", "phones": [["<script>window.hit=1</script>", 0, 1]]}'
    )
    page = tmp_path / "page.html"
    page.write_text(recording_report(tmp_path / EVIL, two_codebooks, alignments=tmp_path / "phones.jsonl"))
    browser.open(page)
    browser.run("document.querySelector('details').open = true")
    browser.wait("document.querySelector('tbody') !== null")
    browser.run("select(0, 0)")
    assert browser.run("document.querySelector('h1').textContent") == EVIL
    assert "<script>" in browser.run("byId('selected').textContent")
    assert browser.run("window.hit === undefined && document.images.length === 0")
    assert browser.complaints == []
