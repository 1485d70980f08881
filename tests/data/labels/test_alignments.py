"""Alignments: every format to the same intervals, frames by hand, and errors that name the line."""

import json
from pathlib import Path

import pytest

from spintok.data.labels.alignment_files import read_alignments
from spintok.data.labels.alignments import (
    Alignment,
    AlignmentError,
    Interval,
    characters,
    frame_intervals,
    match,
    merge,
)

PHONES = (Interval("SIL", 0.0, 0.1), Interval("HH", 0.1, 0.15), Interval("AY", 0.15, 0.4))
WORDS = (Interval("hi", 0.1, 0.4),)

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.4
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "{prefix}words"
        xmin = 0
        xmax = 0.4
        intervals: size = 1
        intervals [1]:
            xmin = 0.1
            xmax = 0.4
            text = "hi"
    item [2]:
        class = "TextTier"
        name = "said ""1"" "
        xmin = 0
        xmax = 0.4
        points: size = 1
        points [1]:
            number = 0.2
            mark = "5"
    item [3]:
        class = "IntervalTier"
        name = "{prefix}phones"
        xmin = 0
        xmax = 0.4
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.1
            text = ""
        intervals [2]:
            xmin = 0.1
            xmax = 0.15
            text = "HH"
        intervals [3]:
            xmin = 0.15
            xmax = 0.4
            text = "AY"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
