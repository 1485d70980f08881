import base64
import json
import re

import numpy as np
import pytest
from pages import Page

from spintok.corpus.tokens import Options, encode_corpus, read_corpus
from spintok.data.manifest import scan
from spintok.report import corpus_report
from spintok.report.corpus import survey
from spintok.report.heatmap import heat_map, sorted_phones
from spintok.report.usage import lorenz, run_length_chart, time_chart, usage_chart
from spintok.stats import TokenCounts, metrics
from spintok.tokens import Tokens


@pytest.fixture(scope="module")
def page(token_folder, phones, evaluation) -> Page:
    return Page(corpus_report(token_folder, alignments=phones, evaluation=evaluation))


@pytest.fixture(scope="module")
def rows(token_folder) -> list[dict]:
    """The folder's utterances as JSON, read without spintok."""
    shards = sorted(token_folder.glob("tokens-*.jsonl"))
    return [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]


def test_numbers_on_the_page_are_the_statistics(page, token_folder) -> None:
    figures = json.loads((token_folder / "stats.json").read_text())["figures"]
    shown = {row[0]: row[1] for row in page.rows() if len(row) == 2}
    single = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    assert len(single) > 20
    for name, value in single.items():
        np.testing.assert_allclose(float(shown[name].replace(",", "")), value, rtol=1e-4, err_msg=name)
    summary = " ".join(" ".join(page.all("dl")).split())
    assert f"Tokens{figures['tokens']:,}after" in summary
    assert f"Token rate{figures['token_rate']:.2f}a second" in summary
    bars = {row[0]: row[2] for row in page.rows() if len(row) == 3}
    for name in ("frame", "token", "entropy"):
        (text,) = [value for key, value in bars.items() if key.startswith(f"{name} bitrate")]
        assert text == f"{figures[f'{name}_bitrate']:.1f} bit/s"


def test_charts_hold_what_the_shards_hold(page, rows) -> None:
    units = np.concatenate([row["units"] for row in rows])
    counts = np.bincount(units, minlength=100)
    charts = page.data["charts"]
    found = [
        re.match(r"Rank (\d+): code (\d+)\n(?:([\d,]+) tokens|never used)", p[2]).groups() for p in charts["usage"]
    ]
    assert [int(rank) for rank, _, _ in found] == list(range(1, 101))
    assert sorted(int(code) for _, code, _ in found) == list(range(100))
    for _, code, tokens in found:
        assert int((tokens or "0").replace(",", "")) == counts[int(code)]
    durations = np.concatenate([row["duration"] for row in rows])
    ones = re.search(r"1 frame, 20 ms\n([\d.]+)\s%", charts["run-lengths"][0][2]).group(1)
    assert float(ones) == round(100 * np.mean(durations == 1), 1)
    assert len(charts["speakers"]) == 6
    speakers = [point[2].splitlines()[0].removeprefix("Speaker ") for point in charts["speakers"]]
    assert sorted(speakers) == sorted(row["speaker"] for row in rows)


def test_the_heat_map_is_p_phone_given_code(page, rows, phones) -> None:
    heat = page.data["heat"]
    share = np.frombuffer(base64.b64decode(heat["share"]), dtype=np.uint8).reshape(len(heat["phones"]), -1) / 255
    counts = np.zeros((4, 100))
    aligned = {row["id"]: row["phones"] for row in map(json.loads, phones.read_text().splitlines())}
    for row in rows:
        codes = np.repeat(row["units"], row["duration"])
        for frame, code in enumerate(codes):
            now = 0.02 * frame + 0.0125
            for label, start, end in aligned.get(row["key"], []):
                if start <= now < end:
                    counts[heat["phones"].index(label), code] += 1
    assert heat["phones"] == ["AA", "T", "<b>", "SIL"]
    assert sorted(heat["codes"]) == np.flatnonzero(counts.sum(axis=0)).tolist()
    np.testing.assert_array_equal(heat["frames"], counts.sum(axis=0)[heat["codes"]])
    expected = (counts / np.maximum(counts.sum(axis=0), 1))[:, heat["codes"]]
    np.testing.assert_allclose(share, expected, atol=0.5 / 255 + 1e-9)
    main = expected.argmax(axis=0)
    assert main.tolist() == sorted(main)


