"""Workers that share a folder: their bytes are those of one worker, whoever dies, fails or computes otherwise."""

import json
from pathlib import Path

import pytest
import torch
from voices import mfcc_tokenizer

from spintok.corpus import CorpusError, FeatureOptions, Options, encode_corpus, encode_features, read_corpus
from spintok.corpus.cluster.store import FolderStore
from spintok.corpus.cluster.worker import Worker, open_worker
from spintok.corpus.job_meter import JobMeter
from spintok.corpus.job_summary import JobSummary
from spintok.corpus.read_ahead import ReadAhead
from spintok.corpus.tokens import token_writer
from spintok.corpus.verify import check_folder
from spintok.data.manifest import Utterance
from spintok.progress import no_progress
from spintok.tokens import Tokens
from tests.corpus import scale_faults
from tests.corpus.jobs import encode, make_recording
from tests.corpus.scale_faults import shards

SHARED = {"shared": True, "lease_seconds": 1.0}


@pytest.mark.parametrize("format", ["jsonl", "parquet", "km", "safetensors"])
def test_shared_folders_have_the_bytes_of_one_worker(mfcc, recordings, tmp_path: Path, format: str) -> None:
    encode(mfcc, recordings, tmp_path / "alone", format)
    summary = encode(mfcc, recordings, tmp_path / "shared", format, **SHARED)
    assert (summary.total, summary.encoded, summary.resumed) == (5, 5, 0)
    assert shards(tmp_path / "shared") == shards(tmp_path / "alone")
    again = encode(mfcc, recordings, tmp_path / "shared", format, **SHARED)
    assert (again.encoded, again.resumed) == (0, 5)
    assert shards(tmp_path / "shared") == shards(tmp_path / "alone")


def test_disturbed_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert scale_faults.main(["--runs", "3"]) == 0
    assert "0 utterances lost, 0 twice, 0 files differ, 0 wrong exit codes" in capfd.readouterr().out


def test_the_journal_of_a_dead_worker_is_continued(mfcc, recordings, tmp_path: Path, monkeypatch) -> None:
    class Killed(BaseException):
        """Ends a worker as a signal does, with nothing tidied up."""

    calls = iter(range(100))
    iter_recordings = mfcc.iter_recordings

    def dies(*arguments, **options):
        if next(calls) == 3:
            raise Killed
        return iter_recordings(*arguments, **options)

    monkeypatch.setattr(mfcc, "iter_recordings", dies)
    options = Options(shard_size=5, **SHARED)
    with pytest.raises(Killed):
        encode_corpus(mfcc, recordings, tmp_path / "out", options)
    summary = encode_corpus(mfcc, recordings, tmp_path / "out", options)
    assert (summary.encoded, summary.resumed) == (2, 3)
    assert [record.key for record in read_corpus(tmp_path / "out")[1]] == [u.key for u in recordings]


def test_a_plain_run_is_continued_by_shared_workers_and_back(mfcc, recordings, tmp_path: Path) -> None:
    encode(mfcc, recordings, tmp_path / "alone")
    encode(mfcc, recordings, tmp_path / "out")
    for name in ("tokens-00001.jsonl", ".tokens-00001.jsonl.record.json"):
        (tmp_path / "out" / name).unlink()
    assert encode(mfcc, recordings, tmp_path / "out", **SHARED).encoded == 2
    assert shards(tmp_path / "out") == shards(tmp_path / "alone")
    assert encode(mfcc, recordings, tmp_path / "out").resumed == 5
    assert not (tmp_path / "out/.work").exists()


def test_failures_are_listed_once_and_tried_again_when_repaired(mfcc, recordings, tmp_path: Path) -> None:
    good = recordings[2].path.read_bytes()
    recordings[2].path.write_bytes(b"no audio")
    for _ in range(2):
        summary = encode(mfcc, recordings, tmp_path / "out", **SHARED)
        assert [failure.key for failure in summary.failures] == ["2"]
    assert len((tmp_path / "out/failed.jsonl").read_text().splitlines()) == 1
    assert check_folder(tmp_path / "out").failed == 1
    recordings[2].path.write_bytes(good)
    summary = encode(mfcc, recordings, tmp_path / "out", **SHARED)
    assert (summary.encoded, summary.resumed, summary.failures) == (1, 4, [])
    encode(mfcc, recordings, tmp_path / "alone")
    assert shards(tmp_path / "out") == shards(tmp_path / "alone")


