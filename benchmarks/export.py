"""Compare the speed of exports with that of the obvious Python code, and measure their peak memory.

    python benchmarks/export.py                     every target, at two corpus sizes
    python benchmarks/export.py --to packed parquet --utterances 20000

The benchmark writes a token folder of random runs. Each target is timed from records in memory, alternating with the
obvious code; the figure is the least CPU time of all rounds, which other load on the machine changes little. What both
wrote is read back and compared before a ratio is printed. Then the whole command, with reading, runs in a process of
its own on the corpus and on one ``--growth`` times as large. Its peak memory must not grow with the corpus.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spintok.corpus.token_formats import Record, write_shard
from spintok.export.packed.dataset import export_packed
from spintok.export.packed.indexed import IndexedDataset
from spintok.export.source import Header, open_source
from spintok.export.targets import FILE_TARGETS, Stream, export_files
from spintok.frames import num_samples
from spintok.tokens import Tokens

K, SHARD = 500, 1000
HEADER = Header("random", "0" * 64, {"primary": K}, 50, dedup=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", nargs="*", default=[*FILE_TARGETS, "packed"], help="targets to measure")
    parser.add_argument("--utterances", type=int, default=3000, help="utterances of the corpus, of 10 s each")
    parser.add_argument("--growth", type=int, default=4, help="size of the second corpus relative to the first")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, of which the fastest counts")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        child(*arguments.child)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folders = [
            make_folder(Path(scratch, f"tokens-{times}"), arguments.utterances * times)
            for times in (1, arguments.growth)
        ]
        records = list(open_source([folders[0]]).records())
        for record in records:
            # Tokens cache their runs: compute them before either side is timed.
            _ = record.tokens["primary"].units
        print(f"{len(records)} utterances, {sum(t.num_frames for r in records for t in r.tokens.values()):,} codes\n")
        print(f"{'target':12} {'ours':>9} {'obvious':>9} {'ratio':>6}  {'command':>9}  peak memory, MB, of the command")
        print(f"{'':12} {'M/s':>9} {'M/s':>9} {'':6}  {'M/s':>9}  corpus, {arguments.growth} x corpus")
        for target in arguments.to:
            race = RACES[target]
            times = run_race(race, records, Path(scratch, "race"), arguments.rounds)
            count = tokens_in(records, race.header)
            command = [measure(target, folder, Path(scratch, f"{target}-{i}")) for i, folder in enumerate(folders)]
            whole = count * arguments.growth / command[1]["seconds"]
            print(
                f"{target:12} {count / times[0] / 1e6:9.2f} {count / times[1] / 1e6:9.2f} {times[1] / times[0]:6.2f}  "
                f"{whole / 1e6:9.2f}  {command[0]['peak']:.0f}, {command[1]['peak']:.0f}",
                flush=True,
            )


def make_folder(folder: Path, utterances: int) -> Path:
    """Write a token folder as ``spintok encode`` does: utterances of 10 s, runs of 2 frames on average."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for shard in range(-(-utterances // SHARD)):
        records = []
        for number in range(shard * SHARD, min((shard + 1) * SHARD, utterances)):
            codes = np.repeat(rng.integers(K, size=400), rng.integers(1, 4, size=400))[:500]
            tokens = {"primary": Tokens(codes, K, num_samples(500))}
            records.append(Record(f"utterance-{number}", f"/data/utterance-{number}.flac", tokens, f"s{number % 99}"))
        write_shard(folder / f"tokens-{shard:05d}.jsonl", records, "jsonl", dedup=True)
    description = {
        "spintok_tokens": 1,
        "tokenizer": "random",
        "fingerprint": HEADER.fingerprint,
        "codebooks": {"primary": K},
        "frame_rate": 50,
        "format": "jsonl",
        "dedup": True,
        "shard_size": SHARD,
        "utterances": utterances,
    }
    (folder / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Race:
    """Our writer, the obvious one, and readers of both that return the numbers of each utterance as lists."""

    header: Header
    ours: Callable[[list[Record], Path, Header], Any]
    theirs: Callable[[list[Record], Path, Header], Any]
    read_ours: Callable[[Path, Header], Iterator[list[int]]]
    read_theirs: Callable[[Path], Iterator[list[int]]]


def run_race(race: Race, records: list[Record], scratch: Path, rounds: int) -> tuple[float, float]:
    best = [float("inf"), float("inf")]
    for number in range(rounds):
        for side, write in enumerate((race.ours, race.theirs)):
            folder = scratch / f"{id(race)}-{number}-{side}"
            folder.mkdir(parents=True)
            started = time.process_time()
            write(records, folder, race.header)
            best[side] = min(best[side], time.process_time() - started)
            if number == 0:
                found = list(race.read_theirs(folder) if side else race.read_ours(folder, race.header))
                if found != [numbers_of(record, race.header) for record in records]:
                    raise SystemExit("the two sides do not agree: no figure without agreement")
    return best[0], best[1]


def numbers_of(record: Record, header: Header) -> list[int]:
    tokens = record.tokens["primary"]
    return (tokens.units if header.dedup else tokens.codes).tolist()


def tokens_in(records: list[Record], header: Header) -> int:
    return sum(len(numbers_of(record, header)) for record in records)


# What a user would write: a loop of plain Python, integers one by one, as the scripts that come with models do.


def obvious_slamkit(records: list[Record], folder: Path, header: Header) -> None:
    with (folder / "x").open("w") as file:
        for record in records:
            tokens = record.tokens["primary"]
            row = {
                "file_name": record.file_name,
                "units": [int(unit) for unit in tokens.units],
                "duration": [int(duration) for duration in tokens.durations],
            }
            file.write(json.dumps(row) + "\n")


def obvious_s3tokenizer(records: list[Record], folder: Path, header: Header) -> None:
    with (folder / "x").open("w") as file:
        for record in records:
            row = {"key": record.key, "code": [int(code) for code in record.tokens["primary"].codes]}
            file.write(json.dumps(row) + "\n")


def obvious_km(records: list[Record], folder: Path, header: Header) -> None:
    with (folder / "x").open("w") as file:
        for record in records:
            file.write(" ".join(str(code) for code in record.tokens["primary"].codes) + "\n")


def obvious_gslm(records: list[Record], folder: Path, header: Header) -> None:
    with (folder / "x").open("w") as file, (folder / "durations").open("w") as durations:
        for record in records:
            tokens = record.tokens["primary"]
            file.write(f"{record.key}|{' '.join(str(unit) for unit in tokens.units)}\n")
            durations.write(f"{record.key}|{' '.join(str(duration) for duration in tokens.durations)}\n")


def obvious_npz(records: list[Record], folder: Path, header: Header) -> None:
    arrays = {}
    for number, record in enumerate(records):
        arrays[f"{number}.units"] = record.tokens["primary"].units
        arrays[f"{number}.duration"] = record.tokens["primary"].durations
    np.savez(folder / "x.npz", **arrays)


def obvious_parquet(records: list[Record], folder: Path, header: Header) -> None:
    from datasets import Dataset

    rows = [
        {
            "key": record.key,
            "units": record.tokens["primary"].units.tolist(),
            "duration": record.tokens["primary"].durations.tolist(),
        }
        for record in records
    ]
    Dataset.from_list(rows).to_parquet(str(folder / "x.parquet"))


def obvious_webdataset(records: list[Record], folder: Path, header: Header) -> None:
    from webdataset import TarWriter

    with TarWriter(str(folder / "x.tar")) as tar:
        for number, record in enumerate(records):
            tokens = record.tokens["primary"]
            tar.write(
                {
                    "__key__": f"{number:09d}",
                    "json": {"key": record.key},
                    "units.npy": tokens.units,
                    "duration.npy": tokens.durations,
                }
            )


def obvious_lhotse(records: list[Record], folder: Path, header: Header) -> None:
    from lhotse import CutSet, MonoCut, NumpyFilesWriter

    (folder / "arrays").mkdir()
    cuts = []
    with NumpyFilesWriter(str(folder / "arrays")) as writer:
        for record in records:
            tokens = record.tokens["primary"]
            cut = MonoCut(record.key, start=0, duration=tokens.seconds, channel=0)
            cut.codes = writer.store_array(record.key, tokens.codes, frame_shift=0.02, temporal_dim=0, start=0)
            cuts.append(cut)
    CutSet.from_cuts(cuts).to_file(str(folder / "x.jsonl.gz"))


def obvious_packed(records: list[Record], folder: Path, header: Header) -> None:
    ids: list[int] = []
    lengths = []
    for record in records:
        units = [K, *(int(unit) for unit in record.tokens["primary"].units), K + 1]
        ids.extend(units)
        lengths.append(len(units))
    np.array(ids, dtype=np.uint16).tofile(folder / "x.bin")
    np.array(lengths).tofile(folder / "x.len")


def json_field(name: str) -> Callable[[Path], Iterator[list[int]]]:
    return lambda folder: (json.loads(line)[name] for line in (folder / "x").open())


def words(folder: Path) -> Iterator[list[int]]:
    return ([int(word) for word in line.rpartition("|")[2].split()] for line in (folder / "x").open())


def read_obvious_npz(folder: Path) -> Iterator[list[int]]:
    archive = np.load(folder / "x.npz")
    return (archive[name].tolist() for name in archive.files if name.endswith(".units"))


def read_obvious_parquet(folder: Path) -> Iterator[list[int]]:
    from pyarrow import parquet

    return iter(parquet.read_table(folder / "x.parquet")["units"].to_pylist())


def read_obvious_webdataset(folder: Path) -> Iterator[list[int]]:
    from webdataset import WebDataset

    return (s["units.npy"].tolist() for s in WebDataset(str(folder / "x.tar"), shardshuffle=False).decode())


def read_obvious_lhotse(folder: Path) -> Iterator[list[int]]:
    from lhotse import CutSet

    return (cut.load_codes().tolist() for cut in CutSet.from_file(folder / "x.jsonl.gz"))


def read_obvious_packed(folder: Path) -> Iterator[list[int]]:
    ends = np.cumsum(np.fromfile(folder / "x.len", dtype=np.int64))
    return (part[1:-1].tolist() for part in np.split(np.fromfile(folder / "x.bin", dtype=np.uint16), ends[:-1]))


def race_of(target: Any, dedup: bool, theirs: Any, read_theirs: Any) -> Race:
    kind = FILE_TARGETS[target]
    header = replace(HEADER, dedup=dedup)

    def ours(records: list[Record], folder: Path, header: Header) -> None:
        if isinstance(kind, Stream):
            kind.write(folder, records, header)
        else:
            kind.write(folder / kind.name.format(0), records, header)

    def read(folder: Path, header: Header) -> Iterator[list[int]]:
        found = kind.read(folder if isinstance(kind, Stream) else folder / kind.name.format(0), header)
        return (numbers_of(record, header) for record in found)

    return Race(header, ours, theirs, read, read_theirs)


def packed(records: list[Record], folder: Path, header: Header) -> None:
    from spintok.export.formats.columns import utterance_line
    from spintok.export.packed.packing import PackedDocument, Packing, write_documents
    from spintok.export.sequences.base import speech_only
    from spintok.export.vocabulary import Vocabulary

    vocabulary = Vocabulary("random", header.fingerprint, {"primary": K})
    items = (
        PackedDocument(
            "tokens",
            speech_only(r.tokens["primary"], vocabulary),
            r.tokens["primary"].durations,
            utterance_line(r),
        )
        for r in records
    )
    pad = vocabulary.special("end_speech")
    write_documents(folder, items, Packing(), "uint16", pad=pad, durations=True)


def read_packed(folder: Path, header: Header) -> Iterator[list[int]]:
    return (document[1:-1].tolist() for document in IndexedDataset(folder / "tokens"))


RACES = {
    "slamkit": race_of("slamkit", True, obvious_slamkit, json_field("units")),
    "s3tokenizer": race_of("s3tokenizer", False, obvious_s3tokenizer, json_field("code")),
    "fairseq": race_of("fairseq", False, obvious_km, words),
    "gslm": race_of("gslm", True, obvious_gslm, words),
    "npz": race_of("npz", True, obvious_npz, read_obvious_npz),
    "parquet": race_of("parquet", True, obvious_parquet, read_obvious_parquet),
    "webdataset": race_of("webdataset", True, obvious_webdataset, read_obvious_webdataset),
    "lhotse": race_of("lhotse", False, obvious_lhotse, read_obvious_lhotse),
    "packed": Race(HEADER, packed, obvious_packed, read_packed, read_obvious_packed),
}


def measure(target: str, folder: Path, output: Path) -> dict[str, float]:
    """The whole export in a process of its own: seconds without imports, and peak memory in MB."""
    run = [sys.executable, __file__, "--child", target, str(folder), str(output)]
    printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(printed.splitlines()[-1]))


def child(target: Any, folder: str, output: str) -> None:
    if target == "lhotse":
        import lhotse  # noqa: F401
    if target == "parquet":
        import pyarrow.parquet  # noqa: F401
    started = time.process_time()
    if target == "packed":
        export_packed([Path(folder)], Path(output))
    else:
        export_files([Path(folder)], Path(output), target, shard_size=SHARD)
    seconds = time.process_time() - started
    # Not getrusage: its peak is the parent's where that was higher.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak": int(peak.split()[1]) / 1024}))


if __name__ == "__main__":
    main()
