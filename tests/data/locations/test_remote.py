"""Audio on object stores: lists of folders and manifests, reading by a server that fails, and clear errors."""

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import numpy as np
import pytest
import soundfile
import torch
from s3_server import S3Server

import spintok.data.locations.remote
from spintok.data.audio import AudioError, declared_samples, read, record
from spintok.data.locations.addresses import source_of
from spintok.data.locations.remote import RemoteError, RemoteFile, file_system
from spintok.data.manifest import ManifestError, Utterance, read_manifest, scan

SPEECH = sorted(Path("tests/speech").glob("*.flac"))

pytestmark = [
    # botocore's own.
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]


@pytest.fixture
def speech(server: S3Server) -> S3Server:
    """A server with the sample speech in a bucket, some of it in a folder, and what is not audio."""
    for path in SPEECH:
        folder = "deep/er/" if path.name < "d" else ""
        server.objects[f"bucket/wavs/{folder}{path.name}"] = path.read_bytes()
    server.objects |= {
        "bucket/wavs/notes.txt": b"none",
        "bucket/wavs/.hidden/a.flac": b"none",
        "bucket/wavs-2/b.flac": b"none",
        "bucket/wavs/code.ts": b"let x = 1;",
    }
    return server


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def local(folder: Path) -> list[Utterance]:
    """The same files in a local folder."""
    for path in SPEECH:
        where = folder / ("deep/er" if path.name < "d" else ".") / path.name
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(path.read_bytes())
    return scan(folder)


def test_a_folder_is_listed_as_a_local_one(speech: S3Server, tmp_path: Path) -> None:
    found = scan("s3://bucket/wavs/")
    here = local(tmp_path)
    assert [u.key for u in found] == [u.key for u in here]
    assert [str(u.path) for u in found] == [f"s3://bucket/wavs/{u.path.relative_to(tmp_path)}" for u in here]
    speech.asked.clear()
    # Its sizes and versions are in the list: nothing is asked for each file.
    assert [source_of(u.path)[0] for u in found] == [u.path.stat().st_size for u in here]
    assert speech.asked == []
    assert source_of(str(found[0].path)) == source_of(found[0].path)
    assert [u.key for u in scan("s3://bucket")][-2:] == ["wavs/fred_yes", "wavs-2/b"]


