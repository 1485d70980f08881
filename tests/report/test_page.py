import base64
import hashlib
import re
from importlib.resources import files

import numpy as np
import pytest
from pages import Page

from spintok.report import corpus_report, recording_report
from spintok.report.charts import Table, linear_ticks, log_ticks, thinned
from spintok.report.page import number, percent, render

EVIL = "<script>window.hit=1</script>\"'&<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module", params=["corpus", "recording"])
def page(request, token_folder, phones, evaluation, speech, two_codebooks) -> Page:
    if request.param == "corpus":
        return Page(corpus_report(token_folder, alignments=phones, evaluation=evaluation))
    return Page(recording_report(speech / "beth_river.flac", two_codebooks, alignments=phones))


def test_a_page_needs_nothing_but_itself(page) -> None:
    # base64 has no colon.
    assert not re.search(r"https?:", page.text)
    assert not re.search(r"@import|url\(|src:", page.all("style")[0])
    for _, attributes in page.elements:
        assert not attributes.keys() & {"srcset", "action", "ping", "background", "poster"}
        for name in ("src", "href", "data"):
            assert attributes.get(name, "data:").startswith("data:")


def test_the_policy_names_the_only_script_that_runs(page) -> None:
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.all("script")[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_a_page_is_html5_that_can_be_read_aloud(page) -> None:
    assert page.text.startswith("<!DOCTYPE html>\n<html lang=")
    for tag, attributes in page.elements:
        for reference in ("aria-labelledby", "aria-describedby", "for"):
            assert set((attributes.get(reference) or "").split()) <= page.ids
        if tag in ("canvas", "svg"):
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
        if attributes.get("role") == "slider":
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]
    assert [tag for tag, _ in page.elements].count("h1") == 1


def test_names_are_text_wherever_they_stand() -> None:
    data = {"charts": {EVIL: [[0, 0, EVIL]]}}
    lanes = [{"name": EVIL, "coded": coded, "shown": True} for coded in (False, True, True)]
    common = {"title": EVIL, "tokenizers": [(EVIL, "f" * 64)] * 2, "summary": Table.of((EVIL, EVIL), [(EVIL, EVIL)])}
    spoken = {"lane": 0, "sound": "data:,"} | dict.fromkeys(("label", "decoder", "voice", "codebook"), EVIL)
    common |= {"seconds": 1.0, "sound": "data:,", "sound_format": "wav", "spoken": [spoken]}
    page = Page(render("recording", data, lanes=lanes, **common))
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "img" not in [tag for tag, _ in page.elements]
    assert page.all("h1") == [EVIL]
    assert page.data == data


def test_a_file_with_a_hostile_name(tmp_path, speech, two_codebooks) -> None:
    path = tmp_path / "<img src=x onerror=alert(1)>.flac"
    path.write_bytes((speech / "fred_yes.flac").read_bytes())
    page = Page(recording_report(path, two_codebooks))
    assert page.all("h1") == [path.name]
    assert "img" not in [tag for tag, _ in page.elements]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.2, "20 %"), (0.2345, "23.4 %"), (1e-4, "0.01 %"), (0.99999, "99.999 %"),
     (1e-9, "1.0e-07 %"), (0.0004, "0.04 %")],
)  # fmt: skip
def test_percentages(share, text) -> None:
    # The space does not break.
    assert percent(share) == text.replace(" ", "\u00a0")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,234,567"), (12.3456, "12.3"), (0.123456, "0.123"), (1234.5, "1,234"), (1e-7, "1.0e-07"),
     (-2.5, "-2.50")],
)  # fmt: skip
def test_numbers(value, text) -> None:
    assert number(value) == text


@pytest.mark.parametrize("highest", [0.0003, 0.07, 1, 3, 9.99, 10, 54, 1e6])
def test_linear_ticks_are_round_and_reach_the_highest(highest) -> None:
    top, ticks = linear_ticks(highest)
    labels = [float(tick.label) for tick in ticks]
    np.testing.assert_allclose(labels, [tick.at * top for tick in ticks], rtol=1e-9)
    assert highest <= top * (1 + 1e-9)
    assert 2 <= len(ticks) <= 7
    digits = f"{labels[1]:e}".split("e")[0].rstrip("0").rstrip(".")
    assert digits in ("1", "2", "5")


@pytest.mark.parametrize(("lowest", "highest"), [(0.01, 0.01), (0.003, 0.03), (1e-7, 0.4), (0.5, 1.0), (0.2, 0.2)])
def test_log_ticks_enclose_what_is_shown(lowest, highest) -> None:
    low, high, ticks = log_ticks(lowest, highest)
    assert 10**low <= lowest * 1.00001
    assert highest <= 10**high * 1.00001
    assert low < high
    for tick in ticks:
        np.testing.assert_allclose(float(tick.label.split()[0]) / 100, 10 ** (low + tick.at * (high - low)), rtol=1e-6)


def test_many_points_are_thinned_and_keep_their_ends() -> None:
    assert thinned(5) == [0, 1, 2, 3, 4]
    many = thinned(70_000)
    assert len(many) == 1000
    assert (many[0], many[-1]) == (0, 69_999)


def test_text_can_be_read_on_its_ground_in_both_themes() -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what carries meaning in a picture."""
    style = (files("spintok.report") / "assets/page.css").read_text(encoding="utf-8")
    colours = {n: (a, b) for n, a, b in re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", style)}
    chips = re.search(r"light-dark\(oklch\(([\d.]+) ([\d.]+) var\(--hue\)\), oklch\(([\d.]+) ([\d.]+) var", style)
    assert chips
    for theme in (0, 1):
        rgb = {name: _hexadecimal(pair[theme]) for name, pair in colours.items()}
        for text, ground in [
            ("ink", "ground"), ("soft", "ground"), ("ink", "panel"), ("soft", "panel"), ("accent", "ground"),
            ("second", "ground"), ("second", "wash"), ("ground", "accent"), ("ground", "ink"),
        ]:  # fmt: skip
            assert _contrast(rgb[text], rgb[ground]) >= 4.5, (theme, text, ground)
        assert _contrast(rgb["mark"], rgb["ground"]) >= 3
        lightness, chroma = map(float, chips.groups()[2 * theme : 2 * theme + 2])
        worst = min(_contrast(rgb["code-ink"], _oklch(lightness, chroma, hue)) for hue in range(360))
        assert worst >= 4.5
        for name in ("heat", "sound"):
            light = [_luminance(rgb[f"{name}-{i}"]) for i in range(4)]
            assert light == sorted(light, reverse=theme == 0)


def _hexadecimal(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _linear(rgb: np.ndarray) -> np.ndarray:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _luminance(rgb: np.ndarray) -> float:
    return float(_linear(rgb) @ [0.2126, 0.7152, 0.0722])


def _contrast(first: np.ndarray, second: np.ndarray) -> float:
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _oklch(lightness: float, chroma: float, hue: int) -> np.ndarray:
    """Ottosson 2020, "A perceptual color space for image processing", clipped to sRGB."""
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    lms = np.array(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    matrix = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    linear = np.clip(np.array(matrix) @ lms**3, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
