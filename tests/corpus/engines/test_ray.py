"""Ray, the real one: shared workers as its tasks, and tokens for a Ray data set."""

import os
import signal
from pathlib import Path

import pyarrow
import pytest
from command_line import call, run
from voices import mfcc_tokenizer

from spintok.corpus import CorpusError, FeatureOptions, Options, RayEncoder, encode_corpus, encode_features, read_corpus
from spintok.corpus.engines.ray import EngineWarning, encode_on_ray
from tests.corpus.jobs import encode
from tests.corpus.scale_faults import shards

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    # Ray's own: sockets and files of its processes are closed when these are collected, and it sets old names itself.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray"),
]

SHARDS_OF_TWO = Options(shard_size=2, lease_seconds=1.0)


def spoil(tokenizer, action) -> None:
    """Have ``action`` run before each portion that the tokenizer encodes, in whichever process."""
    iter_recordings = tokenizer.iter_recordings

    def spoilt(*arguments, **options):
        action()
        return iter_recordings(*arguments, **options)

    tokenizer.iter_recordings = spoilt


def test_the_bytes_are_those_of_one_process(mfcc, recordings, tmp_path: Path) -> None:
    recordings[3].path.write_bytes(b"no audio")
    encode(mfcc, recordings, tmp_path / "alone")
    reports = []
    summary = encode_on_ray(
        encode_corpus, mfcc, recordings, tmp_path / "out", SHARDS_OF_TWO, lambda *report: reports.append(report)
    )
    assert reports[-1] == ("encoding", 5, 5, "")
    assert (summary.total, summary.encoded, summary.resumed) == (5, 4, 0)
    assert [failure.key for failure in summary.failures] == ["3"]
    assert summary.audio_seconds == pytest.approx((2000 * 4 + 700 * 7) / 16_000)
    assert shards(tmp_path / "out") == shards(tmp_path / "alone")
    again = encode_on_ray(encode_corpus, mfcc, recordings, tmp_path / "out", SHARDS_OF_TWO)
    assert (again.encoded, again.resumed) == (0, 4)


def test_features_too(mfcc, recordings, tmp_path: Path) -> None:
    encode(mfcc, recordings, tmp_path / "alone", "safetensors")
    options = FeatureOptions(layer=0, shard_size=2)
    assert encode_on_ray(encode_features, mfcc, recordings, tmp_path / "out", options, workers=1).encoded == 5
    assert shards(tmp_path / "out") == shards(tmp_path / "alone")


def test_a_worker_that_is_killed_is_started_again(recordings, tmp_path: Path) -> None:
    encode(mfcc_tokenizer(), recordings, tmp_path / "alone")
    mark, tokenizer = str(tmp_path / "killed"), mfcc_tokenizer()

    def killed_once() -> None:
        if not os.path.exists(mark):  # noqa: PTH110
            os.mkdir(mark)  # noqa: PTH102
            os.kill(os.getpid(), signal.SIGKILL)

    spoil(tokenizer, killed_once)
    summary = encode_on_ray(encode_corpus, tokenizer, recordings, tmp_path / "out", SHARDS_OF_TWO, workers=1)
    assert summary.encoded == 5
    assert Path(mark).exists()
    assert shards(tmp_path / "out") == shards(tmp_path / "alone")


def test_errors_of_workers_are_told(recordings, tmp_path: Path) -> None:
    mark, tokenizer = str(tmp_path / "failed"), mfcc_tokenizer()

    def full_once() -> None:
        if not os.path.exists(mark):  # noqa: PTH110
            os.mkdir(mark)  # noqa: PTH102
            raise OSError(28, "No space left on device")

    spoil(tokenizer, full_once)
    # The other worker does the work of the one that stopped.
    with pytest.warns(EngineWarning, match="1 of 2 workers stopped.*No space left"):
        summary = encode_on_ray(encode_corpus, tokenizer, recordings, tmp_path / "out", SHARDS_OF_TWO)
    assert summary.encoded == 5
    assert [record.key for record in read_corpus(tmp_path / "out")[1]] == [u.key for u in recordings]
    Path(mark).rmdir()
    with pytest.raises(CorpusError, match="all 1 workers stopped before the end.*No space left"):
        encode_on_ray(encode_corpus, tokenizer, recordings, tmp_path / "none", SHARDS_OF_TWO, workers=1)
    with pytest.raises(CorpusError, match="another tokenizer"):
        encode_on_ray(encode_corpus, mfcc_tokenizer(seed=1), recordings, tmp_path / "out", SHARDS_OF_TWO)


