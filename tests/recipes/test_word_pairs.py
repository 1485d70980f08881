"""Pairs of words and non-words: what is replaced, and that both are spoken alike."""

import json
import shutil
from pathlib import Path

import pytest
import soundfile
from judged import needs_judges
from scripts import run_script

LEXICON = """
BASE\tB EY0 S
CASE\tK EY1 S
FACE\tF EY1 S
FACES\tF EY1 S IH0 Z
FASTEN\tF AE1 S AH0 N
LESSON\tL EH1 S AH0 N
LETTER\tL EH1 T ER0
BETTER\tB EH1 T ER0
LATER\tL EY1 T ER0
BASES\tB EY1 S IH0 Z
BASIN\tB EY1 S AH0 N
MASON\tM EY1 S AH0 N
MAKER\tM EY1 K ER0
BAKER\tB EY1 K ER0
"""


@needs_judges
@pytest.mark.parametrize(
    ("synthesizer", "voices"), [("espeak-ng", ("en-us+f2", "en-gb")), ("flite", ("flite:slt", "flite:rms"))]
)
def test_pairs(tmp_path: Path, synthesizer: str, voices: tuple[str, ...]) -> None:
    if shutil.which(synthesizer) is None:
        pytest.skip(f"{synthesizer} is not installed")
    (tmp_path / "lexicon.txt").write_text(LEXICON.strip(), encoding="utf-8")
    rows = [{"id": f"{i}", "path": "a.wav", "text": "Faces, basin; mason! Maker baker case"} for i in range(3)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = [tmp_path / "lexicon.txt", tmp_path / "texts.jsonl", tmp_path / "out"]
    shown = run_script("recipes/word_pairs.py", *files, "--voices", *voices)
    # These texts have nothing but the words.
    assert "a 4-gram model of the phones of the texts prefers 100.0% of the words" in shown
    found = [json.loads(line) for line in (tmp_path / "out/pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    lexicon = {line.split("\t")[1] for line in LEXICON.strip().splitlines()}
    # Only words of four phones or more that the texts have.
    assert {row["word"] for row in found} <= {"faces", "basin", "mason", "maker", "baker"}
    assert len(found) % 4 == 0
    assert found
    for real, false in zip(found[::2], found[1::2], strict=True):
        assert (real["kind"], false["kind"], real["pair"]) == ("real", "false", false["pair"])
        assert (real["speaker"], real["word"]) == (false["speaker"], false["word"])
        assert real["phones"] in lexicon
        assert false["phones"] not in lexicon
        changed = [(a, b) for a, b in zip(real["phones"].split(), false["phones"].split(), strict=True) if a != b]
        assert len(changed) == 1
        lengths = [soundfile.info(tmp_path / "out" / row["path"]).frames for row in (real, false)]
        # With the sentence around them.
        assert min(lengths) > 20_000
