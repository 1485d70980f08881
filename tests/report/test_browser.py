"""The pages in a real browser: real keys, a real pointer, and what its console says."""

from pathlib import Path

import pytest
from chromium import Tab, chromium

import spintok
from spintok.report import corpus_report, recording_report

EVIL = "<img src=x onerror=window.hit=1>.flac"


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def tab(browser):
    opened = Tab(browser)
    yield opened
    opened.context.close()


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


def _background(tab) -> str:
    return tab.page.evaluate("getComputedStyle(document.body).backgroundColor")


def _inked(tab, selector: str) -> int:
    """How many colours a canvas shows."""
    return tab.page.evaluate(
        f"(() => {{ const c = document.querySelector('{selector}'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return new Set(new Uint32Array(d.buffer)).size; })()"
    )


@pytest.mark.parametrize("width", [1280, 375])
def test_a_page_opens_in_either_theme_and_width(tab, page, width) -> None:
    tab.page.set_viewport_size({"width": width, "height": 900})
    tab.open(page)
    light = _background(tab)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    tab.page.emulate_media(color_scheme="dark")
    dark = _background(tab)
    assert dark != light
    # The page hears of a change of the preferred scheme with the next frame.
    tab.wait("byId('theme').getAttribute('aria-pressed') === 'true'")
    tab.page.evaluate("byId('theme').click()")
    assert _background(tab) == light
    tab.page.evaluate("byId('theme').click()")
    assert _background(tab) == dark
    assert tab.complaints == []
    assert all(address.startswith(("data:", page.as_uri())) for address in tab.addresses)


def test_a_chart_is_read_by_pointer_and_keys(tab, corpus) -> None:
    tab.open(corpus)
    for name in ("usage", "imbalance", "run-lengths", "speakers", "heat", "robustness", "most", "least"):
        assert tab.box(f"#{name}")["height"] > 100
    plot = tab.box("#usage .plot")
    tab.page.mouse.move(plot["x"] + 0.5, plot["y"] + 50)
    assert tab.page.evaluate("byId('tip').textContent") == tab.page.evaluate("data.charts.usage[0][2]")
    assert tab.page.evaluate("byId('tip').hidden") is False
    tab.page.evaluate("document.querySelector('#usage .plot').focus()")
    tab.press("ArrowRight", 3)
    expected = tab.page.evaluate("data.charts.usage[3][2]")
    assert tab.page.evaluate("document.activeElement.getAttribute('aria-valuetext')") == expected
    tab.press("Tab")
    assert tab.page.evaluate("byId('tip').hidden") is True
    assert tab.complaints == []


def test_the_heat_map_is_read_by_pointer_and_keys(tab, corpus) -> None:
    tab.open(corpus)
    assert _inked(tab, "#heat-canvas") > 5
    canvas = tab.box("#heat-canvas")
    tab.page.mouse.move(canvas["x"] + 1, canvas["y"] + 1)
    first = tab.page.evaluate("byId('heat-cell').textContent")
    assert first.startswith(f"code {tab.page.evaluate('data.heat.codes[0]')} · AA 100 %")
    tab.page.evaluate("byId('heat-canvas').focus()")
    tab.press("ArrowDown")
    assert "· T 0 % ·" in tab.page.evaluate("byId('heat-cell').textContent")
    tab.press("End")
    assert tab.page.evaluate("byId('heat-cell').textContent").startswith(
        f"code {tab.page.evaluate('data.heat.codes.at(-1)')} "
    )


