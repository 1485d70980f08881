"""The table of resynthesis in docs/results.md: one recipe of a decoder for the tokens of several tokenizers.

    python recipes/resynthesis.py SPEECH WORK > resynthesis.md

SPEECH: a folder with train.jsonl and dev.jsonl; utterances of ``--speaker`` in train.jsonl are the voice. The script
trains K-means and Spin on the encoder of dc-spin-10m-en, then for each row of the table a decoder (recipes/voice.toml)
unless one ships, which leaves out a tenth of the voice's utterances, and judges what the decoders make of the tokens of
these and of dev.jsonl.
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

from spintok.data.labels.alignments import PHONE_CLASSES
from spintok.data.labels.transcripts import manifest_texts
from spintok.data.manifest import Utterance, read_manifest
from spintok.decoder import load_decoder
from spintok.decoder.loading import shipped_decoders
from spintok.evaluate.bootstrap import difference, interval
from spintok.evaluate.metric import MetricInputs, Result
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.options import Dataset, EvaluationOptions
from spintok.evaluate.resynthesis import METRIC
from spintok.loading import load
from spintok.tokenizer import Tokenizer

DC_SPIN = "dc-spin-10m-en"

WORST = 6
"""So many phones are named in the table of phones."""

FEWEST = 20
"""A class of phones that the texts have less often is left out: its intervals are wider than what there is to see."""

HOLD_OUT = 10
"""As in recipes/voice.toml: utterances whose CRC-32 of the key this divides are not trained on."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: the name of the row.
        tokenizer: its name, or its folder in WORK.
        codebook: the codebook whose tokens are decoded.
        size: its number of codewords.
        latency: the latency of its tokens, in seconds; None for those of whole recordings.
        voice: the decoder of this recipe that ships for these tokens; None if the script trains one.
    """

    name: str
    tokenizer: str
    codebook: str
    size: int
    latency: float | None = None
    voice: str | None = None


ROWS = (
    Row("dc-spin-10m-en, 50", DC_SPIN, "units-50", 50),
    Row("dc-spin-10m-en, 100", DC_SPIN, "primary", 100, voice="dc-spin-10m-en-100-kathleen"),
    Row("dc-spin-10m-en, 200", DC_SPIN, "units-200", 200),
    Row("dc-spin-10m-en, 500", DC_SPIN, "units-500", 500, voice="dc-spin-10m-en-500-kathleen"),
    Row("Spin on its encoder, 100", "spin-100", "primary", 100),
    Row("Spin on its encoder, 500", "spin-500", "primary", 500),
    Row("K-means of its encoder, 100", "kmeans-100", "primary", 100),
    Row("K-means of its encoder, 500", "kmeans-500", "primary", 500),
    Row("K-means on MFCC, 100", "mfcc-kmeans-100", "primary", 100),
    Row(
        "dc-spin-stream-10m-en at 320 ms, 100",
        "dc-spin-stream-10m-en",
        "primary",
        100,
        latency=0.32,
        voice="dc-spin-stream-10m-en-100-kathleen",
    ),
)

TRAINED = {
    "kmeans": ("small_kmeans", "kmeans.size", "layer=12"),
    "spin": (
        "small_4_spin",
        "codebooks.0.size",
        "train_layers=0",
        "views.variants=1",
        "data.seconds=64",
        "data.workers=0",
        "optimizer.steps=600",
        'loop.precision="float32"',
    ),
}
"""Tokenizers that the script trains, by the first word of their names: recipe, setting of the size, other settings."""

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
        for lines in (table(rows, results), phone_table(rows, results), differences(rows, results)):
            print(*lines, "", sep="\n")


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
    return str(work / row.tokenizer) if row.tokenizer.startswith(tuple(TRAINED)) else row.tokenizer


def tokenizer_of(row: Row, work: Path) -> Tokenizer:
    """The tokenizer of a row, at its latency."""
    return load(folder_of(row, work)).at(row.latency)


def make_tokenizer(row: Row, work: Path) -> None:
    """Train the codewords of a row on the last layer of the encoder, which stays as it is, if they are not there."""
    folder = Path(folder_of(row, work))
    if folder.parent == work and not (folder / "config.json").exists():
        recipe, size, *settings = TRAINED[row.tokenizer.split("-")[0]]
        run("train", recipe, "--data", work / "seventh.jsonl", "--init", DC_SPIN, "--output", folder,
            *with_settings(f'name="{row.tokenizer}"', f"{size}={row.size}", *settings))  # fmt: skip


def with_settings(*settings: str) -> list[str]:
    """Options of ``spintok train``."""
    return [option for setting in settings for option in ("--set", setting)]


def make_decoder(row: Row, work: Path) -> None:
    """Train the decoder of a row, if it neither ships nor is there."""
    folder = decoder_of(row, work)
    if not (folder / "config.json").exists():
        settings = [f'codebook="{row.codebook}"', f'analysis="{work / "analysis"}"']
        settings += [] if row.latency is None else [f"latency={row.latency:g}"]
        run("train", "voice", "--data", work / "voice.jsonl", "--init", folder_of(row, work), "--output", folder,
            *with_settings(*settings))  # fmt: skip


def decoder_of(row: Row, work: Path) -> Path:
    """The folder of a row's decoder: one that ships, or one in WORK."""
    if row.voice is not None:
        return shipped_decoders()[row.voice]
    return work / "decoders" / f"{row.tokenizer}-{row.codebook}"


