"""Workers that write to an object store, on a server that fails now and then."""

from pathlib import Path

import pytest
from s3_server import S3Server

import spintok.data.locations.remote
from spintok.corpus import CorpusError, Options, encode_corpus
from spintok.corpus.cluster.store import ObjectStore
from spintok.data.locations.remote import RemoteError
from tests.corpus.jobs import encode
from tests.corpus.scale_faults import shards

URL = "s3://bucket/tokens"

pytestmark = [
    # botocore's own.
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]


def stored(server: S3Server) -> dict[str, bytes]:
    """The objects in the output folder, but those of work in progress."""
    names = ((name.removeprefix("bucket/tokens/"), content) for name, content in server.objects.items())
    return {name: content for name, content in names if not name.startswith(".work/")}


def test_leases_need_a_conditional_put(server: S3Server) -> None:
    store = ObjectStore(URL)
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert store.read("a") == b"first"
    assert store.grow("a", 7)
    assert store.sizes() == {"a": 7}
    store.delete("a", "b")
    assert store.read("a") is None
    assert store.sizes() == {}


@pytest.mark.parametrize("faults", [{}, {"500": 0.1, "503": 0.1, "lost": 0.1, "truncated": 0.1, "slow": 0.02}])
def test_the_bytes_are_those_of_a_local_folder(
    mfcc, recordings, tmp_path: Path, server: S3Server, faults: dict[str, float]
) -> None:
    encode(mfcc, recordings, tmp_path / "alone")
    server.faults = faults
    # A lease whose answer is lost is taken again after this time.
    options = Options(shard_size=2, shared=True, lease_seconds=2.0)
    summary = encode_corpus(mfcc, recordings, URL, options)
    assert (summary.total, summary.encoded, summary.failures) == (5, 5, [])
    assert stored(server) == shards(tmp_path / "alone")
    assert set(server.met) <= set(faults)
    assert bool(server.met) == bool(faults)
    again = encode_corpus(mfcc, recordings, URL, options)
    assert (again.encoded, again.resumed) == (0, 5)
    assert again.counts == summary.counts


def test_bytes_that_are_damaged_on_their_way_are_written_again(
    mfcc, recordings, tmp_path: Path, server: S3Server
) -> None:
    encode(mfcc, recordings, tmp_path / "alone")
    server.faults = {"damaged": 0.3}
    encode_corpus(mfcc, recordings, URL, Options(shard_size=2))
    assert server.met["damaged"] > 3
    assert stored(server) == shards(tmp_path / "alone")


def test_a_shard_that_is_damaged_later_is_an_error(mfcc, recordings, server: S3Server) -> None:
    encode_corpus(mfcc, recordings, URL, Options(shard_size=2))
    server.objects["bucket/tokens/tokens-00001.jsonl"] += b"\n"
    with pytest.raises(CorpusError, match=r"tokens-00001.jsonl is damaged: .* delete it and \.tokens-00001.jsonl.rec"):
        encode_corpus(mfcc, recordings, URL, Options(shard_size=2))
    for name in ("tokens-00001.jsonl", ".tokens-00001.jsonl.record.json"):
        del server.objects[f"bucket/tokens/{name}"]
    assert encode_corpus(mfcc, recordings, URL, Options(shard_size=2)).encoded == 2


def test_ranks_need_no_leases(mfcc, recordings, tmp_path: Path, server: S3Server) -> None:
    encode(mfcc, recordings, tmp_path / "alone")
    for rank in (1, 0):
        encode_corpus(mfcc, recordings, URL, Options(shard_size=2, rank=rank, ranks=2))
    assert stored(server) == shards(tmp_path / "alone")


def test_a_store_that_stays_away_is_an_error(mfcc, recordings, server: S3Server, monkeypatch) -> None:
    monkeypatch.setattr(spintok.data.locations.remote, "PAUSES", (0.01,))
    server.faults = {"503": 1.0}
    with pytest.raises(RemoteError, match=r"s3://bucket/tokens/.*after 2 tries"):
        encode_corpus(mfcc, recordings, URL, Options(shared=True))


def test_a_store_without_conditional_put_has_no_leases(mfcc, recordings) -> None:
    with pytest.raises(CorpusError, match="its share by --rank and --ranks"):
        encode_corpus(mfcc, recordings, "memory://tokens", Options(shared=True))


def test_a_server_that_ignores_conditions_has_no_leases(mfcc, recordings, tmp_path: Path, server: S3Server) -> None:
    server.conditional = False
    with pytest.raises(CorpusError, match="its share by --rank and --ranks"):
        encode_corpus(mfcc, recordings, URL, Options(shared=True))
    assert server.objects == {}
    encode(mfcc, recordings, tmp_path / "alone")
    for rank in (1, 0):
        encode_corpus(mfcc, recordings, URL, Options(shard_size=2, rank=rank, ranks=2))
    assert stored(server) == shards(tmp_path / "alone")