def test_a_token_says_its_code_and_duration(tab, recording, speech, two_codebooks) -> None:
    tokens = two_codebooks.encode(speech / "beth_river.flac")
    index = int(tokens.durations.argmax())
    start, end = tokens.times[index]
    tab.open(recording)
    lane = tab.box('[aria-label="primary"]')
    tab.page.evaluate(f"scroller.scrollLeft = {start} * zoom")
    x = lane["x"] + tab.page.evaluate(f"({(start + end) / 2} - from()) * zoom")
    tab.page.mouse.move(x, lane["y"] + 15)
    expected = f"primary: code {tokens.units[index]}\n{start:.3f} to {end:.3f} s\n"
    expected += f"{round(1000 * (end - start))} ms ({tokens.durations[index]} frames)"
    assert tab.page.evaluate("byId('tip').textContent") == expected
    tab.page.mouse.click(x, lane["y"] + 15)
    tab.wait(f"Math.abs(audio.currentTime - {start}) < 0.001")
    assert f"primary {tokens.units[index]} {start:.3f} to {end:.3f} s" in tab.page.evaluate(
        "byId('selected').textContent"
    )
    tab.page.locator("[data-show]", has_text="auxiliary").click()
    for selector in ("#waveform", "#mel", "#overview", '[aria-label="phones"]', '[aria-label="auxiliary"]'):
        assert _inked(tab, selector) > 2
    assert tab.complaints == []


def test_keys_move_through_tokens_and_play_them(tab, recording, speech, two_codebooks) -> None:
    tokens = two_codebooks.encode(speech / "beth_river.flac")
    tab.open(recording)
    tab.page.locator("[data-show]", has_text="auxiliary").click()
    tab.page.evaluate("byId('overview').focus()")
    tab.press("Tab", 2)
    assert tab.page.evaluate("document.activeElement.getAttribute('aria-label')") == "primary"
    tab.press("ArrowRight", 5)
    tab.press("ArrowLeft")
    start, end = tokens.times[4]
    said = tab.page.evaluate("document.activeElement.getAttribute('aria-valuetext')")
    assert said.startswith(f"code {tokens.units[4]}, {start:.3f} to {end:.3f} s, {round(1000 * (end - start))} ms (")
    assert tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.press("ArrowDown")
    assert tab.page.evaluate("document.activeElement.getAttribute('aria-label')") == "auxiliary"
    tab.press("ArrowUp")
    tab.press("End")
    number = len(tokens.units)
    assert tab.page.evaluate("document.activeElement.getAttribute('aria-valuenow')") == str(number)
    # The last token is in view.
    assert tab.page.evaluate(f"from() + visible() > {tokens.times[-1][0]}")
    tab.press("Home")
    tab.press("Space")
    tab.wait("!audio.paused && audio.currentTime > 0.1")
    assert tab.page.evaluate("byId('play').textContent") == "Pause"
    tab.press("Space")
    tab.wait("audio.paused")
    tab.press("Enter")
    tab.wait(f"audio.paused && audio.currentTime >= {tokens.times[0][1]}")
    assert tab.complaints == []


def test_the_recording_zooms_and_seeks(tab, recording) -> None:
    tab.open(recording)
    whole = tab.page.evaluate("visible()")
    tab.press("+")
    assert tab.page.evaluate("visible()") == pytest.approx(whole / 1.6)
    tab.press("0")
    assert tab.page.evaluate("visible()") == pytest.approx(tab.page.evaluate("seconds"))
    wave = tab.box("#waveform")
    tab.page.mouse.click(wave["x"] + wave["width"] / 2, wave["y"] + 20)
    tab.wait("Math.abs(audio.currentTime - seconds / 2) < 0.01")
    overview = tab.box("#overview")
    tab.page.mouse.click(overview["x"] + overview["width"] / 4, overview["y"] + 10)
    tab.wait("Math.abs(audio.currentTime - seconds / 4) < 0.01")
    tab.press("+", 12)
    assert tab.page.evaluate("zoom") == 1200
    tab.page.evaluate("document.querySelectorAll('details')[1].open = true")
    rows = tab.page.evaluate("lanes[1].items.length")
    tab.wait(f"document.querySelectorAll('[data-table=\"1\"] tbody tr').length === {rows}")


