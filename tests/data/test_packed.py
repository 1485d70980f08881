"""Recordings in tar and Parquet files: lists, audio, damage."""

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from packed_speech import parquet_of, samples_of, tar_of

from spintok.data.audio import AudioError, declared_samples, decoder_version, read
from spintok.data.locations.addresses import located, source_of
from spintok.data.locations.base import Recent
from spintok.data.locations.parquet import ParquetRow
from spintok.data.locations.remote import RemoteFile, file_system
from spintok.data.manifest import ManifestError, Utterance, scan

SPEECH = sorted(Path("tests/speech").glob("*.flac"))
KEYS = [path.stem for path in SPEECH]


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where files are put: a local folder, or one on a file system of fsspec."""
    if request.param == "local":
        yield str(tmp_path)
        return
    file_system.cache_clear()
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield "memory://packed"
    store.store.clear()


def put(where: str, content: bytes) -> None:
    with fsspec.open(where, "wb") as file:
        file.write(content)


def equal(utterances: list[Utterance], paths: list[Path]) -> bool:
    """Whether the audio is that of files, also by the text of each address."""
    return all(
        torch.equal(read(u.path), read(path))
        and torch.equal(read(str(u.path)), read(path))
        and located(str(u.path)) == u.path
        and source_of(str(u.path)) == source_of(u.path) is not None
        and declared_samples(u.path) == declared_samples(path)
        for u, path in zip(utterances, paths, strict=True)
    )


def test_tars_are_read_in_place(folder: str) -> None:
    put(f"{folder}/b/shard-001.tar", tar_of({f"./x/{n}": c for n, c in samples_of(SPEECH[4:]).items()}))
    put(f"{folder}/a.tar", tar_of({"dir/._hidden.flac": b"", **samples_of(SPEECH[:4][::-1])}))
    found = scan(folder)
    assert [u.key for u in found] == [*KEYS[:4][::-1], "x/eve_bus", "x/fred_yes"]
    assert str(found[0].path) == f"tar://{SPEECH[3].name}::{folder}/a.tar"
    assert [(u.speaker, u.seconds) for u in found[:4]] == [("d", 1.5), ("c", 1.5), ("b", 1.5), ("a", 1.5)]
    assert equal(found, [*SPEECH[:4][::-1], *SPEECH[4:]])
    assert [u.key for u in scan(f"{folder}/a.tar")] == KEYS[:4][::-1]


def test_what_others_call_duration_is_not_refused(folder: str) -> None:
    """The fields beside audio are not written for spintok; lengths are then read from the audio."""
    put(
        f"{folder}/a.tar", tar_of({"x.flac": SPEECH[0].read_bytes(), "x.json": b'{"duration": "0:03", "speaker": "d"}'})
    )
    assert [(u.speaker, u.seconds) for u in scan(folder)] == [("d", None)]


def test_numbers_in_braces_stand_for_files(folder: str) -> None:
    for number in range(8, 11):
        put(f"{folder}/s-{number:03d}.tar", tar_of(samples_of([SPEECH[number - 8]])))
    found = scan(f"{folder}/s-{{008..010}}.tar")
    assert [u.key for u in found] == KEYS[:3]
    assert equal(found, SPEECH[:3])
    put(f"{folder}/s-8.tar", tar_of(samples_of([SPEECH[5]])))
    assert [u.key for u in scan(f"{folder}/s-{{8..8}}.tar")] == ["fred_yes"]
    with pytest.raises(ManifestError, match="one range of numbers"):
        scan(f"{folder}/s-{{9..8}}.tar")
    with pytest.raises(ManifestError, match=r"numbers in braces are for \.tar and \.parquet files"):
        scan(f"{folder}/s-{{8..9}}.flac")
    with pytest.raises(ManifestError, match="s-011.tar: no such file"):
        scan(f"{folder}/s-{{009..011}}.tar")


def test_keys_that_several_files_share_are_told_apart(folder: str) -> None:
    content = tar_of({"a.flac": SPEECH[0].read_bytes(), "b.clean.flac": b"", "b.noisy.flac": b""})
    put(f"{folder}/x.tar", content)
    assert [u.key for u in scan(folder)] == ["a", "x/b.clean.flac", "x/b.noisy.flac"]
    put(f"{folder}/y.tar", tar_of({"a.flac": SPEECH[1].read_bytes()}))
    assert [u.key for u in scan(folder)] == ["x/a.flac", "x/b.clean.flac", "x/b.noisy.flac", "y/a.flac"]


@pytest.mark.parametrize("kept", ["local", "memory://kept/deep"])
def test_indexes_of_remote_tars_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    file_system.cache_clear()
    store = fsspec.filesystem("memory")
    store.store.clear()
    for number in range(3):
        store.pipe(f"/packed/s-{number}.tar", tar_of(samples_of(SPEECH[2 * number : 2 * number + 2])))
    kept = str(tmp_path / "kept") if kept == "local" else kept
    first = scan("memory://packed", kept)
    opened: list[str] = []
    open_ = RemoteFile.open
    monkeypatch.setattr(RemoteFile, "open", lambda self: (opened.append(self.name), open_(self))[1])
    monkeypatch.setattr("spintok.data.locations.tar._INDEXES", Recent(8))
    assert scan("memory://packed", kept) == first
    assert [(u.speaker, u.seconds) for u in first] == [(key[0], 1.5) for key in KEYS]
    assert opened == []
    assert equal(scan("memory://packed", kept), SPEECH)
    opened.clear()
    # Others are made of what was replaced, and instead of damaged ones.
    store.pipe("/packed/s-1.tar", tar_of(samples_of(SPEECH[:1])))
    assert len(scan("memory://packed", kept)) == 5
    assert opened == ["s-1.tar"]
    for name in fsspec.open_files(f"{kept}/*"):
        put(f"{'memory:/' if kept.startswith('memory') else ''}{name.path}", b"damaged")
    opened.clear()
    monkeypatch.setattr("spintok.data.locations.tar._INDEXES", Recent(8))
    assert len(scan("memory://packed", kept)) == 5
    assert sorted(opened) == ["s-0.tar", "s-1.tar", "s-2.tar"]
    store.store.clear()


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_style_of_tar_is_read(tmp_path: Path, style: int) -> None:
    name = f"{'long/' * 30}{'n' * 60}.flac"
    (tmp_path / "a.tar").write_bytes(tar_of({name: SPEECH[5].read_bytes()}, format=style))
    (found,) = scan(tmp_path / "a.tar")
    assert found.key == name.removesuffix(".flac")
    assert equal([found], SPEECH[5:])


def test_damaged_members_fail_and_the_rest_goes_on(tmp_path: Path) -> None:
    members = {path.name: path.read_bytes() for path in SPEECH[3:]} | {"noise.flac": b"no audio"}
    whole = tar_of(members)
    archive = tmp_path / "a.tar"
    second = 512 + -(-len(members[SPEECH[3].name]) // 512) * 512

    archive.write_bytes(whole)
    found = scan(archive)
    assert equal(found[:3], SPEECH[3:])
    with pytest.raises(AudioError, match=r"^tar://noise.flac::.*a.tar: libsndfile cannot read it"):
        read(found[3].path)

    archive.write_bytes(whole[:second] + b"\xff" * 512 + whole[second + 512 :])
    damaged = scan(archive)
    assert [u.key for u in damaged] == [KEYS[3], "a.tar/"]
    with pytest.raises(AudioError, match=rf"a.tar: the tar file is damaged at byte {second}: what follows"):
        read(damaged[1].path)
    # What was listed is not there any more.
    with pytest.raises(AudioError, match="is damaged, or was replaced meanwhile"):
        read(found[1].path)

    archive.write_bytes(whole[: second + 5000])
    cut = scan(archive)
    assert [u.key for u in cut] == [KEYS[3], KEYS[4], "a.tar/"]
    with pytest.raises(AudioError, match=r"eve_bus.flac::.*cut short: it has 4488 of the \d+ bytes of this member"):
        read(cut[1].path)
    with pytest.raises(AudioError, match="damaged or cut short"):
        read(cut[2].path)

    archive.write_bytes(tar_of({f"other-{name}": content for name, content in members.items()}))
    with pytest.raises(AudioError, match="it has another member here"):
        read(found[0].path)
    with pytest.raises(AudioError, match="no member 'none.flac'"):
        read(f"tar://none.flac::{archive}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(tar_of({"a.flac": b"x"})), "it is compressed"),
        (b"", "damaged or cut short: empty file"),
        (b"x" * 2000, "damaged or cut short"),
        (tar_of({"a.txt": b"x"}), "holds no audio"),
    ],
)
def test_a_tar_without_audio_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ManifestError, match=rf"^\S*a.tar: .*{message}"):
        scan(tmp_path)


def test_rows_of_parquet_are_read_by_their_row_groups(folder: str) -> None:
    put(f"{folder}/data/train-00001.parquet", parquet_of(SPEECH[3:], id=[7, 8, 9], speaker_id=[1, 2, None]))
    put(f"{folder}/data/train-00000.parquet", parquet_of(SPEECH[:3], text=["a", "b", "c"]))
    found = scan(folder)
    assert [u.key for u in found] == [*KEYS[:3], "7", "8", "9"]
    assert [u.speaker for u in found] == [None, None, None, "1", "2", None]
    assert str(found[4].path) == f"parquet://1/audio::{folder}/data/train-00001.parquet"
    assert equal(found, SPEECH)
    assert [u.key for u in scan(f"{folder}/data/train-{{00000..00001}}.parquet")] == [u.key for u in found]


def test_rows_without_names_have_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_of([SPEECH[5], None, SPEECH[5], SPEECH[4]]))
    found = scan(tmp_path)
    assert [u.key for u in found] == ["a/000000", "a/000001", "a/000002", "eve_bus"]
    with pytest.raises(AudioError, match=r"row 1 of .*a.parquet holds no bytes of audio"):
        read(found[1].path)
    assert decoder_version([u.path for u in found]) is None
    with pytest.raises(AudioError, match="has 4 rows, and no row 4"):
        read(ParquetRow(tmp_path / "a.parquet", "audio", 4))


def test_damaged_parquet_files_fail_and_the_rest_goes_on(tmp_path: Path) -> None:
    content = parquet_of(SPEECH[:2], group=1)
    (tmp_path / "a.parquet").write_bytes(content)
    (tmp_path / "b.parquet").write_bytes(content[:-3])
    found = scan(tmp_path)
    assert [u.key for u in found] == [*KEYS[:2], "b.parquet/"]
    with pytest.raises(AudioError, match=r"b.parquet: damaged: Parquet magic bytes"):
        read(found[2].path)
    (tmp_path / "a.parquet").write_bytes(content[:4] + bytes(20_000) + content[20_004:])
    with pytest.raises(AudioError, match=r"^parquet://0/audio::"):
        read(found[0].path)
    assert equal(found[1:2], SPEECH[1:2])
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(ManifestError, match=r"^\S*b.parquet: damaged"):
        scan(tmp_path)


def test_a_table_without_audio_is_one_line(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"x": [1], "audio": ["a.wav"]}), tmp_path / "a.parquet")
    with pytest.raises(ManifestError, match=r"a.parquet: no column of audio: one of structs .* it has x, audio$"):
        scan(tmp_path)


@pytest.mark.parametrize(
    "address",
    ["tar://a.flac", "parquet://x/audio::a.parquet", "parquet://1::a.parquet", "cut://1::a.wav", "cut://a.wav"],
)
def test_a_faulty_address_is_one_line(address: str) -> None:
    with pytest.raises(ValueError, match=r"not an address; there are tar://MEMBER::FILE"):
        scan(address)