0.4
<exists>
1
"IntervalTier"
"mine"
0
0.4
3
0
0.1
""
0.1
0.15
"HH"
0.15
0.4
"AY"
"""


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


def test_every_format_gives_the_same_intervals(tmp_path: Path) -> None:
    whole = Alignment(PHONES, WORDS)
    (tmp_path / "grids" / "a").mkdir(parents=True)
    write(tmp_path / "grids" / "a" / "u1.TextGrid", LONG.format(prefix=""))
    write(tmp_path / "grids" / "u2.textgrid", LONG.format(prefix="anna - "), "utf-16")
    assert read_alignments(tmp_path / "grids") == {"a/u1": whole, "u2": whole}
    assert read_alignments(write(tmp_path / "u3.TextGrid", SHORT)) == {"u3": Alignment(PHONES)}
    rows = {"id": "u", "phones": PHONES, "words": WORDS}
    assert read_alignments(write(tmp_path / "x.jsonl", json.dumps(rows) + "\n\n")) == {"u": whole}
    ctm = ";; a remark\nu 1 0.15 0.25 AY 0.9\nu 1 0.00 0.10 SIL\nu 1 0.10 0.05 HH\n"
    assert read_alignments(write(tmp_path / "x.ctm", ctm)) == {"u": Alignment(PHONES)}
    tsv = "u\t" + ",".join(["SIL"] * 10 + ["HH"] * 5 + ["AY"] * 25) + "\n"
    phones = read_alignments(write(tmp_path / "x.tsv", tsv))
    assert phones == {"u": Alignment(PHONES)}
    words = read_alignments(write(tmp_path / "w.ctm", "u A 0.1 0.3 hi\n"), level="words")
    assert merge(phones, words) == {"u": whole}


def test_frames_take_the_label_at_their_centre() -> None:
    # Centres: 0.0125, 0.0325, 0.0525, ...
    intervals = (Interval("a", 0.0, 0.0325), Interval("b", 0.0325, 0.05), Interval("c", 0.07, 0.08))
    assert frame_intervals(intervals, 6).tolist() == [0, 1, -1, 2, -1, -1]
    # An interval that starts on a centre holds it, for any frame, however the float falls.
    for frame in range(2000):
        start = round(0.0125 + frame * 0.02, 6)
        assert frame_intervals([Interval("x", start, start + 0.0001)], frame + 2).tolist()[-2:] == [0, -1]
    assert frame_intervals((), 2).tolist() == [-1, -1]
    assert frame_intervals(intervals, 0).tolist() == []


def test_characters_share_a_word_evenly() -> None:
    found = characters([Interval("Don't", 1.0, 2.0), Interval("--", 2.0, 3.0), Interval("é", 3.0, 3.5)])
    assert [interval.label for interval in found] == ["d", "o", "n", "'", "t", "é"]
    assert [interval.start for interval in found] == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8, 3.0])
    assert found[-1].end == pytest.approx(3.5)


def test_keys_match_in_full_or_by_their_last_part() -> None:
    here, there = Alignment(PHONES), Alignment((), WORDS)
    assert match(["a/u1", "a/u2", "b/u2", "u3"], {"u1": here, "u2": there, "u3": there}) == {"a/u1": here, "u3": there}
    assert match(["u1"], {"x/u1": here}) == {"u1": here}
    with pytest.raises(AlignmentError, match="keys such as 'a', the alignments such as 'b'"):
        match(["a"], {"b": here})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.ctm", "u 1 0.0 0.1 a\nu 1 zero 0.1 b\n", r"x\.ctm:2: expected 'UTTERANCE"),
        ("x.ctm", "u 1 0.0 0.1\n", r"x\.ctm:1: expected 'UTTERANCE"),
        ("x.ctm", "u 1 0.0 0.5 a\nu 1 0.1 0.5 b\n", r"x\.ctm: u: 'a' \(to 0\.5 s\) and 'b'"),
        ("x.ctm", "u 1 0.5 -0.1 a\n", r"x\.ctm: u: 'a' lasts from 0\.5 to 0\.4 s"),
        ("x.tsv", "u a,b\n", r"x\.tsv:1: expected 'UTTERANCE<tab>"),
        ("x.tsv", "u\ta\nu\tb\n", r"x\.tsv:2: the utterance 'u' is on an earlier line"),
        ("x.jsonl", '{"id": "u", "phones": [["a", 0]]}', r"x\.jsonl:1: expected"),
        ("x.jsonl", '{"id": "u"}', r"x\.jsonl:1: neither phones nor words"),
        ("x.jsonl", "\n", r"x\.jsonl: contains no alignments"),
        ("x.jsonl", "[" * 100_000, r"x\.jsonl:1: not a JSON object"),
        ("x.jsonl", '{"id": "u", "phones": [["a", 0, 1' + "0" * 400 + "]]}", r"x\.jsonl:1: expected"),
        ("x.ctm", "u 1 1e999 1 a\n", "lasts from inf to inf"),
        ("x.TextGrid", SHORT.replace("<exists>\n1", "<exists>\n1e999"), r"x\.TextGrid:\d+: expected a count"),
        ("x.TextGrid", SHORT.replace("<exists>\n1", "<exists>\n1e99"), r"x\.TextGrid:\d+: expected a count"),
        ("x.TextGrid", "nothing", r"x\.TextGrid:1: not a TextGrid"),
        ("x.TextGrid", SHORT[:-6], r"x\.TextGrid:\d+: expected text in quotes"),
        ("x.TextGrid", SHORT.replace("0.15\n0.4", "0.15\nlate", 1), r"x\.TextGrid:\d+: expected a number"),
        ("x.TextGrid", LONG.replace("{prefix}words", "a").replace("{prefix}phones", "b"), "only 'a', 'b'"),
        ("x.lab", "a", r"x\.lab: line 1: expected START END LABEL"),
        ("x.eaf", "a", r"alignments are \.TextGrid, \.ctm, \.tsv, \.jsonl, \.json"),
    ],
)
def test_errors_say_where_and_why(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(AlignmentError, match=message):
        read_alignments(write(tmp_path / name, text))


def test_two_files_of_one_utterance_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "u.TextGrid", SHORT)
    write(tmp_path / "u.textgrid", SHORT)
    with pytest.raises(AlignmentError, match="are alignments of the same utterance"):
        read_alignments(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("none.ctm", "none.TextGrid"):
        with pytest.raises(AlignmentError, match=f"{name}: no such file"):
            read_alignments(tmp_path / name)
    with pytest.raises(AlignmentError, match=r"no \.TextGrid files in this folder"):
        read_alignments(tmp_path)