def test_only_the_primary_codebook_is_shown_until_a_switch_is_pressed(tab, recording, speech, two_codebooks) -> None:
    tab.open(recording)
    rows = tab.page.locator("#stage [data-row]")
    assert [rows.nth(i).is_visible() for i in range(3)] == [True, True, False]
    switches = tab.page.locator("[data-show]")
    assert switches.all_inner_texts() == ["primary", "auxiliary"]
    assert [switches.nth(i).get_attribute("aria-pressed") for i in range(2)] == ["true", "false"]
    switches.nth(1).click()
    assert rows.nth(2).is_visible()
    tokens = two_codebooks.encode(speech / "beth_river.flac", codebook="auxiliary")
    shown = tab.page.locator('[data-text="2"] .tokens')
    assert shown.inner_text().split() == [str(code) for code in tokens.units]
    switches.nth(0).click()
    assert not rows.nth(1).is_visible()
    assert not tab.page.locator('[data-text="1"]').is_visible()
    # A token in the text is the token in the row.
    shown.locator(".chip").nth(3).click()
    assert tab.page.evaluate("[chosen.lane, chosen.index]") == [2, 3]
    assert f"auxiliary {tokens.units[3]} " in tab.page.evaluate("byId('selected').textContent")
    tab.page.evaluate("lanes[2].canvas.focus()")
    tab.press("ArrowUp")
    # The hidden row is skipped.
    assert tab.page.evaluate("document.activeElement.getAttribute('aria-label')") == "phones"
    assert tab.complaints == []


def test_numbers_can_be_read_at_the_first_zoom(tab, recording) -> None:
    """Every token is wide enough for its number, across or upwards; nothing else is drawn in that colour."""
    tab.open(recording)
    narrow = "Math.min(...lanes[1].items.map((item) => item.end - item.start)) * zoom"
    assert tab.page.evaluate(narrow) >= 9
    script = """(index) => {
        const { start, end } = lanes[1].items[index];
        const left = Math.ceil((start - from()) * zoom) + 1;
        const image = lanes[1].canvas.getContext('2d').getImageData(left, 3, Math.floor((end - start) * zoom) - 3, 28);
        return new Set(new Uint32Array(image.data.buffer)).size;
    }"""
    assert all(tab.page.evaluate(script, index) > 2 for index in range(8))


def test_two_tokenizers_side_by_side(tab, tmp_path, speech, two_codebooks) -> None:
    other = spintok.load("mfcc-kmeans-100")
    page = tmp_path / "page.html"
    page.write_text(recording_report(speech / "fred_yes.flac", [two_codebooks, other]), encoding="utf-8")
    tab.open(page)
    assert tab.page.locator(".about").inner_text().endswith("tokens of two and mfcc-kmeans-100")
    visible = [row.inner_text() for row in tab.page.locator("#stage [data-row]").all() if row.is_visible()]
    assert visible == ["two, primary", "mfcc-kmeans-100, primary"]
    # Both have the same primary codebook.
    assert tab.page.evaluate("lanes[0].items.map((i) => i.code).join() === lanes[2].items.map((i) => i.code).join()")
    assert tab.complaints == []


