"""``spintok verify``: a whole folder passes, and each kind of damage is found."""

import json
import random
from pathlib import Path

import pytest
from forks import fork_commands
from voices import mfcc_tokenizer, voices

from spintok.cli import main
from spintok.corpus import CorpusError, Options, ShardError, encode_corpus, read_corpus
from spintok.corpus.verify import WAYS, check_folder, compare_codes, sample_records, ways_for
from spintok.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return mfcc_tokenizer(books=2)


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    options = Options(codebooks=("primary", "auxiliary"), shard_size=2)
    encode_corpus(tokenizer, voices(), tmp_path / "tokens", options)
    return tmp_path / "tokens"


def without_records(folder: Path) -> None:
    """Delete the checksums, as a copy without hidden files does."""
    for path in folder.glob(".*.record.json"):
        path.unlink()


def test_a_finished_folder_is_whole(folder: Path) -> None:
    checked = check_folder(folder)
    assert (checked.utterances, checked.failed, checked.shards, checked.without_checksum) == (6, 0, 3, 0)
    without_records(folder)
    assert check_folder(folder).without_checksum == 3


def test_codes_are_the_same_in_every_way(
    tokenizer: Tokenizer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    fork_commands(monkeypatch, tmp_path)
    found = compare_codes(tokenizer, str(tmp_path / "tokenizer"), folder, sample=4)
    assert [row.way for row in found] == ways_for(tokenizer) == list(WAYS)[:-1]
    frames = {record.key: 2 * record.tokens["primary"].num_frames for record in read_corpus(folder)[1]}
    chosen = sample_records(read_corpus(folder)[1], 4, random.Random(0))
    for row in found:
        assert (row.utterances, row.differ, row.keys) == (4, 0, ())
        assert row.codes == sum(frames[record.key] for record in chosen)


def test_codes_are_the_same_in_new_processes(tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    (row,) = compare_codes(tokenizer, str(tmp_path / "tokenizer"), folder, sample=4, ways=["by two processes"])
    assert (row.utterances, row.differ) == (4, 0)


def test_tokens_of_a_latency_are_those_of_a_stream(tokenizer: Tokenizer, tmp_path: Path) -> None:
    streaming = tokenizer.at(0.32)
    options = Options(codebooks=("primary", "auxiliary"))
    encode_corpus(streaming, voices(), tmp_path / "tokens", options)
    way = ways_for(streaming)[-1]
    (row,) = compare_codes(streaming, "unused", tmp_path / "tokens", ways=[way])
    assert (way, row.differ) == ("streamed in pieces of any size", 0)
    assert row.codes == sum(2 * r.tokens["primary"].num_frames for r in read_corpus(tmp_path / "tokens")[1])


def test_a_changed_code_is_found(tokenizer: Tokenizer, folder: Path) -> None:
    shard = folder / "tokens-00001.jsonl"
    lines = [json.loads(line) for line in shard.read_text().splitlines()]
    lines[0]["units"][3] = (lines[0]["units"][3] + 1) % 20
    shard.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ShardError, match="SHA-256"):
        check_folder(folder)
    without_records(folder)
    check_folder(folder)
    (row,) = compare_codes(tokenizer, "unused", folder, ways=["alone"])
    assert row.keys == (lines[0]["key"],)
    assert row.differ == lines[0]["duration"][3]


def test_missing_doubled_and_moved_utterances_are_found(folder: Path) -> None:
    without_records(folder)
    shard = folder / "tokens-00000.jsonl"
    first, second = shard.read_text().splitlines(keepends=True)
    shard.write_text(second + first)
    with pytest.raises(CorpusError, match="another order"):
        check_folder(folder)
    shard.write_text(first + first)
    with pytest.raises(CorpusError, match="twice"):
        check_folder(folder)
    shard.write_text(first)
    with pytest.raises(CorpusError, match="5 utterances and 0 failures, but 6 were listed"):
        check_folder(folder)
    shard.unlink()
    with pytest.raises(CorpusError, match="run spintok encode again"):
        check_folder(folder)


def test_failures_are_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav/bad.wav").write_bytes(b"no audio")
    (tmp_path / "wav/good.flac").write_bytes(voices()[0].path.read_bytes())
    from spintok.data.manifest import scan

    encode_corpus(tokenizer, scan(tmp_path / "wav"), tmp_path / "tokens", Options())
    assert check_folder(tmp_path / "tokens").failed == 1


def test_the_tokenizer_and_the_audio_must_be_there(tokenizer: Tokenizer, folder: Path) -> None:
    with pytest.raises(CorpusError, match="another tokenizer than other"):
        compare_codes(mfcc_tokenizer(seed=1), "other", folder, ways=["alone"])
    shard = folder / "tokens-00000.jsonl"
    shard.write_text(shard.read_text().replace(str(voices()[0].path), "/gone.flac"))
    without_records(folder)
    with pytest.raises(CorpusError, match=r"/gone\.flac: not found"):
        compare_codes(tokenizer, "unused", folder, ways=["alone"])


def test_samples_are_uniform_and_in_order() -> None:
    counts = dict.fromkeys(range(10), 0)
    for seed in range(2000):
        kept = sample_records(iter(range(10)), 3, random.Random(seed))
        assert kept == sorted(set(kept))
        assert len(kept) == 3
        for item in kept:
            counts[item] += 1
    # 600 expected of each; five standard deviations of the binomial are 102.
    assert all(abs(count - 600) < 102 for count in counts.values())
    assert sample_records(iter(range(2)), 5, random.Random(0)) == [0, 1]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """The exit code of ``spintok verify``."""
    monkeypatch.setattr("sys.argv", ["spintok", "verify", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_the_command_prints_a_table_and_tells_by_its_exit_code(
    tokenizer: Tokenizer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert run(monkeypatch, folder, "--sample", 0) == 0
    assert "6 utterances in 3 shards: complete, in order, no duplicates" in capsys.readouterr().out
    tokenizer.save(tmp_path / "mine")
    monkeypatch.setattr("spintok.corpus.verify.WAYS", {"alone": WAYS["alone"]})
    assert run(monkeypatch, folder, "-t", tmp_path / "mine") == 0
    assert "0 differ" in capsys.readouterr().out

    shard = folder / "tokens-00000.jsonl"
    lines = [json.loads(line) for line in shard.read_text().splitlines()]
    lines[1]["auxiliary_units"][0] ^= 1
    shard.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(monkeypatch, folder, "--sample", 0) == 2
    assert "SHA-256" in capsys.readouterr().err
    without_records(folder)
    assert run(monkeypatch, folder, "-t", tmp_path / "mine") == 1
    assert f"codes differ, in {lines[1]['key']}" in capsys.readouterr().err
