import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import spintok
from spintok.corpus.tokens import CorpusError, Options, encode_corpus, read_corpus
from spintok.data.manifest import scan
from spintok.tokens import Tokens


@pytest.fixture(scope="module")
def tokenizer():
    return spintok.load("mfcc-kmeans-100")


@pytest.fixture
def audio(tmp_path):
    """Nine recordings of mixed lengths in two folders."""
    rng = np.random.default_rng(0)
    for i in range(9):
        folder = tmp_path / "audio" / ("x" if i % 2 else "y")
        folder.mkdir(parents=True, exist_ok=True)
        samples = rng.standard_normal(int(rng.integers(300, 30_000))) * 0.1
        soundfile.write(folder / f"{i}.flac", samples, 16_000)
    return tmp_path / "audio"


def contents(folder):
    """Every file that must not depend on how the work went."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def encode(tokenizer, audio, folder, **options):
    return encode_corpus(tokenizer, scan(audio), folder, Options(**{"shard_size": 2, **options}))


def test_shards_hold_every_file_in_order(tokenizer, audio, tmp_path) -> None:
    summary = encode(tokenizer, audio, tmp_path / "out")
    assert summary.audit == "9 files in = 9 files out + 0 failed"
    description, records = read_corpus(tmp_path / "out")
    records = list(records)
    assert description["fingerprint"] == tokenizer.fingerprint
    assert [r.key for r in records] == [u.key for u in scan(audio)]
    for record in records:
        assert record.tokens["primary"] == tokenizer.encode(record.file_name)
        assert record.tokens["primary"].num_samples == soundfile.info(record.file_name).frames
    assert summary.counts.frames.sum() == sum(r.tokens["primary"].num_frames for r in records)
    assert json.loads((tmp_path / "out/stats.json").read_text())["figures"]["utterances"] == 9


def test_the_bytes_do_not_depend_on_workers_or_ranks(tokenizer, audio, tmp_path) -> None:
    encode(tokenizer, audio, tmp_path / "one")
    encode(tokenizer, audio, tmp_path / "many", workers=5)
    for rank in (2, 0, 1):
        encode(tokenizer, audio, tmp_path / "ranks", rank=rank, ranks=3)
    one = contents(tmp_path / "one")
    assert contents(tmp_path / "many") == one
    shards = {name: data for name, data in one.items() if name.startswith("tokens-")}
    ranks = contents(tmp_path / "ranks")
    assert {name: data for name, data in ranks.items() if name.startswith("tokens-")} == shards
    parts = [json.loads(ranks[f"stats-0000{r}-of-00003.json"])["counts"]["utterances"] for r in range(3)]
    assert sum(parts) == 9


@pytest.mark.parametrize("format", ["jsonl", "parquet", "km"])
def test_a_second_run_changes_nothing(tokenizer, audio, tmp_path, format) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    options = {"format": format, "dedup": format != "km"}
    encode(tokenizer, audio, tmp_path / "out", **options)
    before = contents(tmp_path / "out")
    summary = encode(tokenizer, audio, tmp_path / "out", **options)
    assert (summary.encoded, summary.resumed) == (0, 9)
    assert contents(tmp_path / "out") == before


def test_bad_files_are_listed_and_tried_again(tokenizer, audio, tmp_path) -> None:
    good = (audio / "x/1.flac").read_bytes()
    (audio / "x/1.flac").write_text("not audio")
    (audio / "y/2.flac").write_bytes(b"")
    summary = encode(tokenizer, audio, tmp_path / "out")
    assert summary.audit == "9 files in = 7 files out + 2 failed"
    failed = [json.loads(line) for line in (tmp_path / "out/failed.jsonl").read_text().splitlines()]
    assert [f["key"] for f in failed] == ["x/1", "y/2"]
    assert "libsndfile cannot read" in failed[0]["error"]
    assert failed[1]["file_name"] == str(audio / "y/2.flac")
    # Mended files are taken up; the others' tokens are not computed again.
    (audio / "x/1.flac").write_bytes(good)
    (audio / "y/2.flac").write_bytes(good)
    again = encode(tokenizer, audio, tmp_path / "out")
    assert (again.encoded, again.resumed, again.failures) == (2, 7, [])
    assert encode(tokenizer, audio, tmp_path / "clean").encoded == 9
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def test_other_tokens_are_never_mixed(tokenizer, audio, tmp_path) -> None:
    encode(tokenizer, audio, tmp_path / "out")
    before = contents(tmp_path / "out")
    for options, message in (
        ({"dedup": False}, "--dedup"),
        ({"shard_size": 3}, "another size"),
        ({"format": "km", "dedup": False}, "another format"),
    ):
        with pytest.raises(CorpusError, match=message):
            encode(tokenizer, audio, tmp_path / "out", **options)
    other = spintok.load("mfcc-kmeans-100")
    with np.errstate(all="ignore"):
        other.codebooks["primary"].codewords.data[0] += 1
    with pytest.raises(CorpusError, match="another tokenizer"):
        encode(other, audio, tmp_path / "out")
    next(audio.glob("*/*.flac")).unlink()
    with pytest.raises(CorpusError, match="not listed now"):
        encode(tokenizer, audio, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    summary = encode(tokenizer, audio, tmp_path / "out", overwrite=True)
    assert summary.encoded == 8


def test_foreign_and_damaged_folders_are_refused(tokenizer, audio, tmp_path) -> None:
    out = tmp_path / "out"
    encode(tokenizer, audio, out)
    (out / "tokens-00001.jsonl").write_text('{"key": "x/1"}\n')
    with pytest.raises(CorpusError, match=r"tokens-00001.*delete this shard"):
        encode(tokenizer, audio, out)
    (out / "tokenizer.json").unlink()
    with pytest.raises(CorpusError, match=r"without a tokenizer\.json"):
        encode(tokenizer, audio, out)
    with pytest.raises(CorpusError, match=r"^s3:/bucket/tokens: folders of tokens are read from a disk"):
        read_corpus(Path("s3://bucket/tokens"))
    with pytest.raises(CorpusError, match="not a folder of tokens"):
        read_corpus(out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 3, "ranks": 3}, "rank must lie"),
        ({"workers": 0}, "at least 1"),
        ({"format": "km"}, "--no-dedup"),
        ({"format": "km", "dedup": False, "codebooks": ("a", "b")}, "one codebook"),
        ({"ranks": 2, "overwrite": True}, "ranks cannot overwrite"),
    ],
)
def test_impossible_options_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_a_missing_library_is_named_before_any_work(tokenizer, audio, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'spintok\[export\]'"):
        encode(tokenizer, audio, tmp_path / "out", format="parquet")
    assert not (tmp_path / "out").exists()


def test_codes_of_no_frames_are_kept(tokenizer, tmp_path) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    encode(tokenizer, tmp_path / "short.wav", tmp_path / "out")
    _, records = read_corpus(tmp_path / "out")
    assert next(records).tokens["primary"] == Tokens(np.zeros(0, dtype=np.int32), 100)