def test_a_code_is_heard_where_it_occurs(tab, tmp_path, token_folder, phones, monkeypatch) -> None:
    monkeypatch.setattr("spintok.report.corpus.MOST_CODES", 10)
    page = tmp_path / "page.html"
    page.write_text(corpus_report(token_folder, alignments=phones, listen=True), encoding="utf-8")
    tab.open(page)
    code = tab.page.evaluate("Object.keys(data.hear.codes).at(-1)")
    tab.page.locator("#hear-code").fill(code)
    places = tab.page.locator("#hear-places button")
    assert places.count() == tab.page.evaluate(f"data.hear.codes[{code}].places.length")
    assert tab.page.locator("#hear-about").inner_text().startswith(f"Code {code}: ")
    last = tab.page.evaluate(f"data.hear.codes[{code}].places.at(-1)")
    places.last.click()
    tab.wait("hear.playing()")
    assert tab.page.locator("#hear-places .playing").count() == 1
    # The browser has decoded all places, and the offsets are within the audio.
    assert tab.page.evaluate("hear.decoded().then((b) => b.duration)") == pytest.approx(last["to"] + 0.1, abs=0.02)
    tab.wait("!hear.playing() && document.querySelectorAll('#hear-places .playing').length === 0")
    tab.page.locator("#hear-all").click()
    tab.wait("document.querySelectorAll('#hear-places .playing').length === 1")
    tab.wait("byId('hear-places').children[0].querySelector('.playing') === null")
    assert tab.page.evaluate("hear.playing()")
    # A click on the heat map chooses its code, whether it has audio or not.
    tab.page.locator("#heat-canvas").click(position={"x": 2, "y": 2})
    assert tab.page.locator("#hear-code").input_value() == str(tab.page.evaluate("data.heat.codes[0]"))
    rare = tab.page.evaluate("data.heat.codes.find((code) => !(code in data.hear.codes))")
    tab.page.locator("#hear-code").fill(str(rare))
    assert "has no audio here" in tab.page.locator("#hear-about").inner_text()
    assert tab.page.locator("#hear-all").is_disabled()
    assert tab.complaints == []


def test_a_hostile_file_name_is_only_a_name(tab, tmp_path, speech, two_codebooks) -> None:
    (tmp_path / EVIL).write_bytes((speech / "fred_yes.flac").read_bytes())
    (tmp_path / "phones.jsonl").write_text(
        '{"id": "<img src=x onerror=window.hit=1>", "phones": [["<script>window.hit=1</script>", 0, 1]]}'
    )
    page = tmp_path / "page.html"
    page.write_text(recording_report(tmp_path / EVIL, two_codebooks, alignments=tmp_path / "phones.jsonl"))
    tab.open(page)
    tab.page.evaluate("document.querySelector('details').open = true")
    tab.wait("document.querySelector('tbody') !== null")
    tab.page.evaluate("select(0, 0)")
    assert tab.page.evaluate("document.querySelector('h1').textContent") == EVIL
    assert "<script>" in tab.page.evaluate("byId('selected').textContent")
    assert tab.page.evaluate("window.hit === undefined && document.images.length === 0")
    assert tab.complaints == []


def test_the_recording_and_what_the_tokens_say_have_one_clock(tab, tmp_path, speech, two_codebooks, decoders) -> None:
    page = tmp_path / "page.html"
    page.write_text(recording_report(speech / "beth_river.flac", two_codebooks, decoders=decoders[:1]))
    tab.open(page)
    button = tab.page.locator("[data-speak='0']")
    assert button.inner_text() == "What the tokens say"
    tab.page.evaluate("seek(1)")
    button.click()
    tab.wait("audio.dataset.speaks === '0' && !audio.paused && audio.currentTime > 1.1")
    assert button.inner_text() == "Pause"
    assert tab.page.evaluate("byId('audio').paused")
    # Back to the recording while it plays: it goes on from the same place, and the other one is quiet.
    tab.press("s")
    tab.wait("audio === byId('audio') && !audio.paused && audio.currentTime > 1.1")
    tab.wait("document.querySelector('[data-speaks]').paused")
    tab.page.locator("#play").click()
    # The label follows the event of the pause, which the browser queues after `paused` has changed.
    tab.wait("audio.paused && byId('play').innerText === 'Play'")
    assert button.inner_text() == "What the tokens say"
    # A token is heard in the one that was chosen last, and the clock is that of either.
    tab.press("s")
    tab.page.evaluate("select(0, 3)")
    tab.page.evaluate("playChosen()")
    tab.wait("audio.paused && audio.currentTime >= lanes[0].items[3].end")
    assert tab.page.evaluate("audio.dataset.speaks") == "0"
    tab.wait("Math.abs(byId('clock').textContent - audio.currentTime) < 0.02")
    assert tab.complaints == []
