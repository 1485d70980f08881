"""Every file target: what went in comes out, and the library that owns the format reads it."""

import json
import multiprocessing
import signal
import tarfile

import numpy as np
import pytest
import soundfile

from spintok.corpus import CorpusError
from spintok.corpus.token_formats import Record
from spintok.data.labels.transcripts import Transcripts
from spintok.export.errors import ExportError
from spintok.export.sidecar import read_sidecar
from spintok.export.targets import FILE_TARGETS, Stream, export_files, read_export
from spintok.tokens import Tokens
from tests.export.token_folders import SIZES, export, export_and_die, make_records, runs, write_folder

# Lhotse and WebDataset leave it to the garbage collector to close what they read.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ALL = list(FILE_TARGETS)
SHARDED = [name for name, kind in FILE_TARGETS.items() if not isinstance(kind, Stream)]


@pytest.mark.parametrize("target", ALL)
@pytest.mark.parametrize("dedup", [None, True, False])
def test_round_trip(target, dedup, folder, records, tmp_path, same):
    if dedup is not None and dedup not in FILE_TARGETS[target].dedup:
        with pytest.raises(ExportError, match="durations would be lost"):
            export_files([folder], tmp_path / "out", target, dedup=dedup)
        assert not (tmp_path / "out").exists()
        return
    summary = export_files([folder], tmp_path / "out", target, dedup=dedup, shard_size=7)
    header, found = read_export(tmp_path / "out")
    same(list(found), records)
    assert header.fingerprint == "f" * 64
    assert summary.utterances == len(records)
    written = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {*summary.files, tmp_path / "out/spintok.json"}


@pytest.mark.parametrize("target", SHARDED)
def test_both_codebooks(target, tmp_path, same):
    records = make_records(1, books=("primary", "auxiliary"))
    folder = write_folder(tmp_path / "tokens", records)
    export_files([folder], tmp_path / "out", target)
    header, found = read_export(tmp_path / "out")
    assert header.codebooks == SIZES
    same(list(found), records)


def test_text_formats_hold_the_codebook_that_is_named(tmp_path):
    records = make_records(1, books=("primary", "auxiliary"))
    folder = write_folder(tmp_path / "tokens", records)
    export_files([folder], tmp_path / "out", "gslm", codebooks=["auxiliary"])
    _, found = read_export(tmp_path / "out")
    assert [r.tokens for r in found] == [{"auxiliary": r.tokens["auxiliary"]} for r in records]
    with pytest.raises(ExportError, match="one codebook"):
        export_files([folder], tmp_path / "two", "gslm", codebooks=["primary", "auxiliary"])
    with pytest.raises(ExportError, match="no codebook 'secondary', only primary, auxiliary"):
        export_files([folder], tmp_path / "two", "npz", codebooks=["secondary"])


def test_slamkit_shape(folder, records, tmp_path):
    export_files([folder], tmp_path / "out", "slamkit")
    lines = [json.loads(line) for line in (tmp_path / "out/tokens.jsonl").read_text(encoding="utf-8").splitlines()]
    tokens = [r.tokens["primary"] for r in records]
    assert lines == [
        {"file_name": r.file_name, "units": t.units.tolist(), "duration": t.durations.tolist()}
        for r, t in zip(records, tokens, strict=True)
    ]