def test_robustness_bars_are_the_evaluation(page, evaluation) -> None:
    figures = json.loads(evaluation.read_text())["tokenizers"][0]["metrics"]["robustness"]["figures"]
    rows = {row[0]: row for row in page.rows() if len(row) == 3}
    noise = "dB signal-to-noise ratio, white noise"
    shown = {"gain_-12": "gain \u221212dB louder", "white_20": f"white 20{noise}", "white_0": "white 0"}
    for name, head in shown.items():
        figure = figures[f"ued_mean_{name}"]
        assert rows[head][2] == f"{figure['value']:.1f} [{figure['low']:.1f}, {figure['high']:.1f}]"
    assert "ued_pooled_white_0" in rows


def test_codes_of_silence_are_named_and_offered_to_stats(
    page, token_folder, rows, phones, evaluation, tmp_path
) -> None:
    spoken, silent = np.zeros(100), np.zeros(100)
    aligned = {row["id"]: row["phones"] for row in map(json.loads, phones.read_text().splitlines())}
    for row in rows:
        for frame, code in enumerate(np.repeat(row["units"], row["duration"])):
            for label, start, end in aligned.get(row["key"], []):
                if start <= 0.02 * frame + 0.0125 < end:
                    (silent if label == "SIL" else spoken)[code] += 1
    expected = np.flatnonzero(silent > spoken).tolist()
    assert 0 < len(expected) < 100
    codes = ",".join(map(str, expected))
    assert page.all("pre") == [f"spintok stats six-voices/ --silence {codes}"]
    assert f"{len(expected)} of 100 codes stand for silence" in " ".join(page.all("p"))
    # Without alignments they come from an evaluation of the same codebook.
    measured = json.loads(evaluation.read_text())
    measured["tokenizers"][0]["metrics"]["phones"] = {"figures": {}, "details": {"silence_codes": [4, 2]}}
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(measured))
    found = Page(corpus_report(token_folder, evaluation=path))
    assert found.all("pre") == ["spintok stats six-voices/ --silence 4,2"]
    assert "silence" not in Page(corpus_report(token_folder, evaluation=path, codebook="auxiliary")).ids
    assert "silence" not in Page(corpus_report(token_folder)).ids


def test_another_codebook(token_folder, rows) -> None:
    page = Page(corpus_report(token_folder, codebook="auxiliary"))
    units = np.concatenate([row["auxiliary_units"] for row in rows])
    assert f"Tokens{units.size:,}after" in " ".join(" ".join(page.all("dl")).split())
    assert len(page.data["charts"]["usage"]) == 300
    assert "heat" not in page.data
    assert "robustness" not in page.ids


def test_memory_is_that_of_counts(token_folder) -> None:
    """A survey of batches is the sum of surveys of utterances."""
    description, records = read_corpus(token_folder)
    whole = survey(token_folder)
    parts = [TokenCounts.of(record.tokens["primary"], record.speaker) for record in records]
    total = TokenCounts.empty(100)
    for part in parts:
        total += part
    assert whole.corpus.counts == total
    assert whole.corpus.joint.total == total.frames.sum()
    assert list(description["codebooks"]) == ["primary", "auxiliary"]


def test_the_lorenz_curve_gives_the_gini_coefficient() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 100, 5000):
        counts = rng.geometric(0.01, size) - 1
        counts[0] += 1
        figures = metrics(_statistics(counts))
        curve = lorenz(counts)
        assert curve[0] == 0
        np.testing.assert_allclose(curve[-1], 1)
        # Twice the area between the diagonal and the curve.
        np.testing.assert_allclose(1 - 2 * np.trapezoid(curve, dx=1 / size), figures["gini"], atol=1e-12)


def test_charts_of_extreme_codebooks() -> None:
    one = _statistics(np.array([7]))
    assert "every codeword occurs" in usage_chart(one, metrics(one)).finding
    dead = _statistics(np.array([5, 0, 0]))
    chart = usage_chart(dead, metrics(dead))
    assert "2 never occur" in chart.finding
    assert [point.text.endswith("never used") for point in chart.points] == [False, True, True]
    large = _statistics(np.arange(20_000))
    chart = usage_chart(large, metrics(large))
    assert len(chart.points) == 1000
    assert len(chart.table.rows) + chart.table.more == 20_000
    assert all(0 <= point.x <= 1 and 0 <= point.y <= 1 for point in chart.points)