def test_the_command(speech: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(speech.parent)
    arguments = ["-t", "mfcc-kmeans-100", "--shard-size", "2"]
    assert call("encode", "speech", tmp_path / "alone", *arguments) == 0
    on_ray = ("--engine", "ray", "--engine-workers", "1")
    code, out, _ = run(capsys, "encode", "speech", tmp_path / "out", *arguments, *on_ray)
    assert (code, out.count("6 files in = 6 files out + 0 failed")) == (0, 2)
    assert shards(tmp_path / "out") == shards(tmp_path / "alone")


def test_a_ray_data_set(mfcc, recordings, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray.data", exc_type=ImportError)
    ray.DataContext.get_current().enable_progress_bars = False
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    encode(mfcc, recordings, tmp_path / "alone")
    expected = {record.file_name: record.tokens["primary"] for record in read_corpus(tmp_path / "alone")[1]}
    rows = [{"path": str(path)} for path in (*(u.path for u in recordings), tmp_path / "bad.wav")]
    found = (
        ray.from_items(rows)
        .map_batches(
            RayEncoder,
            batch_format="pyarrow",
            batch_size=4,
            fn_constructor_kwargs={"tokenizer": mfcc, "device": "cpu"},
            compute=ray.ActorPoolStrategy(size=1),
        )
        .take_all()
    )
    assert len(found) == 6
    for row in found:
        if row["path"].endswith("bad.wav"):
            assert "bad.wav" in row["error"]
            assert (list(row["units"]), row["num_samples"], row["num_frames"]) == ([], 0, 0)
            continue
        tokens = expected[row["path"]]
        assert (list(row["units"]), list(row["duration"])) == (tokens.units.tolist(), tokens.durations.tolist())
        assert (row["num_samples"], row["num_frames"]) == (tokens.num_samples, tokens.num_frames)
        assert row["error"] is None


def test_tables_of_bytes(mfcc, recordings) -> None:
    encoder = RayEncoder("audio", tokenizer=mfcc, dedup=False)
    contents = [{"bytes": u.path.read_bytes(), "path": None} for u in recordings]
    table = encoder(pyarrow.table({"audio": contents, "text": ["a"] * 5}))
    assert table.column_names == ["audio", "text", "units", "num_samples", "num_frames", "error"]
    assert [row.tolist() for row in (mfcc.encode(u.path).codes for u in recordings)] == table["units"].to_pylist()


def test_what_is_refused(mfcc, recordings, tmp_path: Path, capsys) -> None:
    with pytest.raises(TypeError, match='batch_format="pyarrow"'):
        RayEncoder(tokenizer=mfcc)({"path": []})
    with pytest.raises(ValueError, match="no column 'path'.*there are audio"):
        RayEncoder(tokenizer=mfcc)(pyarrow.table({"audio": ["a.wav"]}))
    with pytest.raises(ValueError, match="column 'error' already"):
        RayEncoder(tokenizer=mfcc)(pyarrow.table({"path": ["a.wav"], "error": [1]}))
    for options in ({"device": "cuda:1"}, {"workers": 0}):
        with pytest.raises(ValueError, match="cuda:1|at least one worker"):
            encode_on_ray(encode_corpus, mfcc, recordings, tmp_path / "out", SHARDS_OF_TWO, **options)
    folder = recordings[0].path.parent
    for message, arguments in {
        "add --engine ray": [folder, "out", "--engine-workers", "2"],
        "leave --engine out": [folder, "out", "--engine", "ray", "--plan"],
        "name the folder to write as the second argument": [recordings[0].path, "--engine", "ray"],
    }.items():
        code, _, err = run(capsys, "encode", *arguments)
        assert (code, message in err) == (2, True)
