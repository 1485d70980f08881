"""Files that align one utterance, each written as its tool writes it, to the same intervals."""

import json
from pathlib import Path

import pytest

from spintok.data.labels.alignment_files import read_alignments
from spintok.data.labels.alignments import SILENCE_LABELS, Alignment, AlignmentError, Interval

PHONES = (Interval("SIL", 0.0, 0.1), Interval("HH", 0.1, 0.15), Interval("AY", 0.15, 0.4))
WORDS = (Interval("hi", 0.1, 0.4),)

MFA_JSON = {
    "start": 0,
    "end": 0.4,
    "tiers": {
        "anna - words": {"type": "interval", "entries": [[0.1, 0.4, "hi"]]},
        "anna - phones": {"type": "interval", "entries": [[0.0, 0.1, ""], [0.1, 0.15, "HH"], [0.15, 0.4, "AY"]]},
    },
}
PRAAT_JSON = {
    "tiers": [
        {"class": "IntervalTier", "name": name.rpartition(" ")[2], **tier} for name, tier in MFA_JSON["tiers"].items()
    ]
}
MFA_CSV = """Begin,End,Label,Type,Speaker
0.1,0.4,hi,words,anna
0.0,0.1,SIL,phones,anna
0.1,0.15,HH,phones,anna
0.15,0.4,AY,phones,anna
"""
WHISPERX = {
    "segments": [
        {"start": 0.1, "end": 0.4, "text": " hi 5", "words": [{"word": "hi", "start": 0.1, "end": 0.4, "score": 0.9}]},
        {"start": 0.5, "end": 0.9, "text": " 5", "words": [{"word": "5"}]},
    ],
    "language": "en",
}
TIMIT = "0 1600 SIL\n1600 2400 HH\n2400 6400 AY\n"
HTK = "0 1000000 SIL -3.5\n1000000 1500000 HH\n1500000 4000000 AY\n"
SECONDS = "0.0 0.1 SIL\n0.1 0.15 HH\n0.15 0.4 AY\n"
XWAVES = "separator ;\nnfields 1\n#\n    0.1 125 SIL\n    0.15 125 HH\n    0.4 125 AY\n"
AUDACITY = "0.0\t0.1\tSIL\n\\\t200.0\t8000.0\n0.1\t0.15\tHH\n0.15\t0.4\tAY\n"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("u.json", json.dumps(MFA_JSON), Alignment(PHONES, WORDS)),
        ("u.json", json.dumps(PRAAT_JSON, indent=1), Alignment(PHONES, WORDS)),
        ("u.csv", MFA_CSV, Alignment(PHONES, WORDS)),
        ("u.json", json.dumps(WHISPERX), Alignment((), WORDS)),
        ("u.json", json.dumps({"word_segments": WHISPERX["segments"][0]["words"]}), Alignment((), WORDS)),
        ("u.PHN", TIMIT, Alignment(PHONES)),
        ("u.wrd", "1600 6400 hi\n", Alignment((), WORDS)),
        ("u.lab", HTK, Alignment(PHONES)),
        ("u.lab", SECONDS, Alignment(PHONES)),
        ("u.lab", XWAVES, Alignment(PHONES)),
        ("u.lab", XWAVES[XWAVES.index("#") :], Alignment(PHONES)),
        ("u.txt", AUDACITY, Alignment(PHONES)),
    ],
)
def test_every_format_gives_the_same_intervals(tmp_path: Path, name: str, text: str, expected: Alignment) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_alignments(tmp_path / name) == {"u": expected}
    # Also in a folder, where the path is the key.
    (tmp_path / "all/anna").mkdir(parents=True)
    (tmp_path / "all/anna" / name).write_text(text, encoding="utf-8")
    assert read_alignments(tmp_path / "all") == {"anna/u": expected}


def test_unnamed_tiers_are_what_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "u.txt").write_text("0.1\t0.4\thi\n", encoding="utf-8")
    assert read_alignments(tmp_path / "u.txt", level="words") == {"u": Alignment((), WORDS)}
    (tmp_path / "u.json").write_text(json.dumps(WHISPERX), encoding="utf-8")
    assert read_alignments(tmp_path / "u.json", level="phones") == {"u": Alignment((), WORDS)}


def test_a_folder_of_timit(tmp_path: Path) -> None:
    """Phones and words are in two files, and the transcript is no alignment."""
    for name, text in (("SA1.PHN", TIMIT), ("SA1.WRD", "1600 6400 hi\n"), ("SA1.TXT", "0 6400 Hi.\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_alignments(tmp_path) == {"SA1": Alignment(PHONES, WORDS)}
    (tmp_path / "SA1.phn").write_text(TIMIT, encoding="utf-8")
    with pytest.raises(AlignmentError, match=r"SA1\.phn: and SA1\.PHN are alignments of the same utterance"):
        read_alignments(tmp_path)


def test_json_lines_in_a_json_file_are_still_read(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text('{"id": "a", "aligner": "MFA", "words": [["hi", 0.1, 0.4]]}\n', encoding="utf-8")
    assert read_alignments(tmp_path / "all.json") == {"a": Alignment((), WORDS, "MFA")}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("u.csv", "Begin,End\n0,1\n", "expected the columns Begin, End, Label and Type"),
        ("u.csv", MFA_CSV + "0.4,0.5\n", "expected the columns Begin, End, Label and Type"),
        ("u.csv", MFA_CSV.replace("0.15,0.4", "late,0.4"), "could not convert string to float: 'late'"),
        ("u.json", '{"segments": [{"words": [{"word": "5"}]}]}', "no word has times"),
        ("u.json", '{"tiers": {"phones": {}}}', "KeyError"),
        ("u.json", '{"tiers": {"notes": {"entries": []}}}', "no tier is called phones or words, only 'notes'"),
        ("u.phn", "0 1600\n", "line 1: expected START END LABEL in samples"),
        ("u.phn", "0 a SIL\n", "invalid literal"),
        ("u.lab", "0.0 0.2 a\n0.1 0.3 b\n", "overlap"),
        ("u.txt", "nan\t0.1\ta\n", "lasts from nan to 0.1 s"),
        ("u.txt", "0.1 0.2 a\n", "line 1: expected START END LABEL"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(AlignmentError, match=message) as raised:
        read_alignments(tmp_path / name)
    assert name in str(raised.value)


def test_silence_of_kaldi_and_charsiu() -> None:
    assert {"SIL", "SIL_S", "SIL_B", "SPN_S", "NSN", "[SIL]", "h#", "pau"} <= SILENCE_LABELS
    assert not {"S", "SH", "AH_S", ""} & SILENCE_LABELS
