"""Runs over audio on an object store: the shards are those of local files, with resuming and changes."""

import json
from pathlib import Path

import pytest
from s3_server import S3Server

import spintok.data.locations.remote
from spintok.corpus import Options, encode_corpus, read_corpus
from spintok.data.locations.remote import RemoteError
from spintok.data.manifest import Utterance, scan
from tests.corpus.jobs import encode, make_recording

pytestmark = [
    # botocore's own.
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]


@pytest.fixture
def stored(recordings: list[Utterance], server: S3Server) -> S3Server:
    """A server with the recordings in the folder ``wavs`` of a bucket."""
    for utterance in recordings:
        server.objects[f"bucket/wavs/{utterance.path.name}"] = utterance.path.read_bytes()
    return server


def codes(folder: Path) -> dict[str, list[int]]:
    return {record.key: record.tokens["primary"].codes.tolist() for record in read_corpus(folder)[1]}


@pytest.mark.parametrize("way", ["alone", "ranks", "shared"])
def test_the_tokens_are_those_of_local_files(mfcc, recordings, stored: S3Server, tmp_path: Path, way: str) -> None:
    encode(mfcc, recordings, tmp_path / "local")
    stored.faults = {"500": 0.05, "truncated": 0.1, "lost": 0.05}
    output, listed = tmp_path / "remote", scan("s3://bucket/wavs")
    for options in {
        "alone": [Options(shard_size=2)],
        "ranks": [Options(shard_size=2, rank=rank, ranks=2) for rank in (1, 0)],
        "shared": [Options(shard_size=2, shared=True)],
    }[way]:
        assert encode_corpus(mfcc, listed, output, options).failures == []
    assert codes(output) == codes(tmp_path / "local")
    stored.faults, stored.asked = {}, []
    again = encode_corpus(mfcc, scan("s3://bucket/wavs"), output, options)
    assert again.encoded == 0
    # The list of the folder tells that nothing has changed.
    assert [ask for ask in stored.asked if "/wavs/" in ask] == []


def test_what_changes_on_the_store_is_encoded_again(mfcc, recordings, stored: S3Server, tmp_path: Path) -> None:
    lines = [json.dumps({"id": u.key, "path": f"wavs/{u.path.name}"}) for u in recordings]
    stored.objects["bucket/list.jsonl"] = "\n".join(lines).encode()
    options = Options(shard_size=2)

    def run(source: str, output: str) -> int:
        return encode_corpus(mfcc, scan(source), tmp_path / output, options).encoded

    assert (run("s3://bucket/wavs", "folder"), run("s3://bucket/list.jsonl", "list")) == (5, 5)
    other = make_recording(tmp_path, 9)
    stored.objects["bucket/wavs/3.wav"] = other.path.read_bytes()
    assert (run("s3://bucket/wavs", "folder"), run("s3://bucket/list.jsonl", "list")) == (1, 1)
    assert codes(tmp_path / "folder") == codes(tmp_path / "list")
    encode(mfcc, [other], tmp_path / "other")
    assert codes(tmp_path / "folder")["3"] == codes(tmp_path / "other")["9"]


def test_a_file_that_cannot_be_read_is_listed_and_the_rest_goes_on(
    mfcc, recordings, stored: S3Server, tmp_path: Path
) -> None:
    content = stored.objects["bucket/wavs/2.wav"]
    stored.objects["bucket/wavs/2.wav"] = content[:1000]
    summary = encode_corpus(mfcc, scan("s3://bucket/wavs"), tmp_path / "out", Options(shard_size=2))
    assert (summary.encoded, [f.key for f in summary.failures]) == (4, ["2"])
    assert summary.failures[0].error.startswith("s3://bucket/wavs/2.wav: the file is cut short")
    stored.objects["bucket/wavs/2.wav"] = content
    assert encode_corpus(mfcc, scan("s3://bucket/wavs"), tmp_path / "out", Options(shard_size=2)).encoded == 1


def test_a_store_that_goes_away_ends_the_run(
    mfcc, stored: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        stored.objects[f"bucket/wavs/x{number}.wav"] = stored.objects["bucket/wavs/2.wav"]
    listed = scan("s3://bucket/wavs")
    monkeypatch.setattr(spintok.data.locations.remote, "PAUSES", (0.0,))
    stored.faults = {"500": 1.0}
    with pytest.raises(RemoteError, match=r"s3://bucket/wavs/.*after 2 tries\) \(and 15 before it\)"):
        encode_corpus(mfcc, listed, tmp_path / "out", Options())
    stored.faults = {}
    assert encode_corpus(mfcc, listed, tmp_path / "out", Options()).encoded == 25
