"""Runs over recordings in tar and Parquet files, and over parts of long ones: 0 codes differ from plain files."""

import errno
import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packed_speech import parquet_of, samples_of, tar_of
from s3_server import S3Server

import spintok.data.locations.remote
from spintok.corpus import CorpusError, Options, encode_corpus, read_corpus
from spintok.corpus.verify import check_folder, compare_codes
from spintok.data.locations.addresses import absolute
from spintok.data.manifest import ManifestError, Utterance, scan
from tests.corpus.jobs import encode

RATE = 22_050

pytestmark = [
    # botocore's own.
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]


@pytest.fixture
def plain(tmp_path: Path) -> list[Utterance]:
    """Recordings of another rate, as 24-bit files; one is longer than a window."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for number in range(6):
        samples = np.random.default_rng(number).standard_normal(RATE * 40 if number == 4 else 3000 + 900 * number)
        soundfile.write(folder / f"u{number}.flac", samples * 0.1, RATE, subtype="PCM_24")
    return scan(folder)


def tars(plain: list[Utterance]) -> dict[str, bytes]:
    paths = [u.path for u in plain]
    return {"s-0.tar": tar_of(samples_of(paths[:2])), "s-1.tar": tar_of(samples_of(paths[2:]))}


def parquet(plain: list[Utterance]) -> dict[str, bytes]:
    paths = [u.path for u in plain]
    return {"a.parquet": parquet_of(paths[:4]), "b.parquet": parquet_of(paths[4:])}


def cuts(plain: list[Utterance]) -> dict[str, bytes]:
    """All recordings in a long one, and the cuts that are these recordings."""
    parts = [soundfile.read(u.path, dtype="int32")[0] for u in plain]
    lines, at = [], 0
    whole = {"id": "long", "sampling_rate": RATE, "num_samples": sum(map(len, parts)), "duration": 1.0}
    whole["sources"] = [{"type": "file", "channels": [0], "source": "long.wav"}]
    for utterance, part in zip(plain, parts, strict=True):
        span = {"start": at / RATE, "duration": len(part) / RATE}
        lines.append({"type": "MonoCut", "id": utterance.key, "channel": 0, "recording": whole, **span})
        at += len(part)
    file = plain[0].path.parent.parent / "long.wav"
    soundfile.write(file, np.concatenate(parts), RATE, subtype="PCM_24")
    return {"cuts.jsonl": "\n".join(map(json.dumps, lines)).encode(), "long.wav": file.read_bytes()}


PACK: dict[str, Callable[[list[Utterance]], Mapping[str, bytes]]] = {"tar": tars, "parquet": parquet, "cuts": cuts}


def codes(folder: Path) -> dict[str, list[int]]:
    return {record.key: record.tokens["primary"].codes.tolist() for record in read_corpus(folder)[1]}


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "cuts.jsonl" if "cuts.jsonl" in files else folder


@pytest.mark.parametrize("way", ["threads", "ranks", "shared"])
@pytest.mark.parametrize("form", PACK)
def test_no_code_differs(mfcc, plain: list[Utterance], tmp_path: Path, form: str, way: str) -> None:
    encode(mfcc, plain, tmp_path / "plain-tokens")
    found = scan(put(tmp_path / "packed", PACK[form](plain)))
    output = tmp_path / "tokens"
    if way == "threads":
        # In another company, and read by many threads.
        found = random.Random(0).sample(found, len(found))
    for options in {
        "threads": [Options(shard_size=4, workers=8)],
        "ranks": [Options(shard_size=2, rank=rank, ranks=2) for rank in (1, 0)],
        "shared": [Options(shard_size=1, shared=True)],
    }[way]:
        assert encode_corpus(mfcc, found, output, options).failures == []
    assert codes(output) == codes(tmp_path / "plain-tokens")
    assert sum(map(len, codes(output).values())) > 2000
    assert encode_corpus(mfcc, found, output, options).encoded == 0


@pytest.mark.parametrize("form", PACK)
def test_no_code_differs_on_a_store_that_fails(
    mfcc, plain: list[Utterance], tmp_path: Path, server: S3Server, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(mfcc, plain, tmp_path / "plain-tokens")
    files = PACK[form](plain)
    server.objects |= {f"bucket/{name}": content for name, content in files.items()}
    server.faults = {"500": 0.05, "truncated": 0.1, "lost": 0.05}
    # In several requests for a recording.
    monkeypatch.setattr(spintok.data.locations.remote, "PART", 100_000)
    source = "s3://bucket/cuts.jsonl" if form == "cuts" else "s3://bucket"
    assert encode_corpus(mfcc, scan(source), tmp_path / "tokens", Options(shard_size=2)).failures == []
    assert codes(tmp_path / "tokens") == codes(tmp_path / "plain-tokens")
    server.faults = {}
    assert encode_corpus(mfcc, scan(source), tmp_path / "tokens", Options(shard_size=2)).encoded == 0
    monkeypatch.setattr(spintok.data.locations.remote, "PAUSES", ())
    server.faults = {"503": 1.0}
    with pytest.raises(ManifestError, match=r"^s3://bucket.*\(after 1 tries\)$"):
        scan(source)


@pytest.mark.parametrize("form", PACK)
@pytest.mark.parametrize("format", ["jsonl", "km"])
def test_verify_finds_the_audio_by_its_addresses(
    mfcc, plain: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, format: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = os.path.relpath(put(tmp_path / "packed", PACK[form](plain)), tmp_path)
    encode(mfcc, scan(source), Path("tokens"), format)
    assert check_folder(Path("tokens")).utterances == 6
    (row,) = compare_codes(mfcc, "mfcc", Path("tokens"), ways=["alone"])
    assert (row.utterances, row.differ) == (6, 0)
    names = [absolute(record.file_name) for record in read_corpus(Path("tokens"))[1]]
    assert all(str(tmp_path / "packed") in name for name in names)


def test_a_full_disk_of_temporary_files_ends_the_run(
    mfcc, plain: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scan(put(tmp_path / "packed", tars(plain)))

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("spintok.data.locations.base._SMALL", 0)
        patch.setattr("spintok.data.locations.base.tempfile.mkstemp", full)
        with pytest.raises(CorpusError, match="no space left for copies of audio that is elsewhere; set TMPDIR"):
            encode(mfcc, found, tmp_path / "tokens")
    assert encode(mfcc, found, tmp_path / "tokens").encoded == 6


def test_files_that_are_added_or_replaced(mfcc, plain: list[Utterance], tmp_path: Path) -> None:
    folder = put(tmp_path / "packed", {"s-0.tar": tar_of({"a.flac": plain[0].path.read_bytes()})})
    options = Options(shard_size=2)
    assert encode_corpus(mfcc, scan(folder), tmp_path / "tokens", options).encoded == 1
    # Another has the same key, and comes first.
    put(folder, {"r-0.tar": tar_of({"a.flac": plain[1].path.read_bytes()})})
    assert encode_corpus(mfcc, scan(folder), tmp_path / "tokens", options).encoded == 1
    assert list(codes(tmp_path / "tokens")) == ["a", "r-0/a.flac"]
    put(folder, {"s-0.tar": tar_of({"a.flac": plain[2].path.read_bytes()})})
    assert encode_corpus(mfcc, scan(folder), tmp_path / "tokens", options).encoded == 1
    encode(mfcc, plain, tmp_path / "plain-tokens")
    right = codes(tmp_path / "plain-tokens")
    assert codes(tmp_path / "tokens") == {"a": right["u2"], "r-0/a.flac": right["u1"]}


def test_a_damaged_member_is_listed_and_the_rest_goes_on(mfcc, plain: list[Utterance], tmp_path: Path) -> None:
    content = {u.path.name: u.path.read_bytes() for u in plain[:3]}
    whole = tar_of(content)
    members = content | {"u1.flac": content["u1.flac"][:-900] + bytes(900)}
    folder = put(tmp_path / "packed", {"s-0.tar": tar_of(members), "s-1.tar": b"damaged"})
    summary = encode_corpus(mfcc, scan(folder), tmp_path / "tokens", Options())
    assert (summary.encoded, [f.key for f in summary.failures]) == (2, ["u1", "s-1.tar/"])
    assert summary.failures[0].error.startswith(f"tar://u1.flac::{folder}/s-0.tar: ")
    put(folder, {"s-0.tar": whole, "s-1.tar": tar_of({"v.flac": content["u0.flac"]})})
    repaired = encode_corpus(mfcc, scan(folder), tmp_path / "tokens", Options())
    assert (repaired.total, repaired.failures) == (4, [])
    found = codes(tmp_path / "tokens")
    assert (list(found), found["v"]) == (["u0", "u1", "u2", "v"], found["u0"])
