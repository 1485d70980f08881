"""Make docs/listen: recordings, and what decoders make of their tokens, as small Ogg Opus files on a page.

    python docs/listen/make.py WORK

WORK: the folder of recipes/resynthesis.py, with the tokenizers, the decoders, dev.jsonl and the figures. Recordings of
dev.jsonl are not in the repository: the page has their texts, and the decoders' voice instead of theirs. The sample
recordings of tests/speech are there as they are. Rows whose decoder is not in WORK keep what the page has of them.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes"))

from resynthesis import ROWS, decoder_of, read_result, result_of, tokenizer_of  # noqa: E402

from spintok.data.audio import read  # noqa: E402
from spintok.data.manifest import Utterance  # noqa: E402
from spintok.decoder import load_decoder  # noqa: E402
from spintok.evaluate.resynthesis import Recognizer  # noqa: E402
from spintok.frames import SAMPLE_RATE  # noqa: E402

HERE = Path(__file__).parent
KBITS = 16
SAMPLES = {
    "anna_tokens": "Speech becomes tokens, and tokens become speech again.",
    "beth_river": "The river runs slowly past the old stone bridge.",
    "carl_river": "The river runs slowly past the old stone bridge.",
    "eve_bus": "Nine people waited in the rain for the last bus home.",
}
"""Synthesized recordings of tests/speech, and their texts."""

SPEAKERS = 8
"""Speakers of dev.jsonl, evenly chosen, one recording of each."""

SETS = {"held-out": "the decoders' voice", "dev": "other people"}
"""Title of each set of the recipe."""

HEAD = """# Hear the tokens
What is left of speech in tokens can be heard: a decoder that was trained on one voice speaks the codes and durations of
any recording, and so in its own voice, with a melody that it has to guess. `python docs/listen/make.py WORK` made this
page with the decoders of `recipes/resynthesis.py`, which have one recipe for all rows. "Heard" is what PocketSphinx, a
weak recogniser, makes of the sound.

The first recordings are those of `tests/speech`, made by espeak-ng and flite, which no training heard. The others are
of people of the development set, whose own recordings are not part of this repository: speechocean762 (Zhang et al.
2021) and LibriSpeech (Panayotov et al. 2015, CC BY 4.0). The voice is that of rhasspy/dataset-voice-kathleen (CC0).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="the folder of recipes/resynthesis.py")
    parser.add_argument("--utterances", type=int, default=30, help="as the recipe was told, for its figures")
    options = parser.parse_args()
    make(options.work, HERE, options.utterances)


def make(work: Path, folder: Path, utterances: int) -> None:
    """Write the page and its sounds into a folder."""
    page = folder / "index.md"
    kept = kept_lines(page.read_text(encoding="utf-8") if page.exists() else "")
    recognizer = Recognizer()
    speakers = {
        row: (tokenizer_of(row, work), load_decoder(decoder_of(row, work)))
        for row in ROWS
        if (decoder_of(row, work) / "config.json").exists()
    }
    lines = [HEAD, *figures(work, utterances)]
    for title, text, recording, shown in recordings(work):
        lines += [f"## {title}\n{text}\n", "| tokens | sound | heard |", "|---|---|---|"]
        if shown:
            sound = read(recording.path).numpy()
            lines.append(line("the recording", folder / f"{recording.key}.ogg", sound, recognizer))
        for row in ROWS:
            file = folder / f"{recording.key}-{row.tokenizer}-{row.codebook}.ogg"
            if row in speakers:
                tokenizer, decoder = speakers[row]
                tokens = tokenizer.encode(recording.path, codebook=row.codebook)
                lines.append(line(row.name, file, decoder.decode(tokens).numpy(), recognizer))
            elif file.name in kept:
                lines.append(kept[file.name])
        lines.append("")
    page.write_text("\n".join(lines), encoding="utf-8")


def kept_lines(page: str) -> dict[str, str]:
    """The lines of a page that have a sound, by the name of its file."""
    return {found[1]: text for text in page.splitlines() if (found := re.search(r'src="([^"]+)"', text))}


def figures(work: Path, utterances: int) -> list[str]:
    """The error rates of the rows that were judged, without the intervals, which are in docs/results.md."""
    names = [f"{what}, {title}" for what in ("WER, %", "DNSMOS") for title in SETS.values()]
    lines = ["| tokens | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in ROWS:
        paths = {name: result_of(row, name, work, utterances) for name in SETS}
        if not all(path.exists() for path in paths.values()):
            continue
        found = [read_result(path).values for path in paths.values()]
        if len(lines) == 2:
            lines.append(figure_line("the recordings", found, "_of_recording"))
        lines.append(figure_line(row.name, found, ""))
    note = f"{utterances} utterances each; intervals, and what else was measured: [results](../results.md#resynthesis)."
    return [*lines, "", note, ""] if len(lines) > 2 else []


def figure_line(name: str, found: Sequence[Mapping[str, float]], suffix: str) -> str:
    """A line of the table of figures."""
    cells = [f"{values[f'wer{suffix}']:.0f}" for values in found]
    cells += [f"{values[f'dnsmos{suffix}']:.1f}" for values in found]
    return f"| {name} | " + " | ".join(cells) + " |"


def recordings(work: Path) -> list[tuple[str, str, Utterance, bool]]:
    """Title, text, recording, and whether the page may have the recording itself."""
    found = []
    for key, text in SAMPLES.items():
        found.append((f"{key.split('_')[0].capitalize()}, synthesized", text,
                      Utterance(key, ROOT / f"tests/speech/{key}.flac"), True))  # fmt: skip
    by_speaker: dict[str, list[dict]] = {}
    for row in map(json.loads, (work / "dev.jsonl").read_text(encoding="utf-8").splitlines()):
        by_speaker.setdefault(row["speaker"], []).append(row)
    names = sorted(by_speaker)
    for number, place in enumerate(np.linspace(0, len(names) - 1, SPEAKERS).round().astype(int).tolist(), start=1):
        # The longest up to five seconds, or the shortest.
        rows = sorted(by_speaker[names[place]], key=lambda row: row["num_samples"])
        row = ([one for one in rows if one["num_samples"] <= 5 * SAMPLE_RATE] or rows[:1])[-1]
        about = ", ".join(str(row[field]) for field in ("sex", "age") if row.get(field) is not None)
        title = f"Speaker {number} of {row['source']}" + (f" ({about})" if about else "")
        found.append((title, row["text"], Utterance(f"speaker-{number}", Path(row["path"])), False))
    return found


def line(name: str, file: Path, sound: NDArray[np.float32], recognizer: Recognizer) -> str:
    """Write a sound as Ogg Opus, and return its line of the table."""
    level = (256 - KBITS) / 250
    soundfile.write(file, np.clip(sound, -1, 1), SAMPLE_RATE, format="OGG", subtype="OPUS",
                    compression_level=level)  # fmt: skip
    heard = " ".join(recognizer.words(sound))
    return f'| {name} | <audio controls preload="none" src="{file.name}"></audio> | {heard} |'


if __name__ == "__main__":
    main()