@pytest.mark.parametrize("part", [1 << 25, 30_000])
def test_reading_survives_a_server_that_fails(
    speech: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(spintok.data.locations.remote, "PART", part)
    found = scan("s3://bucket/wavs")
    speech.faults = {"500": 0.1, "503": 0.1, "truncated": 0.2, "lost": 0.1, "slow": 0.01}
    for utterance, here in zip(found, local(tmp_path), strict=True):
        assert torch.equal(read(utterance.path), read(here.path))
    assert sum(speech.met.values()) > 2


@pytest.mark.parametrize("small", [0, 1 << 23])
def test_the_copy_of_a_long_recording_is_deleted_after_use(
    speech: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr("spintok.data.locations.base._SMALL", small)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = SPEECH[-1]
    recording = record(f"s3://bucket/wavs/{path.name}", 100)
    speech.objects.clear()
    assert recording.waveform is None
    assert recording.seconds == pytest.approx(len(read(path)) / 16_000)
    for _ in range(2):
        assert torch.equal(torch.cat(list(recording.blocks())), read(path))
    # A kill would leave nothing behind.
    assert list(tmp_path.iterdir()) == []
    copies = len(list(Path("/proc/self/fd").iterdir()))
    del recording
    assert len(list(Path("/proc/self/fd").iterdir())) == copies - 1


def test_copies_without_proc_are_deleted_too(speech: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: not str(self).startswith("/proc") and exists(self))
    audio = RemoteFile("s3://bucket/wavs/fred_yes.flac").local()
    assert [Path(audio.path)] == list(tmp_path.iterdir())
    del audio
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3"])
def test_lengths_are_read_from_headers(server: S3Server, tmp_path: Path, ending: str) -> None:
    soundfile.write(tmp_path / f"a.{ending}", np.random.default_rng(0).standard_normal(400_000) * 0.1, 16_000)
    content = (tmp_path / f"a.{ending}").read_bytes()
    server.objects[f"bucket/a.{ending}"] = content
    url = f"s3://bucket/a.{ending}"
    assert declared_samples(url) == declared_samples(tmp_path / f"a.{ending}")
    assert (server.sent < len(content)) == (ending != "mp3")
    if ending != "mp3":
        server.objects[f"bucket/a.{ending}"] = b"no audio"
        with pytest.raises(AudioError, match=rf"^{url}: libsndfile cannot read it"):
            declared_samples(url)


def test_a_file_that_is_replaced_has_another_source(speech: S3Server) -> None:
    url = "s3://bucket/wavs/fred_yes.flac"
    before = source_of(url)
    assert before == source_of(url)
    assert before is not None
    content = speech.objects["bucket/wavs/fred_yes.flac"]
    speech.objects["bucket/wavs/fred_yes.flac"] = bytes([content[0] ^ 1]) + content[1:]
    after = source_of(url)
    assert after is not None
    assert (after[0], after[1] != before[1]) == (before[0], True)
    del speech.objects["bucket/wavs/fred_yes.flac"]
    assert source_of(url) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3://bucket/nothing", "s3://bucket/nothing: no such file, folder or bucket"),
        ("s3://nowhere/wavs/", "s3://nowhere/wavs/: no such file, folder or bucket"),
        ("s3://nowhere/list.jsonl", "s3://nowhere/list.jsonl: no such file"),
        ("s3://private/wavs", "s3://private/wavs: "),
        ("s3://bucket/text", "s3://bucket/text: no audio files in this folder"),
    ],
)
def test_a_source_that_cannot_be_listed_is_one_line(speech: S3Server, name: str, message: str) -> None:
    speech.denied.add("private")
    speech.objects["bucket/text/a.txt"] = b"a"
    with pytest.raises(ManifestError) as caught:
        scan(name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    if "private" in name:
        assert "Forbidden" in str(caught.value) or "AccessDenied" in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(speech: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AudioError, match=r"^s3://bucket/wavs/no.flac: no such file$"):
        read("s3://bucket/wavs/no.flac")
    speech.objects["bucket/wavs/empty.flac"] = b""
    with pytest.raises(AudioError, match=r"^s3://bucket/wavs/empty.flac: the file is empty"):
        read("s3://bucket/wavs/empty.flac")
    monkeypatch.setattr(spintok.data.locations.remote, "PAUSES", (0.01,))
    speech.faults = {"503": 1.0}
    with pytest.raises(AudioError, match=r"^s3://bucket/wavs/fred_yes.flac: [^:]*\(after 2 tries\)$"):
        read("s3://bucket/wavs/fred_yes.flac")


def test_missing_credentials_are_one_line(speech: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ManifestError, match=r"^s3://bucket/wavs: Unable to locate credentials$"):
        scan("s3://bucket/wavs")


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("no module named gcsfs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ValueError, match=r"gs:// needs gcsfs .*: pip install 'spintok\[gs\]'"):
        scan("gs://bucket/wavs")


def test_manifests_may_be_anywhere_and_name_files_anywhere(
    memory: fsspec.AbstractFileSystem, speech: S3Server, tmp_path: Path
) -> None:
    here = SPEECH[0].resolve()
    lines = f'{{"path": "{here}", "id": "a"}}\n{{"path": "s3://bucket/wavs/fred_yes.flac"}}\n{{"path": "../x/b.wav"}}\n'
    memory.pipe("/lists/list.jsonl", lines.encode())
    found = read_manifest("memory://lists/list.jsonl")
    assert [(u.key, str(u.path)) for u in found] == [
        ("a", str(here)),
        ("s3://bucket/wavs/fred_yes", "s3://bucket/wavs/fred_yes.flac"),
        ("../x/b", "memory://x/b.wav"),
    ]
    assert torch.equal(read(found[1].path), read(SPEECH[-1]))
    (tmp_path / "list.jsonl").write_text(lines)
    assert [str(u.path) for u in scan(tmp_path / "list.jsonl")][1] == "s3://bucket/wavs/fred_yes.flac"
    for root in ("s3://bucket/wavs", "."):
        memory.pipe("/lists/list.tsv", f"{root}\nfred_yes.flac\t14080\ndeep/er/x.flac\t1\n".encode())
        found = scan("memory://lists/list.tsv")
        assert [u.key for u in found] == ["fred_yes", "deep/er/x"]
        base = "memory://lists" if root == "." else root
        assert [str(u.path) for u in found] == [f"{base}/fred_yes.flac", f"{base}/deep/er/x.flac"]
    memory.pipe("/lists/wav.scp", b"utt s3://bucket/wavs/fred_yes.flac\n")
    memory.pipe("/lists/utt2spk", b"utt fred\n")
    (utterance,) = scan("memory://lists/wav.scp")
    assert (utterance.key, str(utterance.path), utterance.speaker) == (
        "utt",
        "s3://bucket/wavs/fred_yes.flac",
        "fred",
    )


def test_a_web_server_will_do(tmp_path: Path) -> None:
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory="tests/speech")) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        (utterance,) = scan(f"{url}/fred_yes.flac")
        try:
            assert torch.equal(read(utterance.path), read(SPEECH[-1]))
            with pytest.raises(ManifestError, match="no such file"):
                scan(f"{url}/none.flac")
        finally:
            server.shutdown()
            thread.join()


def test_any_file_system_of_fsspec_will_do(memory: fsspec.AbstractFileSystem) -> None:
    file_system.cache_clear()
    memory.pipe("/wavs/x/fred.flac", SPEECH[-1].read_bytes())
    (utterance,) = scan("memory://wavs")
    assert utterance.key == "x/fred"
    assert torch.equal(read(utterance.path), read(SPEECH[-1]))
    before = source_of("memory://wavs/x/fred.flac")
    memory.pipe("/wavs/x/fred.flac", SPEECH[-1].read_bytes())
    assert source_of("memory://wavs/x/fred.flac") != before
    (one,) = scan("memory://wavs/x/fred.flac")
    assert (one.key, str(one.path)) == ("fred", "memory://wavs/x/fred.flac")


def test_a_web_server_that_fails_is_not_a_missing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spintok.data.locations.remote, "PAUSES", (0.01,))
    answers: list[int] = []

    class Failing(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.append(int(self.path.strip("/.flac")))
            self.send_error(answers[-1])

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            with pytest.raises(FileNotFoundError):
                RemoteFile(f"{url}/404.flac").examine()
            with pytest.raises(RemoteError, match="500.*after 2 tries"):
                RemoteFile(f"{url}/500.flac").examine()
            # Another try would not mend this.
            before = len(answers)
            with pytest.raises(RemoteError, match=r"403") as refused:
                RemoteFile(f"{url}/403.flac").examine()
            assert "tries" not in str(refused.value)
            assert len(answers) == before + 2
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(RemoteError, match="Cannot connect"):
        RemoteFile(f"{url}/1.flac").examine()