def test_long_runs_share_the_last_bar() -> None:
    codes = np.repeat([0, 1, 0], [1, 2, 400])
    statistics = TokenCounts.of(Tokens(codes, 2))
    chart = run_length_chart(statistics, metrics(statistics))
    assert len(chart.points) == 30
    assert chart.points[-1].text == "30 frames or more\n33.3\u00a0% of tokens"
    assert chart.x_ticks[-1].label == "30+"


def test_time_is_drawn_from_two_seconds_on() -> None:
    short = TokenCounts.of(Tokens(np.zeros(50, dtype=int), 2))
    assert time_chart(short, metrics(short)) is None
    longer = TokenCounts.of(Tokens(np.arange(150) % 2, 2))
    chart = time_chart(longer, metrics(longer))
    assert [point.text.splitlines()[1] for point in chart.points] == ["50.00 tokens a second"] * 3


def test_phones_are_sorted_by_manner() -> None:
    assert sorted_phones(["SIL", "T", "ə", "AA1", "M", "S", "AA0", "spn"]) == [
        "AA0", "AA1", "M", "S", "T", "ə", "SIL", "spn",
    ]  # fmt: skip


def test_a_heat_map_of_a_huge_codebook_keeps_the_frequent_codes() -> None:
    from spintok.data.labels.alignments import Interval
    from spintok.stats.label_counts import LabelCounts

    codes = np.concatenate([np.arange(3000), np.arange(1500)])
    heat = heat_map(LabelCounts.of(Tokens(codes, 4096), [Interval("AA", 0, 1000)]))
    assert len(heat.codes) == 2000
    assert heat.left_out == 1000
    assert set(range(1500)) <= set(heat.codes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codebook": "third"}, "no codebook 'third'"),
        ({"evaluation": "none.json"}, "no such file"),
        ({"evaluation": "text.json"}, "not the JSON that spintok evaluate writes"),
        ({"evaluation": "other.json"}, "measures rival, with other weights"),
        ({"alignments": "other.jsonl"}, "no utterance has an alignment"),
        ({"alignments": "late.jsonl"}, "no frame of these tokens has a phone"),
    ],
)
def test_what_does_not_belong_together(tmp_path, token_folder, arguments, message) -> None:
    (tmp_path / "text.json").write_text('{"tokenizers": [3]}')
    (tmp_path / "other.json").write_text('{"tokenizers": [{"name": "rival", "fingerprint": "f", "metrics": {}}]}')
    (tmp_path / "other.jsonl").write_text('{"id": "unknown", "phones": [["AA", 0, 1]]}')
    (tmp_path / "late.jsonl").write_text('{"id": "fred_yes", "phones": [["AA", 100, 101]]}')
    paths = {name: tmp_path / value if "." in value else value for name, value in arguments.items()}
    with pytest.raises(ValueError, match=message):
        corpus_report(token_folder, **paths)


def test_a_folder_without_tokens(tmp_path, speech, two_codebooks) -> None:
    import soundfile

    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/click.wav", np.zeros(100), 16_000)
    encode_corpus(two_codebooks, scan(tmp_path / "in"), tmp_path / "out", Options())
    with pytest.raises(ValueError, match="holds no tokens"):
        corpus_report(tmp_path / "out")
    with pytest.raises(ValueError, match="not a folder of tokens"):
        corpus_report(tmp_path / "in")


def _statistics(counts: np.ndarray) -> TokenCounts:
    """Each code so often, in runs of one frame, as far as one code after another is another code."""
    size = len(counts)
    utterances = ((Tokens(np.array([code]), size), None) for code in np.repeat(np.arange(size), np.minimum(counts, 3)))
    base = TokenCounts.collect([] if size > 1000 else utterances, size)
    runs = np.array([0, int(counts.sum())])
    return TokenCounts(base.utterances, counts, counts, runs, base.bigrams, base.over_time)