def test_s3tokenizer_shape(folder, records, tmp_path):
    export_files([folder], tmp_path / "out", "s3tokenizer")
    lines = [json.loads(line) for line in (tmp_path / "out/tokens.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [{"key": r.key, "code": r.tokens["primary"].codes.tolist()} for r in records]


def test_fairseq_files(folder, records, tmp_path):
    export_files([folder], tmp_path / "out", "fairseq")
    out = tmp_path / "out"
    root, *rows = (out / "tokens.tsv").read_text(encoding="utf-8").splitlines()
    paths = [f"{root}{row.split(chr(9))[0]}" for row in rows]
    assert paths == [r.file_name for r in records]
    assert [int(row.split("\t")[1]) for row in rows] == [r.tokens["primary"].num_samples for r in records]
    lines = (out / "tokens.km").read_text(encoding="utf-8").splitlines()
    assert [list(map(int, line.split())) for line in lines] == [r.tokens["primary"].codes.tolist() for r in records]
    assert (out / "dict.km.txt").read_text(encoding="utf-8") == "".join(f"{i} 1\n" for i in range(100))


def test_fairseq_refuses_what_a_tsv_cannot_hold(tmp_path):
    tokens = {"primary": Tokens(np.array([1]), 100, 500)}
    cases = {
        "cannot hold this name": [Record("a", "/x\ty", tokens)],
        "all absolute or all relative": [Record("a", "/x", tokens), Record("b", "y", tokens)],
        "they are not known": [Record("a", "/x", {"primary": Tokens(np.array([1]), 100)})],
    }
    for number, (message, records) in enumerate(cases.items()):
        folder = write_folder(tmp_path / f"tokens-{number}", records)
        with pytest.raises(ExportError, match=message):
            export_files([folder], tmp_path / f"out-{number}", "fairseq")
        assert not (tmp_path / f"out-{number}").exists()


def test_fairseq_relative_names(tmp_path, same):
    records = [Record("a", "sub/x.wav", {"primary": Tokens(np.array([1, 1, 2]), 100, 1500)})]
    export_files([write_folder(tmp_path / "tokens", records)], tmp_path / "out", "fairseq")
    assert (tmp_path / "out/tokens.tsv").read_text(encoding="utf-8") == ".\nsub/x.wav\t1500\n"
    same(list(read_export(tmp_path / "out")[1]), records)


def test_gslm_lines(folder, records, tmp_path):
    export_files([folder], tmp_path / "out", "gslm")
    lines = (tmp_path / "out/tokens.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [f"{r.key}|{' '.join(map(str, r.tokens['primary'].units))}" for r in records]
    bar = [Record("a|b", "/x", {"primary": Tokens(np.array([1]), 100, 500)})]
    with pytest.raises(ExportError, match="cannot hold this key"):
        export_files([write_folder(tmp_path / "bar", bar)], tmp_path / "out-bar", "gslm")


def test_numpy_reads_npz_without_pickle(folder, records, tmp_path):
    export_files([folder], tmp_path / "out", "npz", shard_size=100)
    with np.load(tmp_path / "out/tokens-00000.npz", allow_pickle=False) as archive:
        assert archive["key"].tolist() == [r.key for r in records]
        assert str(archive["fingerprint"]) == "f" * 64
        for i, record in enumerate(records):
            start, end = archive["units_offset"][i : i + 2]
            np.testing.assert_array_equal(archive["units"][start:end], record.tokens["primary"].units)
            start, end = archive["duration_offset"][i : i + 2]
            np.testing.assert_array_equal(archive["duration"][start:end], record.tokens["primary"].durations)


def test_datasets_reads_parquet(folder, records, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    parquet = pytest.importorskip("pyarrow.parquet")
    export_files([folder], tmp_path / "out", "parquet", shard_size=7)
    files = sorted(str(path) for path in (tmp_path / "out").glob("*.parquet"))
    data = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert data["key"] == [r.key for r in records]
    assert data["speaker"] == [r.speaker for r in records]
    assert data["units"] == [r.tokens["primary"].units.tolist() for r in records]
    assert data["duration"] == [r.tokens["primary"].durations.tolist() for r in records]
    assert parquet.read_schema(files[0]).metadata[b"spintok.fingerprint"] == b"f" * 64


def test_webdataset_reads_its_tars(folder, records, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    export_files([folder], tmp_path / "out", "webdataset", shard_size=7)
    urls = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [s["json"]["key"] for s in samples] == [r.key for r in records]
    assert {s["json"]["fingerprint"] for s in samples} == {"f" * 64}
    for sample, record in zip(samples, records, strict=True):
        np.testing.assert_array_equal(sample["units.npy"], record.tokens["primary"].units)
        np.testing.assert_array_equal(sample["duration.npy"], record.tokens["primary"].durations)


def test_lhotse_reads_its_cuts(folder, records, tmp_path):
    lhotse = pytest.importorskip("lhotse")
    export_files([folder], tmp_path / "out", "lhotse", shard_size=7)
    cuts = list(lhotse.CutSet.from_shar(in_dir=tmp_path / "out/shar"))
    assert [cut.id for cut in cuts] == [r.key for r in records]
    for cut, record in zip(cuts, records, strict=True):
        codes = record.tokens["primary"].codes
        np.testing.assert_array_equal(cut.load_codes(), codes)
        assert cut.duration == pytest.approx(codes.size / 50)
        # Lhotse cuts the codes with the cut: that is what it is for.
        if codes.size > 10:
            np.testing.assert_array_equal(cut.truncate(offset=0.1, duration=0.08).load_codes(), codes[5:9])


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1), (48_000, 3)])
def test_lhotse_loads_the_audio_as_it_is(rate, channels, tmp_path, same):
    lhotse = pytest.importorskip("lhotse")
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (2 * rate, channels))
    soundfile.write(tmp_path / "a.wav", audio, rate, subtype="FLOAT")
    codes = runs(np.random.default_rng(1), 100, 99)
    records = [Record("a", str(tmp_path / "a.wav"), {"primary": Tokens(codes, 100, 32_000)}, "beth")]
    (tmp_path / "texts").write_text("a good morning\n")
    folder = write_folder(tmp_path / "tokens", records)
    summary = export_files([folder], tmp_path / "out", "lhotse", transcripts=Transcripts(tmp_path / "texts"))
    assert summary.notes == []
    (cut,) = lhotse.CutSet.from_shar(in_dir=tmp_path / "out/shar")
    assert (cut.sampling_rate, cut.num_channels, cut.duration) == (rate, channels, 1.98)
    np.testing.assert_allclose(cut.load_audio(), audio[: round(1.98 * rate)].T, atol=1e-6)
    np.testing.assert_array_equal(cut.load_codes(), codes)
    part = cut.truncate(offset=0.5, duration=0.2)
    np.testing.assert_array_equal(part.load_codes(), codes[25:35])
    np.testing.assert_allclose(part.load_audio(), audio[rate // 2 : rate // 2 + rate // 5].T, atol=1e-6)
    (supervision,) = cut.supervisions
    assert (supervision.text, supervision.speaker, supervision.duration) == ("good morning", "beth", 1.98)
    same(list(read_export(tmp_path / "out")[1]), records)


def test_lhotse_says_which_audio_it_could_not_open(folder, records, tmp_path):
    summary = export_files([folder], tmp_path / "out", "lhotse")
    assert len(summary.notes) == 1
    assert summary.notes[0].startswith(f"24 audio files could not be opened, such as {records[0].file_name!r}")
    with pytest.raises(ExportError, match="gslm has no place for transcripts"):
        (tmp_path / "texts").write_text("a b\n")
        export_files([folder], tmp_path / "gslm", "gslm", transcripts=Transcripts(tmp_path / "texts"))


@pytest.mark.parametrize("target", ["npz", "webdataset"])
def test_same_bytes_every_time(target, folder, tmp_path):
    for out in ("one", "two"):
        export_files([folder], tmp_path / out, target, shard_size=7)
    for path in (tmp_path / "one").glob("tokens*"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("target", ["fairseq", "npz", "webdataset", "packed"])
def test_killed_at_any_rename_then_run_again(target, folder, records, tmp_path, same):
    whole = tmp_path / "whole"
    export(folder, whole, target)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.export.token_folders"])
    for renames in range(50):
        out = tmp_path / f"out-{renames}"
        process = context.Process(target=export_and_die, args=(folder, out, target, renames))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        if (out / "spintok.json").exists():
            with pytest.raises(ExportError, match="not finished"):
                read_sidecar(out)
        export(folder, out, target)
        assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}
    assert renames >= 4


def test_resume_keeps_finished_shards(folder, tmp_path):
    out = tmp_path / "out"
    export_files([folder], out, "npz", shard_size=7)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("tokens*")}
    (out / "tokens-00001.npz").unlink()
    assert not export_files([folder], out, "npz", shard_size=7).already
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("tokens*")}
    assert {name for name in times if times[name] != after[name]} == {"tokens-00001.npz"}
    assert export_files([folder], out, "npz", shard_size=7).already


def test_another_export_is_refused_and_overwritten_on_demand(folder, tmp_path, same):
    out = tmp_path / "out"
    export_files([folder], out, "npz", shard_size=7)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    other = make_records(5)
    elsewhere = write_folder(tmp_path / "other", other, fingerprint="e" * 64)
    refused = {
        "the tokens of another tokenizer": lambda: export_files([elsewhere], out, "npz", shard_size=7),
        "another target": lambda: export_files([folder], out, "gslm"),
        "other options": lambda: export_files([folder], out, "npz", shard_size=8),
        "another setting of --dedup": lambda: export_files([folder], out, "npz", shard_size=7, dedup=False),
    }
    for message, run in refused.items():
        with pytest.raises(ExportError, match=message):
            run()
        assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    export_files([elsewhere], out, "gslm", overwrite=True)
    same(list(read_export(out)[1]), other)
    assert not list(out.glob("*.npz"))


def test_changed_source_is_refused(folder, records, tmp_path):
    out = tmp_path / "out"
    export_files([folder], out, "npz")
    path = folder / "tokens-00000.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(ExportError, match="has changed since"):
        export_files([folder], out, "npz")


def test_foreign_folder_is_left_alone(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(ExportError, match="not empty"):
        export_files([folder], tmp_path / "mine", "npz", overwrite=True)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_several_folders_in_order_and_mixtures_refused(folder, records, tmp_path, same):
    more = [Record(f"more/{r.key}", r.file_name, r.tokens, r.speaker) for r in make_records(2)]
    second = write_folder(tmp_path / "second", more)
    export_files([folder, second], tmp_path / "out", "webdataset", shard_size=7)
    same(list(read_export(tmp_path / "out")[1]), records + more)
    with pytest.raises(ExportError, match="two utterances have the key"):
        export_files([folder, folder], tmp_path / "twice", "webdataset")
    other = write_folder(tmp_path / "other", more, fingerprint="e" * 64)
    with pytest.raises(ExportError, match="another tokenizer"):
        export_files([folder, other], tmp_path / "mixed", "webdataset")
    assert not (tmp_path / "mixed").exists()


def test_empty_utterances(tmp_path, records):
    empty = Record("nothing", "/data/nothing.wav", {"primary": Tokens(np.array([], dtype=int), 100, 10)})
    folder = write_folder(tmp_path / "tokens", [*records[:3], empty])
    with pytest.raises(ExportError, match="'nothing' has no tokens"):
        export_files([folder], tmp_path / "out", "gslm")
    assert not (tmp_path / "out").exists()
    assert export_files([folder], tmp_path / "kept", "gslm", skip_empty=True).utterances == 3


def test_unfinished_encode_is_refused(folder, tmp_path):
    (folder / "tokens-00001.jsonl").unlink()
    with pytest.raises(CorpusError, match="2 of 3 shards; run spintok encode again"):
        export_files([folder], tmp_path / "out", "npz")


def test_shards_of_another_tokenizer_in_the_folder_are_noticed(folder, records, tmp_path):
    for target in ("parquet", "webdataset", "lhotse"):
        ours, theirs = tmp_path / f"ours-{target}", tmp_path / f"theirs-{target}"
        export_files([folder], ours, target)
        other = write_folder(tmp_path / f"other-{target}", records, fingerprint="e" * 64)
        export_files([other], theirs, target)
        for path in theirs.rglob("*"):
            if path.is_file() and path.name != "spintok.json":
                path.replace(ours / path.relative_to(theirs))
        with pytest.raises(ExportError):
            list(read_export(ours)[1])


def test_tars_hold_nothing_of_this_machine(folder, tmp_path):
    export_files([folder], tmp_path / "out", "webdataset")
    with tarfile.open(tmp_path / "out/tokens-00000.tar") as tar:
        assert {(m.mtime, m.uid, m.uname) for m in tar} == {(0, 0, "")}