def test_a_longer_list_continues_a_folder(mfcc, recordings, tmp_path: Path) -> None:
    encode(mfcc, recordings[:3], tmp_path / "out", **SHARED)
    summary = encode(mfcc, recordings, tmp_path / "out", **SHARED)
    assert (summary.encoded, summary.resumed) == (2, 3)
    encode(mfcc, recordings, tmp_path / "alone")
    assert shards(tmp_path / "out") == shards(tmp_path / "alone")


def test_other_tokens_lists_and_machines_are_refused(mfcc, recordings, tmp_path: Path, monkeypatch) -> None:
    encode(mfcc, recordings, tmp_path / "out", **SHARED)
    with pytest.raises(CorpusError, match="another tokenizer"):
        encode(mfcc_tokenizer(seed=1), recordings, tmp_path / "out", **SHARED)
    with pytest.raises(CorpusError, match="not listed now"):
        encode(mfcc, recordings[1:], tmp_path / "out", **SHARED)
    with pytest.raises(CorpusError, match="shards of another size"):
        encode(mfcc, recordings, tmp_path / "out", shard_size=3, **SHARED)
    (tmp_path / "out/.tokens-00001.jsonl.record.json").unlink()
    iter_recordings = mfcc.iter_recordings

    def otherwise(*arguments, **options):
        # A machine that computes another code for one frame of an utterance.
        for index, found in iter_recordings(*arguments, **options):
            tokens = found["primary"]
            codes = tokens.codes.copy()
            codes[0] ^= 1
            yield index, {"primary": Tokens(codes, tokens.codebook_size, tokens.num_samples)}

    monkeypatch.setattr(mfcc, "iter_recordings", otherwise)
    with pytest.raises(CorpusError, match="cannot share a run"):
        encode(mfcc, recordings, tmp_path / "out", **SHARED)


def test_two_finishers_with_other_bytes_are_an_error(mfcc, recordings, tmp_path: Path, monkeypatch) -> None:
    encode(mfcc, recordings, tmp_path / "out", **SHARED)
    record = tmp_path / "out/.tokens-00001.jsonl.record.json"
    content = json.loads(record.read_text())
    content["sha256"]["tokens-00001.jsonl"] = "0" * 64
    record.unlink()
    publish = Worker._publish

    def second(worker: Worker, index: int, made: Path) -> None:
        # Another worker has finished meanwhile.
        record.write_text(json.dumps(content))
        publish(worker, index, made)

    monkeypatch.setattr(Worker, "_publish", second)
    with pytest.raises(CorpusError, match="do not compute alike"):
        encode(mfcc, recordings, tmp_path / "out", **SHARED)


def test_a_worker_that_lags_behind_the_finisher_goes_on(mfcc, recordings, tmp_path: Path) -> None:
    options = Options(shared=True)
    writer, store = token_writer(mfcc, options), FolderStore(tmp_path)
    meter, summary = JobMeter(no_progress, len(recordings)), JobSummary()
    with (
        open_worker(writer, mfcc, [recordings], store, options) as slow,
        open_worker(writer, mfcc, [recordings], store, options) as fast,
    ):
        # While the slow one is at work, the other finishes the shard and deletes the workspaces of both.
        slow.encode(0, summary, meter, lambda: fast.encode(0, JobSummary(), meter))
        assert summary.encoded == 0
        assert slow.is_finished(0)


