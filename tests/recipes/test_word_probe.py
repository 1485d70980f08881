"""The script that asks how much of a word its tokens keep."""

import json

from scripts import run_script
from small_models import save_tiny


def test_words_that_were_heard_in_training_are_found(speech, tmp_path) -> None:
    save_tiny(tmp_path / "tiny", size=30)
    # s1 is held out: its CRC-32 is divisible by eight.
    speakers = ("s0", "s1")
    rows = [
        {"id": f"{speaker}-{path.stem}", "path": str(path), "text": path.stem, "speaker": speaker}
        for path in sorted(speech.glob("*.flac"))
        for speaker in speakers
    ]
    words = tmp_path / "words.jsonl"
    words.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = run_script("recipes/word_probe.py", tmp_path / "tiny", words, "--utterances", "18")
    assert shown.splitlines() == [
        "6 words; 6 utterances to train, 6 to test; correct, %:",
        "tokens and pairs of tokens: 100.0",
        "mean features: 100.0",
    ]
