"""The table of resynthesis in docs/results.md: one recipe of a decoder for the tokens of several tokenizers.

    python recipes/resynthesis.py SPEECH WORK > resynthesis.md

SPEECH: a folder with train.jsonl and dev.jsonl; utterances of ``--speaker`` in train.jsonl are the voice. The script
trains K-means on the encoder of dc-spin-10m-en, then for each row of the table a decoder (recipes/voice.toml), which
leaves out a tenth of the voice's utterances, and judges what the decoders make of the tokens of these and of dev.jsonl.
Everything stays in WORK, so a second run goes on. ``--rows`` chooses rows, ``--utterances`` how many of either set are
judged.
"""

import argparse
import json
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from spintok.data.labels.transcripts import manifest_texts
from spintok.data.manifest import Utterance, read_manifest
from spintok.decoder import load_decoder
from spintok.evaluate.bootstrap import difference, interval
from spintok.evaluate.metric import MetricInputs, Result
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.options import Dataset, EvaluationOptions
from spintok.evaluate.resynthesis import METRIC
from spintok.loading import load

HOLD_OUT = 10
"""As in recipes/voice.toml: utterances whose CRC-32 of the key this divides are not trained on."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: of the row.
        tokenizer: its name, or its folder in WORK.
        codebook: the codebook whose tokens are decoded.
        size: its number of codewords.
    """

    name: str
    tokenizer: str
    codebook: str
    size: int


ROWS = (
    Row("dc-spin-10m-en, 50", "dc-spin-10m-en", "units-50", 50),
    Row("dc-spin-10m-en, 100", "dc-spin-10m-en", "primary", 100),
    Row("dc-spin-10m-en, 200", "dc-spin-10m-en", "units-200", 200),
    Row("dc-spin-10m-en, 500", "dc-spin-10m-en", "units-500", 500),
    Row("K-means of its encoder, 100", "kmeans-100", "primary", 100),
    Row("K-means of its encoder, 500", "kmeans-500", "primary", 500),
    Row("K-means on MFCC, 100", "mfcc-kmeans-100", "primary", 100),
)

COLUMNS = (
    ("WER", "wer", 1),
    ("CER", "cer", 1),
    ("WER against the words heard in the recording", "wer_against_recording", 1),
    ("DNSMOS", "dnsmos", 2),
    ("F0 error, cents", "f0_rmse", 0),
    ("the same without register", "f0_contour_rmse", 0),
    ("voicing error, %", "voicing_error", 1),
    ("similarity to the recording", "speaker_to_source", 2),
    ("to other speakers", "speaker_to_others", 2),
    ("to the voice", "speaker_to_target", 2),
)
OF_RECORDING = {
    "wer": "wer_of_recording",
    "cer": "cer_of_recording",
    "dnsmos": "dnsmos_of_recording",
    "speaker_to_target": "recording_to_target",
}


