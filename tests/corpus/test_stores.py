"""Audio and shards on Google Cloud Storage and the Hugging Face Hub: the bytes are those of local folders."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gs_server import connected_gs_server
from hub_server import Hub, connected_hub

from spintok.corpus import CorpusError, Options, encode_corpus
from spintok.corpus.cluster.store import ObjectStore
from spintok.data.locations.addresses import source_of
from spintok.data.locations.remote import RemoteError, file_system, retried
from spintok.data.manifest import ManifestError, Utterance, scan
from tests.corpus.jobs import encode, make_recording
from tests.corpus.scale_faults import shards

# The server's wrapper leaves a pipe open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def gs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with connected_gs_server(monkeypatch):
        yield "gs://bucket"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with connected_hub(monkeypatch, tmp_path) as server:
        server.add("datasets/org/speech", {})
        monkeypatch.setenv("HF_TOKEN", "secret")
        yield server


@pytest.fixture(params=["gs", "hf"])
def root(request: pytest.FixtureRequest) -> str:
    """The address of an empty store."""
    if request.param == "gs":
        return str(request.getfixturevalue("gs"))
    request.getfixturevalue("hub")
    return "hf://datasets/org/speech"


def put(url: str, data: bytes) -> None:
    filesystem, path = file_system(url)
    filesystem.pipe_file(path, data)


def stored(url: str) -> dict[str, bytes]:
    """The files of a folder, but those of work in progress."""
    filesystem, path = file_system(url)
    filesystem.invalidate_cache()
    names = (name.removeprefix(f"{path}/") for name in filesystem.find(path))
    return {name: filesystem.cat_file(f"{path}/{name}") for name in names if not name.startswith(".work/")}


def uploaded(root: str, recordings: list[Utterance]) -> None:
    """The recordings in the folder ``wavs``, and a manifest of them."""
    for utterance in recordings:
        put(f"{root}/wavs/{utterance.path.name}", Path(utterance.path).read_bytes())
    rows = [{"id": u.key, "path": f"wavs/{u.path.name}", "speaker": u.speaker} for u in recordings]
    put(f"{root}/list.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def codes(folder: Path) -> list[str]:
    """The lines of a token folder without the address of the audio."""
    rows = [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [json.dumps({name: value for name, value in row.items() if name != "file_name"}) for row in rows]


def test_audio_is_read_from_folders_and_manifests(mfcc, recordings, root: str, tmp_path: Path) -> None:
    uploaded(root, recordings)
    encode(mfcc, recordings, tmp_path / "local")
    for source in ("wavs", "list.jsonl"):
        listed = scan(f"{root}/{source}")
        assert [u.key for u in listed] == [u.key for u in recordings]
        assert encode_corpus(mfcc, listed, tmp_path / source, Options(shard_size=2)).failures == []
        again = encode_corpus(mfcc, scan(f"{root}/{source}"), tmp_path / source, Options(shard_size=2))
        assert (again.encoded, again.resumed) == (0, 5)
    assert codes(tmp_path / "list.jsonl") == codes(tmp_path / "local")


def test_tar_files_are_read_in_place(mfcc, recordings, root: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for utterance in recordings:
            tar.add(utterance.path, f"{utterance.key}.wav")
    put(f"{root}/a.tar", (tmp_path / "a.tar").read_bytes())
    assert encode_corpus(mfcc, scan(f"{root}/a.tar"), tmp_path / "remote", Options(shard_size=2)).failures == []
    encode(mfcc, scan(tmp_path / "a.tar"), tmp_path / "local")
    assert codes(tmp_path / "remote") == codes(tmp_path / "local")


def test_a_revision_of_the_hub_is_read(mfcc, recordings, hub: Hub, tmp_path: Path) -> None:
    files = {f"wavs/{u.path.name}": Path(u.path).read_bytes() for u in recordings}
    hub.add("datasets/org/speech", files, "v1")
    hub.add("org/model", files)
    assert [u.key for u in scan("hf://org/model/wavs")] == [u.key for u in recordings]
    listed = scan("hf://datasets/org/speech@v1/wavs")
    assert encode_corpus(mfcc, listed, tmp_path / "out", Options(shard_size=2)).encoded == 5
    with pytest.raises(ManifestError, match="no such file"):
        scan("hf://datasets/org/speech/wavs")


def test_what_changes_is_encoded_again(mfcc, recordings, root: str, tmp_path: Path) -> None:
    uploaded(root, recordings)
    encode_corpus(mfcc, scan(f"{root}/wavs"), tmp_path / "out", Options(shard_size=2))
    before = source_of(scan(f"{root}/wavs")[3].path)
    put(f"{root}/wavs/3.wav", Path(make_recording(tmp_path, 9).path).read_bytes())
    put(f"{root}/wavs/9.wav", Path(make_recording(tmp_path, 9).path).read_bytes())
    listed = scan(f"{root}/wavs")
    assert source_of(listed[3].path) != before
    assert source_of(str(listed[3].path)) == source_of(listed[3].path)
    assert encode_corpus(mfcc, listed, tmp_path / "out", Options(shard_size=2)).encoded == 2


@pytest.mark.parametrize("way", ["alone", "ranks"])
def test_shards_are_those_of_a_local_folder(mfcc, recordings, root: str, tmp_path: Path, way: str) -> None:
    encode(mfcc, recordings, tmp_path / "local")
    for options in {"alone": [{}], "ranks": [{"rank": rank, "ranks": 2} for rank in (1, 0)]}[way]:
        encode_corpus(mfcc, recordings, f"{root}/tokens", Options(shard_size=2, **options))
    assert stored(f"{root}/tokens") == shards(tmp_path / "local")
    again = encode_corpus(mfcc, recordings, f"{root}/tokens", Options(shard_size=2, **options))
    assert (again.encoded, again.resumed) == (0, 5)


def test_leases_on_google_cloud_storage(mfcc, recordings, gs: str, tmp_path: Path) -> None:
    store = ObjectStore(f"{gs}/leases")
    assert store.exclusive
    assert store.sizes() == {}
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert (store.read("a"), store.grow("a", 7), store.sizes()) == (b"first", True, {"a": 7})
    store.delete("a", "b")
    assert store.read("a") is None
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda number: store.create("b", b"%d" % number), range(8))) == 1
    encode(mfcc, recordings, tmp_path / "local")
    summary = encode_corpus(mfcc, recordings, f"{gs}/tokens", Options(shard_size=2, shared=True))
    assert (summary.encoded, summary.failures) == (5, [])
    assert stored(f"{gs}/tokens") == shards(tmp_path / "local")


def test_the_command_says_nothing_of_credentials_that_it_does_not_need(recordings, gs: str, tmp_path: Path) -> None:
    uploaded(gs, recordings)
    command = [sys.executable, "-m", "spintok", "encode", f"{gs}/wavs", "out", "-t", "mfcc-kmeans-100", "--quiet"]
    source = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(codes(tmp_path / "out")) == 5


def test_the_hub_has_no_leases(mfcc, recordings, hub: Hub) -> None:
    with pytest.raises(CorpusError, match=r"^hf://datasets/org/speech/tokens: .* --rank and --ranks$"):
        encode_corpus(mfcc, recordings, "hf://datasets/org/speech/tokens", Options(shared=True))
    assert hub.repositories["datasets/org/speech"] == {"main": {}}


@pytest.mark.parametrize("name", ["wavs", "list.jsonl"])
def test_what_is_missing_is_one_line(root: str, name: str) -> None:
    for url in (f"{root}/{name}", f"{root}-none/{name}"):
        with pytest.raises(ManifestError, match=rf"^{url}: no such file") as caught:
            scan(url)
        assert "\n" not in str(caught.value)


def test_a_private_repository_needs_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.private.add("datasets/org/speech")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ManifestError, match=r"^hf://datasets/org/speech/wavs: ") as caught:
        scan("hf://datasets/org/speech/wavs")
    assert "\n" not in str(caught.value)


def test_answers_of_google_are_told_apart() -> None:
    errors = pytest.importorskip("gcsfs.retry")
    tried = []

    def call(code: int) -> str:
        tried.append(code)
        if len(tried) < 3:
            raise errors.HttpError({"code": code, "message": "no"})
        return "done"

    assert retried(lambda: call(503), "gs://bucket/a") == "done"
    tried.clear()
    with pytest.raises(RemoteError, match=r"^gs://bucket/a: no, 401$"):
        retried(lambda: call(401), "gs://bucket/a")

    def forbidden() -> None:
        raise OSError("Forbidden: https://storage/b/bucket\nno access")

    with pytest.raises(RemoteError, match=r"^gs://bucket/a: Forbidden: https://storage/b/bucket no access$"):
        retried(forbidden, "gs://bucket/a")
