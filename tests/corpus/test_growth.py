"""Folders of audio to which files are added: new ones are encoded, and what is there stays."""

import shutil

import pytest

from spintok.corpus import CorpusError, read_corpus, read_features
from spintok.data.manifest import scan
from tests.corpus.jobs import FORMATS, contents, encode, make_recording


def read(folder, format):
    return list((read_corpus if format in ("jsonl", "parquet", "km") else read_features)(folder)[1])


def names(folder, format="jsonl"):
    return [record.file_name.rpartition("/")[2] for record in read(folder, format)]


@pytest.fixture
def audio(tmp_path):
    """Files 1, 3 and 5 of a folder, to which others may be added in between."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for i in (1, 3, 5):
        make_recording(folder, i)
    return folder


def test_a_longer_list_that_begins_alike_goes_on(mfcc, recordings, tmp_path) -> None:
    out = tmp_path / "out"
    encode(mfcc, recordings[:3], out)
    first = (out / "tokens-00000.jsonl").stat()
    summary = encode(mfcc, recordings, out)
    assert (summary.encoded, summary.resumed) == (2, 3)
    assert (out / "tokens-00000.jsonl").stat().st_mtime_ns == first.st_mtime_ns
    encode(mfcc, recordings, tmp_path / "clean")
    assert contents(out) == contents(tmp_path / "clean")


@pytest.mark.parametrize("format", FORMATS)
def test_files_added_in_the_middle_follow_at_the_end(mfcc, audio, tmp_path, format) -> None:
    out = tmp_path / "out"
    encode(mfcc, scan(audio), out, format)
    before, kept = read(out, format), contents(out)
    for i in (0, 4):
        make_recording(audio, i)
    summary = encode(mfcc, scan(audio), out, format)
    assert (summary.encoded, summary.resumed) == (2, 3)
    assert names(out, format) == ["1.wav", "3.wav", "5.wav", "0.wav", "4.wav"]
    make_recording(audio, 2)
    summary = encode(mfcc, scan(audio), out, format)
    assert (summary.encoded, summary.resumed) == (1, 5)
    assert names(out, format) == ["1.wav", "3.wav", "5.wav", "0.wav", "4.wav", "2.wav"]
    assert [str(one) for one in read(out, format)[:3]] == [str(one) for one in before]
    # The first shard was full. The second was not, and has begun with what it held.
    after = contents(out)
    same = {name for name in kept if "00000" in name}
    assert {name: after[name] for name in same} == {name: kept[name] for name in same}
    if format == "jsonl":
        assert after["tokens-00001.jsonl"].startswith(kept["tokens-00001.jsonl"])
    assert encode(mfcc, scan(audio), out, format).resumed == 6
    assert contents(out) == after


def test_they_may_come_while_a_run_is_unfinished(mfcc, audio, tmp_path) -> None:
    for number in (0, 7):
        make_recording(audio, number)
    out, clean = tmp_path / "out", tmp_path / "clean"
    listed = scan(audio)
    encode(mfcc, listed, out, rank=1, ranks=3)
    for number in (2, 6):
        make_recording(audio, number)
    encode(mfcc, scan(audio), out)
    encode(mfcc, [*listed, *(one for one in scan(audio) if one not in listed)], clean)
    assert contents(out) == contents(clean)


def test_a_run_that_dies_while_the_list_grows(mfcc, audio, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    encode(mfcc, scan(audio), out)
    make_recording(audio, 2)
    monkeypatch.setattr("spintok.corpus.folder.write_text", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encode(mfcc, scan(audio), out)
    monkeypatch.undo()
    # Its list is there, and the description is still of the shorter one.
    assert len(list(out.glob(".list-*"))) == 2
    make_recording(audio, 0)
    encode(mfcc, scan(audio), out)
    assert names(out) == ["1.wav", "3.wav", "5.wav", "0.wav", "2.wav"]
    assert len(list(out.glob(".list-*"))) == 1


@pytest.mark.parametrize("options", [{"shared": True}, {"shard_seconds": 0.3}], ids=["shared", "by seconds"])
def test_with_other_divisions(mfcc, audio, tmp_path, options) -> None:
    out = tmp_path / "out"
    encode(mfcc, scan(audio), out, **options)
    first = (out / "tokens-00000.jsonl").read_bytes()
    for number in (0, 2):
        make_recording(audio, number)
        encode(mfcc, scan(audio), out, **options)
    assert names(out) == ["1.wav", "3.wav", "5.wav", "0.wav", "2.wav"]
    assert (out / "tokens-00000.jsonl").read_bytes().startswith(first)


def test_a_file_that_differs_in_its_ending_only_leaves_the_key(mfcc, audio, tmp_path) -> None:
    encode(mfcc, scan(audio), tmp_path / "out")
    shutil.copy(audio / "3.wav", audio / "3.flac")
    for _ in range(2):
        encode(mfcc, scan(audio), tmp_path / "out")
        assert [record.key for record in read(tmp_path / "out", "jsonl")] == ["1", "3", "5", "3.flac"]


def test_a_subfolder_that_can_be_read_again(mfcc, audio, tmp_path) -> None:
    make_recording(audio, 2)
    unreadable = [*scan(audio)[:2], type(scan(audio)[0])("sub/", audio / "sub")]
    assert len(encode(mfcc, unreadable, tmp_path / "out").failures) == 1
    summary = encode(mfcc, scan(audio), tmp_path / "out")
    assert not summary.failures
    assert names(tmp_path / "out") == ["1.wav", "2.wav", "3.wav", "5.wav"]


def test_another_order_changes_nothing(mfcc, audio, tmp_path) -> None:
    encode(mfcc, scan(audio), tmp_path / "out")
    before = contents(tmp_path / "out")
    assert encode(mfcc, scan(audio)[::-1], tmp_path / "out").resumed == 3
    assert contents(tmp_path / "out") == before


def test_a_list_that_lacks_a_file_is_refused(mfcc, audio, tmp_path) -> None:
    out = tmp_path / "out"
    encode(mfcc, scan(audio), out)
    before = contents(out)
    with pytest.raises(CorpusError, match=r"also holds .*3\.wav, not listed now"):
        encode(mfcc, [one for one in scan(audio) if one.key != "3"], out)
    make_recording(audio, 2)
    with pytest.raises(CorpusError, match=r"also holds .*3\.wav and 1 others, not listed now"):
        encode(mfcc, [one for one in scan(audio) if one.key not in ("3", "5")], out)
    assert contents(out) == before


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_without_its_list_a_folder_only_grows_at_its_end(mfcc, audio, tmp_path, damage) -> None:
    out = tmp_path / "out"
    encode(mfcc, scan(audio), out)
    (listed,) = out.glob(".list-*")
    if damage == "missing":
        listed.unlink()
    else:
        listed.write_bytes(listed.read_bytes()[:-9])
    make_recording(audio, 2)
    with pytest.raises(CorpusError, match="holds another list of files, and its own is missing"):
        encode(mfcc, scan(audio), out)
    (audio / "2.wav").unlink()
    make_recording(audio, 6)
    assert encode(mfcc, scan(audio), out).encoded == 1