def main() -> None:
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sets = manifests(arguments.speech, arguments.work, arguments.speaker)
    rows = [ROWS[number] for number in arguments.rows]
    for row in rows:
        make_tokenizer(row, arguments.work)
        make_decoder(row, arguments.work)
    found = {name: [measure(row, name, arguments) for row in rows] for name in sets}
    for name, results in found.items():
        print(f"## {sets[name]} ({results[0].drawn}, {results[0].details['utterances']} utterances)\n")
        print(*table(rows, results), "", *differences(rows, results), "", sep="\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path, help="folder with train.jsonl and dev.jsonl")
    parser.add_argument("work", type=Path, help="folder for tokenizers, decoders and results")
    parser.add_argument("--speaker", default="kathleen", help="the voice of the decoders")
    parser.add_argument("--rows", type=int, nargs="+", default=list(range(len(ROWS))), help="numbers of rows, from 0")
    parser.add_argument("--utterances", type=int, default=108, help="utterances of either set to judge")
    return parser.parse_args()


def manifests(speech: Path, work: Path, speaker: str) -> dict[str, str]:
    """Write the lists of utterances with absolute paths; return the titles of the sets to judge, by name."""
    train = [json.loads(line) for line in (speech / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    dev = [json.loads(line) for line in (speech / "dev.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in train + dev:
        row["path"] = str((speech / row["path"]).resolve())
    voice = [row for row in train if row["speaker"] == speaker]
    held_out = [row for row in voice if zlib.crc32(row["id"].encode()) % HOLD_OUT == 0]
    lists = {
        "voice": voice,
        "target": [row for row in voice if row not in held_out],
        "held-out": held_out,
        "dev": dev,
        "seventh": train[::7],
    }
    for name, rows in lists.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (work / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return {"held-out": "Held-out utterances of the voice", "dev": "Other speakers"}


def run(*command: object) -> None:
    """Run a command of spintok; its output goes to the terminal."""
    subprocess.run([sys.executable, "-m", "spintok", *map(str, command)], check=True, stdout=sys.stderr)


def folder_of(row: Row, work: Path) -> str:
    """The tokenizer as ``spintok.load`` takes it: a folder in WORK, or the name of one that ships."""
    return str(work / row.tokenizer) if row.tokenizer.startswith("kmeans-") else row.tokenizer


def make_tokenizer(row: Row, work: Path) -> None:
    """Train K-means on the last layer of the encoder, if the row needs it and it is not there."""
    folder = Path(folder_of(row, work))
    if folder.parent == work and not (folder / "config.json").exists():
        run("train", "small_kmeans", "--data", work / "seventh.jsonl", "--init", "dc-spin-10m-en", "--set", "layer=12",
            "--set", f"kmeans.size={row.size}", "--set", f'name="{row.tokenizer}"', "--output", folder)  # fmt: skip


def make_decoder(row: Row, work: Path) -> None:
    """Train the decoder of a row, if it is not there."""
    folder = decoder_of(row, work)
    if not (folder / "config.json").exists():
        run("train", "voice", "--data", work / "voice.jsonl", "--init", folder_of(row, work), "--output", folder,
            "--set", f'codebook="{row.codebook}"', "--set", f'analysis="{work / "analysis"}"')  # fmt: skip


def decoder_of(row: Row, work: Path) -> Path:
    """The folder of a row's decoder."""
    return work / "decoders" / f"{row.tokenizer}-{row.codebook}"


def measure(row: Row, name: str, arguments: argparse.Namespace) -> Result:
    """The figures of a row on a set, from the file of an earlier run if there is one."""
    path = arguments.work / "results" / f"{row.tokenizer}-{row.codebook}-{name}-{arguments.utterances}.json"
    if path.exists():
        return Result(**json.loads(path.read_text(encoding="utf-8")))
    manifest = arguments.work / f"{name}.jsonl"
    utterances: list[Utterance] = read_manifest(manifest)
    target = tuple(read_manifest(arguments.work / "target.jsonl"))
    dataset = Dataset(tuple(utterances), {}, NoiseSources(), manifest_texts(manifest), target)
    options = EvaluationOptions(codebook=row.codebook, resynthesis_utterances=arguments.utterances)
    decoder = load_decoder(decoder_of(row, arguments.work))
    tokenizer = load(folder_of(row, arguments.work))
    decoder.check(tokenizer.fingerprint, row.codebook)

    def progress(task: str, done: float, total: float, note: str = "") -> None:
        print(f"\r{row.name}, {name}: {done:.0f} of {total:.0f}", end="", file=sys.stderr)

    found = METRIC.measure(MetricInputs(tokenizer, dataset, options, progress, decoder=decoder))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found


def table(rows: Sequence[Row], results: Sequence[Result]) -> list[str]:
    """A line for the recordings and one for each row."""
    columns = [column for column in COLUMNS if column[1] in results[0].values]
    lines = ["| tokens | " + " | ".join(label for label, _, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    first = results[0]
    cells = [cell(first, OF_RECORDING[name], digits) if name in OF_RECORDING else "" for _, name, digits in columns]
    lines.append("| the recordings | " + " | ".join(cells) + " |")
    for row, result in zip(rows, results, strict=True):
        cells = [cell(result, name, digits) for _, name, digits in columns]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return lines


def cell(result: Result, name: str, digits: int) -> str:
    """A value and its 95 % interval."""
    value = result.values[name]
    if name not in result.draws:
        return f"{value:.{digits}f}"
    low, high = interval(result.draws[name], value)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def differences(rows: Sequence[Row], results: Sequence[Result]) -> list[str]:
    """The word error rate of each row of K-means minus that of DC-Spin of the same size, paired."""
    lines = []
    for row, result in zip(rows, results, strict=True):
        for other, base in zip(rows, results, strict=True):
            if row.tokenizer == other.tokenizer or row.size != other.size or other.tokenizer != "dc-spin-10m-en":
                continue
            value = result.values["wer"] - base.values["wer"]
            line = f"* WER of {row.name}, minus that of {other.name}: {value:+.1f}"
            if result.draws and base.draws:
                found = difference(base.draws["wer"], result.draws["wer"], value)
                line += f" [{found['low']:+.1f}, {found['high']:+.1f}]"
            lines.append(line)
    return lines


if __name__ == "__main__":
    main()