def measure(row: Row, name: str, arguments: argparse.Namespace) -> Result:
    """The figures of a row on a set, from the file of an earlier run if there is one."""
    path = result_of(row, name, arguments.work, arguments.utterances)
    if path.exists():
        return read_result(path)
    manifest = arguments.work / f"{name}.jsonl"
    utterances: list[Utterance] = read_manifest(manifest)
    target = tuple(read_manifest(arguments.work / "target.jsonl"))
    dataset = Dataset(tuple(utterances), {}, NoiseSources(), manifest_texts(manifest), target)
    options = EvaluationOptions(codebook=row.codebook, resynthesis_utterances=arguments.utterances)
    decoder = load_decoder(decoder_of(row, arguments.work))
    tokenizer = tokenizer_of(row, arguments.work)
    decoder.check(tokenizer.fingerprint, row.codebook)

    def progress(task: str, done: float, total: float, note: str = "") -> None:
        print(f"\r{row.name}, {name}: {done:.0f} of {total:.0f}", end="", file=sys.stderr)

    found = METRIC.measure(MetricInputs(tokenizer, dataset, options, progress, decoder=decoder))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found


def result_of(row: Row, name: str, work: Path, utterances: int) -> Path:
    """The file of the figures of a row on a set."""
    return work / "results" / f"{row.tokenizer}-{row.codebook}-{name}-{utterances}.json"


def read_result(path: Path) -> Result:
    """The figures in a file."""
    return Result(**json.loads(path.read_text(encoding="utf-8")))


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


def pairs(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Numbers of rows to compare: each with DC-Spin of the same size, and DC-Spin of other sizes with that of 100."""
    found = []
    for one, row in enumerate(rows):
        for two, base in enumerate(rows):
            if base.tokenizer != DC_SPIN or one == two:
                continue
            if row.size == base.size or (row.tokenizer == DC_SPIN and base.size == 100):
                found.append((one, two))
    return found


def differences(rows: Sequence[Row], results: Sequence[Result]) -> list[str]:
    """The error rates of rows over words, and over classes of phones, minus those of others, paired."""
    lines = []
    for one, two in pairs(rows):
        found, base = results[one], results[two]
        words = difference_of("wer", base, found)
        lines.append(f"* WER of {rows[one].name}, minus that of {rows[two].name}: {words}")
        if classes := classes_of(found):
            phones = "; ".join(f"{name} {difference_of(f'phone_errors_{name}', base, found)}" for name in classes)
            lines.append(f"    * phones: {difference_of('phone_errors', base, found)}; {phones}")
    return lines


def difference_of(name: str, first: Result, second: Result) -> str:
    """The second value minus the first, and its interval, in bold if that excludes 0."""
    value = second.values[name] - first.values[name]
    text = f"{value:+.1f}"
    if name in first.draws and name in second.draws:
        found = difference(first.draws[name], second.draws[name], value)
        text += f" [{found['low']:+.1f}, {found['high']:+.1f}]"
        return text if found["low"] <= 0 <= found["high"] else f"**{text}**"
    return text


def phone_table(rows: Sequence[Row], results: Sequence[Result]) -> list[str]:
    """Errors of all phones and of each class, and the phones with the most new errors; nothing without texts."""
    classes = classes_of(results[0])
    if not classes:
        return []
    names = ["phone_errors", *(f"phone_errors_{one}" for one in classes)]
    lines = ["| tokens | all phones | " + " | ".join(classes) + " | most errors more than in the recordings |"]
    lines.append("|---" * (len(names) + 2) + "|")
    cells = [cell(results[0], f"{name}_of_recording", 1) for name in names]
    lines.append("| the recordings | " + " | ".join(cells) + " | |")
    for row, result in zip(rows, results, strict=True):
        cells = [cell(result, name, 1) for name in names]
        lines.append(f"| {row.name} | " + " | ".join(cells) + f" | {worst(result)} |")
    return lines


def classes_of(result: Result) -> list[str]:
    """The classes of phones that the texts have often enough; none without texts."""
    heard = result.details.get("phones", {}).get("recording", {})
    return [
        name
        for name, phones in PHONE_CLASSES.items()
        if sum(heard[phone]["count"] for phone in phones if phone in heard) >= FEWEST
    ]


def worst(result: Result) -> str:
    """The phones with the most errors more than in the recordings, and how many of how many are wrong in either."""
    tokens, recording = result.details["phones"]["tokens"], result.details["phones"]["recording"]
    more = {phone: found["wrong"] - recording[phone]["wrong"] for phone, found in tokens.items() if phone}
    chosen = sorted(more, key=lambda phone: (-more[phone], phone))[:WORST]
    return ", ".join(
        f"{phone} {tokens[phone]['wrong']} for {recording[phone]['wrong']} of {tokens[phone]['count']}"
        for phone in chosen
    )


if __name__ == "__main__":
    main()
