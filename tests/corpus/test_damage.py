"""Shards that were changed after they were written, audio that changed, and files that cannot be encoded."""

import json
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from voices import mfcc_tokenizer

from spintok.corpus import (
    CorpusError,
    FeatureOptions,
    Options,
    ShardError,
    encode_corpus,
    encode_features,
    read_corpus,
    read_features,
)
from spintok.corpus.journal import Journal, journal_path
from spintok.corpus.shard_record import record_path
from spintok.data.manifest import Utterance
from tests.corpus.jobs import FORMATS, contents, encode


class Stopped(BaseException):
    """Like a signal, it ends the job."""


@contextmanager
def stopped_after_one():
    """Jobs end when they have journaled one utterance."""
    append = Journal.append

    def stopping(self, value):
        append(self, value)
        if "record" in value:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Journal, "append", stopping)
        yield


def read(folder, format):
    return list((read_corpus if format in ("jsonl", "parquet", "km") else read_features)(folder)[1])


@pytest.mark.parametrize("format", FORMATS)
def test_every_changed_byte_is_found(mfcc, recordings, tmp_path, format) -> None:
    out = tmp_path / "out"
    encode(mfcc, recordings, out, format)
    rng = np.random.default_rng(0)
    for shard in out.glob("[!.]*-00001.*"):
        whole = shard.read_bytes()
        lines = whole.splitlines(keepends=True)
        changed = [whole[: len(whole) // 2], whole + b"\n", b"", whole[:9] + bytes(9) + whole[18:]]
        changed += [b"".join([*lines, lines[-1]])]
        for at in rng.integers(len(whole), size=20).tolist():
            changed.append(whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :])
        for data in changed:
            shard.write_bytes(data)
            with pytest.raises(ShardError, match=r"-00001.*its SHA-256 is not the recorded one"):
                read(out, format)
        with pytest.raises(CorpusError, match=r"-00001.*its SHA-256.*delete this shard"):
            encode(mfcc, recordings, out, format)
        shard.write_bytes(whole)
    assert len(read(out, format)) == 5


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_shard_that_is_deleted_is_made_again(mfcc, recordings, tmp_path, format) -> None:
    out = tmp_path / "out"
    encode(mfcc, recordings, out, format)
    before = contents(out)
    for shard in out.glob("[!.]*-00001.*"):
        shard.unlink()
    assert encode(mfcc, recordings, out, format).encoded == 2
    assert contents(out) == before


def test_a_damaged_record_is_an_error(mfcc, recordings, tmp_path) -> None:
    encode(mfcc, recordings, tmp_path / "out")
    record_path(tmp_path / "out/tokens-00000.jsonl").write_text("{}")
    with pytest.raises(ShardError, match=r"tokens-00000.*damaged"):
        read(tmp_path / "out", "jsonl")
    with pytest.raises(CorpusError, match=r"tokens-00000.*damaged"):
        encode(mfcc, recordings, tmp_path / "out")


@pytest.mark.parametrize("format", FORMATS)
def test_a_replaced_file_is_encoded_again(mfcc, recordings, tmp_path, format) -> None:
    out = tmp_path / "out"
    encode(mfcc, recordings, out, format)
    shutil.copyfile(recordings[4].path, recordings[1].path)
    summary = encode(mfcc, recordings, out, format)
    assert (summary.encoded, summary.resumed) == (1, 4)
    encode(mfcc, recordings, tmp_path / "clean", format)
    assert contents(out) == contents(tmp_path / "clean")
    # The same size, another time.
    os.utime(recordings[2].path, ns=(1, 1))
    assert encode(mfcc, recordings, out, format).encoded == 1
    # Tokens outlive their audio.
    recordings[0].path.unlink()
    assert encode(mfcc, recordings, out, format).encoded == 0


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_replaced_between_kill_and_resume_is_encoded_again(mfcc, recordings, tmp_path, format) -> None:
    out = tmp_path / "out"
    if format in ("jsonl", "parquet", "km"):
        options = Options(format=format, dedup=format != "km", shard_size=5)
        run = encode_corpus
    else:
        options = FeatureOptions(layer=0, format=format.removeprefix("features-"), shard_size=5)
        run = encode_features
    for _ in range(2):
        with stopped_after_one():
            run(mfcc, recordings, out, options)
    assert len(list(out.glob(".*.journal"))) == 1
    shutil.copyfile(recordings[4].path, recordings[0].path)
    summary = run(mfcc, recordings, out, options)
    assert (summary.encoded, summary.resumed) == (4, 1)
    run(mfcc, recordings, tmp_path / "clean", options)
    assert contents(out) == contents(tmp_path / "clean")


def test_a_journal_of_another_tokenizer_is_not_replayed(mfcc, recordings, tmp_path) -> None:
    """Somebody deletes the visible files and encodes with another tokenizer."""
    out = tmp_path / "out"
    with stopped_after_one():
        encode_corpus(mfcc, recordings, out, Options())
    assert journal_path(out / "tokens-00000.jsonl").exists()
    (out / "tokenizer.json").unlink()
    other = mfcc_tokenizer(seed=1)
    assert encode(other, recordings, out).resumed == 0
    encode(other, recordings, tmp_path / "clean")
    assert contents(out) == contents(tmp_path / "clean")


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
@pytest.mark.parametrize("format", FORMATS)
def test_names_with_line_separators_are_read_back(mfcc, recordings, tmp_path, format, mark) -> None:
    path = tmp_path / f"a{mark}b.wav"
    shutil.copyfile(recordings[0].path, path)
    utterances = [Utterance(f"k{mark}ey", path, f"s{mark}"), recordings[1]]
    out = tmp_path / "out"
    encode(mfcc, utterances, out, format)
    first, second = read(out, format)
    assert (first.file_name, second.file_name) == (str(path), str(recordings[1].path))
    if format != "km":
        assert (first.key, first.speaker) == (f"k{mark}ey", f"s{mark}")
    assert encode(mfcc, utterances, out, format).resumed == 2


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_cannot_be_encoded_stops_nothing(mfcc, recordings, tmp_path, format, monkeypatch) -> None:
    """Whatever is raised for one file, the others are encoded, at the first run."""
    record = mfcc.record

    def failing(path):
        if str(path) == str(recordings[1].path):
            raise RuntimeError("of a library\nwith details")
        if str(path) == str(recordings[2].path):
            raise MemoryError
        return record(path)

    monkeypatch.setattr(mfcc, "record", failing)
    nul = Utterance("nul", tmp_path / "a\0b.wav")
    summary = encode(mfcc, [*recordings, nul], tmp_path / "out", format)
    assert summary.audit == "6 files in = 3 files out + 3 failed"
    errors = {failure.key: failure.error for failure in summary.failures}
    assert errors["1"] == f"{recordings[1].path}: RuntimeError: of a library"
    assert "MemoryError" in errors["2"]
    assert "null" in errors["nul"]
    lines = (tmp_path / "out/failed.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["1", "2", "nul"]


@pytest.mark.parametrize("format", FORMATS)
def test_names_that_are_not_utf_8(mfcc, recordings, tmp_path, format) -> None:
    """They are kept where the format can hold them, and listed as failures elsewhere."""
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    try:
        shutil.copyfile(recordings[0].path, path)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    utterances = [Utterance(path.stem, path), *recordings]
    out = tmp_path / "out"
    summary = encode(mfcc, utterances, out, format)
    if format in ("jsonl", "km"):
        assert summary.failures == []
        assert read(out, format)[0].file_name == str(path)
        assert encode(mfcc, utterances, out, format).resumed == 6
        if format == "jsonl":
            # Other readers want UTF-8.
            assert "caf\\udce9" in (out / "tokens-00000.jsonl").read_text(encoding="utf-8")
    else:
        (failure,) = summary.failures
        assert "not UTF-8" in failure.error
        assert json.loads((out / "failed.jsonl").read_text())["file_name"] == str(path)
        assert len(read(out, format)) == 5


def test_a_full_disk_is_not_a_failure_of_the_file(mfcc, recordings, tmp_path, monkeypatch) -> None:
    append = Journal.append

    def full(self, value):
        if "record" in value and value["name"] == "1":
            raise OSError(28, "No space left on device")
        append(self, value)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        with pytest.raises(OSError, match="No space left"):
            encode(mfcc, recordings, tmp_path / "out")
    summary = encode(mfcc, recordings, tmp_path / "out")
    assert (summary.encoded, summary.resumed, summary.failures) == (4, 1, [])


def test_names_that_come_twice_are_refused(mfcc, recordings, tmp_path) -> None:
    with pytest.raises(CorpusError, match="2 utterances have the key '0'"):
        encode(mfcc, [*recordings, Utterance("0", recordings[1].path)], tmp_path / "out")
    with pytest.raises(CorpusError, match="2 utterances have the name"):
        encode(mfcc, [*recordings, Utterance("other", recordings[1].path)], tmp_path / "out", "km")
    assert not (tmp_path / "out").exists()


def test_features_beyond_their_dtype_are_listed(recordings, tmp_path, mfcc) -> None:
    loud = Utterance("loud", tmp_path / "loud.wav")
    soundfile.write(loud.path, np.full(4000, 1e19), 16_000, subtype="DOUBLE")
    for format in FORMATS:
        summary = encode(mfcc, [loud, *recordings], tmp_path / format, format)
        assert [failure.key for failure in summary.failures] == ["loud"]
        assert len(read(tmp_path / format, format)) == 5


@pytest.mark.parametrize("format", FORMATS)
def test_names_that_a_format_cannot_hold_are_listed(mfcc, recordings, tmp_path, format) -> None:
    path = tmp_path / "a\tb\nc.wav"
    shutil.copyfile(recordings[0].path, path)
    utterances = [Utterance("a\tb", path, "s\tt"), *recordings]
    summary = encode(mfcc, utterances, tmp_path / "out", format)
    if format == "km":
        (failure,) = summary.failures
        assert "a .tsv cannot hold this name" in failure.error
        assert len(read(tmp_path / "out", format)) == 5
    else:
        first = read(tmp_path / "out", format)[0]
        assert (first.key, first.file_name, first.speaker) == ("a\tb", str(path), "s\tt")