@pytest.mark.parametrize("place", ["tokens-00001.jsonl", "agreement"])
def test_a_worker_that_lags_behind_before_it_has_a_workspace_goes_on(
    mfcc, recordings, tmp_path: Path, monkeypatch, place: str
) -> None:
    options = Options(shared=True)
    writer, store = token_writer(mfcc, options), FolderStore(tmp_path)
    meter, summary, parts = JobMeter(no_progress, len(recordings)), JobSummary(), [recordings[:2], recordings[2:]]
    with (
        open_worker(writer, mfcc, parts, store, options) as slow,
        open_worker(writer, mfcc, parts, store, options) as fast,
    ):
        fast.encode(0, JobSummary(), meter)
        mkdir, met = Path.mkdir, []

        def late(path: Path, *arguments: object, **given: object) -> None:
            if path.name == slow.name and path.parent.name == place and not met:
                met.append(path)
                fast.encode(1, JobSummary(), meter)
            mkdir(path, *arguments, **given)

        monkeypatch.setattr(Path, "mkdir", late)
        slow.encode(1, summary, meter)
        assert met
        assert summary.encoded == 0
        assert slow.is_finished(1)


def test_an_output_that_vanishes_is_not_made_anew(mfcc, recordings, tmp_path: Path) -> None:
    options = Options(shared=True)
    writer, store = token_writer(mfcc, options), FolderStore(tmp_path / "out")
    with open_worker(writer, mfcc, [recordings], store, options) as worker:
        (tmp_path / "out").rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            worker.encode(0, JobSummary(), JobMeter(no_progress, 5))
    assert not (tmp_path / "out").exists()


def test_too_little_memory_halves_a_batch(mfcc, recordings, tmp_path: Path, monkeypatch) -> None:
    sizes = []
    iter_recordings = mfcc.iter_recordings

    def small(batch, *arguments, **options):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return iter_recordings(batch, *arguments, **options)

    monkeypatch.setattr(mfcc, "iter_recordings", small)
    # As on a GPU, where recordings share batches.
    portions = ReadAhead.portions
    monkeypatch.setattr(ReadAhead, "portions", lambda self, found, seconds, fail: portions(self, found, 1e9, fail))
    summary = encode_corpus(mfcc, recordings, tmp_path / "out", Options(shard_size=5))
    assert not summary.failures
    assert sizes == [5, 2, 2, 1]


def test_shards_by_seconds(mfcc, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    # 2000 + 700 n samples: 0.125 s and 0.04375 s more for each; number 60 has 2.75 s.
    utterances = [make_recording(tmp_path / "audio", number) for number in (0, 1, 2, 60, 3, 4)]
    options = {"shard_size": 1000, "shard_seconds": 0.4}
    encode(mfcc, utterances, tmp_path / "out", **options)
    assert json.loads((tmp_path / "out/tokenizer.json").read_text())["shard_starts"] == [0, 3, 4]
    assert [record.key for record in read_corpus(tmp_path / "out")[1]] == [u.key for u in utterances]
    encode(mfcc, utterances, tmp_path / "shared", **options, **SHARED)
    assert shards(tmp_path / "shared") == shards(tmp_path / "out")
    # A file of another length moves no boundary, and a list that grows goes on with the last shard.
    make_recording(tmp_path, 50).path.replace(utterances[1].path)
    grown = [*utterances, Utterance("more", make_recording(tmp_path / "audio", 5).path)]
    summary = encode(mfcc, grown, tmp_path / "out", **options)
    assert (summary.encoded, summary.resumed) == (2, 5)
    assert json.loads((tmp_path / "out/tokenizer.json").read_text())["shard_starts"] == [0, 3, 4, 6]
    with pytest.raises(CorpusError, match="shards of another size"):
        encode(mfcc, grown, tmp_path / "out")
    assert check_folder(tmp_path / "out").shards == 4


def test_features_are_shared_too(mfcc, recordings, tmp_path: Path) -> None:
    options = FeatureOptions(layer=0, shard_size=2, **SHARED)
    assert encode_features(mfcc, recordings, tmp_path / "out", options).encoded == 5


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="leave rank and ranks out"):
        Options(shared=True, ranks=2)
    with pytest.raises(ValueError, match="cannot overwrite"):
        Options(shared=True, overwrite=True)
    with pytest.raises(ValueError, match="lease_seconds"):
        Options(shared=True, lease_seconds=0)
    with pytest.raises(ValueError, match="shard_seconds"):
        Options(shard_seconds=-1)
