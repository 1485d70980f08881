"""The output folder of a job: locks, what may be deleted, lists that grow, and README.md."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from forks import ended, fork

from spintok._files import lock
from spintok.corpus import CorpusError, count_corpus, encode_corpus, read_corpus, read_features
from spintok.corpus.journal import Journal
from spintok.corpus.tokens import Options
from spintok.data.manifest import scan
from tests.corpus.jobs import FORMATS, contents, encode


def test_two_runs_on_one_folder_are_refused(mfcc, recordings, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with lock(out / ".lock"), pytest.raises(CorpusError, match="another spintok encode is writing here"):
        encode(mfcc, recordings, out)
    assert list(out.iterdir()) == []
    encode(mfcc, recordings, out)
    assert not (out / ".lock").exists()


def test_ranks_coexist_but_not_twice(mfcc, recordings, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with lock(out / ".lock", shared=True), lock(out / ".lock-00001-of-00003"):
        assert encode(mfcc, recordings, out, rank=0, ranks=3).encoded == 2
        with pytest.raises(CorpusError, match="another process is rank 1 of 3 here"):
            encode(mfcc, recordings, out, rank=1, ranks=3)
        with pytest.raises(CorpusError, match="another spintok encode is writing here"):
            encode(mfcc, recordings, out)
    for rank in (1, 2):
        encode(mfcc, recordings, out, rank=rank, ranks=3)
    assert len(list(read_corpus(out)[1])) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_is_refused_while_another_process_encodes(mfcc, recordings, tmp_path) -> None:
    """Two real processes; the first one is stopped in the middle of its work."""
    audio, out = recordings[0].path.parent, tmp_path / "out"

    def stop_at_the_first_record() -> None:
        append = Journal.append

        def stopping(self, value) -> None:
            append(self, value)
            if "record" in value:
                os.kill(os.getpid(), signal.SIGSTOP)

        Journal.append = stopping
        encode_corpus(mfcc, scan(audio), out, Options(shard_size=2))

    child = fork(stop_at_the_first_record)
    try:
        assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
        with pytest.raises(CorpusError, match="another spintok encode"):
            encode(mfcc, recordings, out)
    finally:
        os.kill(child, signal.SIGKILL)
        ended(child)
    # A killed process holds no lock, and what it had encoded is in its journal.
    summary = encode_corpus(mfcc, scan(audio), out, Options(shard_size=2))
    assert (summary.encoded, summary.resumed) == (4, 1)


@pytest.mark.parametrize("format", FORMATS)
def test_what_dead_runs_left_is_removed(mfcc, recordings, tmp_path, format) -> None:
    encode(mfcc, recordings, tmp_path / "out", format)
    before = contents(tmp_path / "out")
    (tmp_path / "out/.tokens-00000.jsonl.0123456789abcdef.tmp").write_text("half")
    encode(mfcc, recordings, tmp_path / "out", format, rank=1, ranks=2)
    after = contents(tmp_path / "out")
    assert {name: data for name, data in after.items() if "stats" not in name} == {
        name: data for name, data in before.items() if "stats" not in name
    }


def test_overwrite_deletes_only_what_spintok_wrote(mfcc, recordings, tmp_path) -> None:
    out = tmp_path / "out"
    encode(mfcc, recordings, out)
    mine = ("tokens-notes.txt", "tokens-00000.jsonl.bak", "failed-runs.jsonl", "stats-old.json", "notes.md")
    for name in mine:
        (out / name).write_text("mine")
    (out / "tokens-00009.jsonl").mkdir()
    encode(mfcc, recordings[:3], out, overwrite=True)
    assert all((out / name).read_text() == "mine" for name in mine)
    assert sorted(path.name for path in out.glob("tokens-0*.jsonl")) == [
        "tokens-00000.jsonl", "tokens-00001.jsonl", "tokens-00009.jsonl",
    ]  # fmt: skip


@pytest.mark.parametrize("content", ['{"version": "1.0", "model": {}}', "not json", "[1]"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_another_programs_tokenizer_json_stays(mfcc, recordings, tmp_path, content, overwrite) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "tokenizer.json").write_text(content)
    (out / "tokens-00000.jsonl").write_text("{}")
    before = contents(out)
    with pytest.raises(CorpusError, match="not written by spintok|damaged"):
        encode(mfcc, recordings, out, overwrite=overwrite)
    assert contents(out) == before


@pytest.mark.parametrize("format", FORMATS)
def test_folders_with_missing_shards_are_refused(mfcc, recordings, tmp_path, format) -> None:
    out = tmp_path / "out"
    encode(mfcc, recordings, out, format)
    read = read_corpus if format in ("jsonl", "parquet", "km") else read_features
    shard = next(path for path in out.glob("[!.]*-00001.*") if path.suffix != ".tsv")
    shard.unlink()
    with pytest.raises(CorpusError, match="2 of 3 shards; run spintok encode again"):
        read(out)
    # The number of shards is right, but not their names.
    (shard.parent / shard.name.replace("00001", "00007")).write_text("")
    with pytest.raises(CorpusError, match="00001.* is missing"):
        read(out)


def test_counting_refuses_missing_shards(mfcc, recordings, tmp_path) -> None:
    encode(mfcc, recordings, tmp_path / "out", rank=0, ranks=2)
    with pytest.raises(CorpusError, match="2 of 3 shards"):
        count_corpus(tmp_path / "out")


def test_lists_of_failures_of_other_ranks_go(mfcc, recordings, tmp_path) -> None:
    out = tmp_path / "out"
    good = recordings[1].path.read_bytes()
    recordings[1].path.write_text("not audio")
    for rank in (0, 1):
        encode(mfcc, recordings, out, rank=rank, ranks=2)
    assert (out / "failed-00000-of-00002.jsonl").exists()
    recordings[1].path.write_bytes(good)
    assert encode(mfcc, recordings, out).failures == []
    assert not list(out.glob("failed*"))
    assert [path.name for path in out.glob("stats*")] == ["stats.json"]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_datasets_opens_the_folder_as_it_is(mfcc, recordings, tmp_path, format) -> None:
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "out"
    # No shard but the second knows a speaker.
    encode(mfcc, [recordings[0], recordings[2], recordings[1], recordings[3]], out, format)
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"]
    records = list(read_corpus(out)[1])
    assert [row["key"] for row in loaded] == [record.key for record in records]
    assert [row["speaker"] for row in loaded] == [None, None, "ann", "ann"]
    for row, record in zip(loaded, records, strict=True):
        assert row["units"] == record.tokens["primary"].units.tolist()
        assert row["duration"] == record.tokens["primary"].durations.tolist()


def test_a_readme_of_the_users_stays(mfcc, recordings, tmp_path) -> None:
    out = tmp_path / "out"
    encode(mfcc, recordings, out)
    assert "tokens-*.jsonl" in (out / "README.md").read_text()
    encode(mfcc, recordings, out, "parquet", overwrite=True)
    assert "tokens-*.parquet" in (out / "README.md").read_text()
    encode(mfcc, recordings, out, "km", overwrite=True)
    assert not (out / "README.md").exists()
    (out / "README.md").write_text("mine")
    encode(mfcc, recordings, out, overwrite=True)
    assert (out / "README.md").read_text() == "mine"


def test_a_folder_of_an_earlier_version_opens_and_goes_on(mfcc, recordings, tmp_path) -> None:
    """Without records, without README.md."""
    out = tmp_path / "out"
    encode(mfcc, recordings, out)
    before = contents(out)
    for path in [*out.glob(".*"), out / "README.md"]:
        path.unlink()
    (out / "tokens-00001.jsonl").unlink()
    description = json.loads((out / "tokenizer.json").read_text())
    assert set(description) == {
        "spintok_tokens", "tokenizer", "fingerprint", "codebooks", "sample_rate", "frame_rate", "receptive_field",
        "format", "dedup", "shard_size", "utterances", "utterance_list",
    }  # fmt: skip
    assert encode(mfcc, recordings, out).encoded == 2
    after = contents(out)
    assert {name: data for name, data in after.items() if not name.startswith(".")} == {
        name: data for name, data in before.items() if not name.startswith(".")
    }
    assert len(list(read_corpus(out)[1])) == 5


@pytest.mark.parametrize(
    "changed",
    [
        {"utterances": -5}, {"utterances": 1e400}, {"utterances": "5"}, {"shard_size": 0}, {"format": "/../x"},
        {"format": None}, {"codebooks": {}}, {"codebooks": [1]}, {"codebooks": {"primary": 1e400}},
    ],
)  # fmt: skip
def test_damaged_descriptions_are_refused(mfcc, recordings, tmp_path, changed) -> None:
    out = tmp_path / "out"
    encode(mfcc, recordings, out)
    description = json.loads((out / "tokenizer.json").read_text())
    (out / "tokenizer.json").write_text(json.dumps({**description, **changed}))
    with pytest.raises(CorpusError, match=r"tokenizer\.json: damaged"):
        read_corpus(out)


def test_a_list_that_claims_to_be_huge_is_refused_at_once(mfcc, recordings, tmp_path) -> None:
    out = tmp_path / "out"
    encode(mfcc, recordings, out)
    description = json.loads((out / "tokenizer.json").read_text())
    (out / "tokenizer.json").write_text(json.dumps({**description, "utterances": 10**18}))
    with pytest.raises(CorpusError, match=f"3 of {10**18 // 2} shards"):
        read_corpus(out)


def test_ranks_that_start_together_lose_nothing(mfcc, recordings, tmp_path) -> None:
    encode(mfcc, recordings, tmp_path / "one")
    shards = {name: data for name, data in contents(tmp_path / "one").items() if "tokens-" in name}
    with ThreadPoolExecutor(3) as pool:
        for attempt in range(10):
            out = tmp_path / f"ranks-{attempt}"
            done = [pool.submit(encode, mfcc, recordings, out, rank=rank, ranks=3) for rank in range(3)]
            assert sum(one.result().encoded for one in done) == 5
            assert {name: data for name, data in contents(out).items() if "tokens-" in name} == shards
            assert not [
                path for path in out.glob(".*") if not path.name.endswith(("record.json", ".jsonl.gz", ".lock"))
            ]
