import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spintok import Tokens
from spintok._files import atomic
from spintok.corpus.token_formats import Record, ShardError, read_shard, shard_path, write_shard

SIZES = {"primary": 9, "auxiliary": 70_000}


def record(key: str, codes: list[int], speaker: str | None = None) -> Record:
    tokens = {
        "primary": Tokens(np.array(codes, dtype=np.int32), 9, 320 * len(codes) + 80),
        "auxiliary": Tokens(np.array(codes, dtype=np.int32) * 7_000, 70_000, 320 * len(codes) + 80),
    }
    return Record(key, f"/audio/{key}.wav", tokens, speaker)


RECORDS = [record("a/é 1", [1, 1, 8, 0], "ann"), record("empty", []), record("b", [3])]


def same(one: Record, other: Record) -> bool:
    samples = [[t.num_samples for t in r.tokens.values()] for r in (one, other)]
    return one == other and samples[0] == samples[1]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
@pytest.mark.parametrize("dedup", [True, False])
def test_what_is_written_is_read(tmp_path, format, dedup) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    path = shard_path(tmp_path, 3, format)
    assert path.name == f"tokens-00003.{format}"
    write_shard(path, RECORDS, format, dedup=dedup)
    found = read_shard(path, SIZES)
    assert all(same(one, other) for one, other in zip(found, RECORDS, strict=True))


@given(st.lists(st.lists(st.integers(0, 8), max_size=20), max_size=4))
def test_json_lines_of_any_codes(tmp_path_factory, codes) -> None:
    path = tmp_path_factory.mktemp("shards") / "tokens-00000.jsonl"
    records = [record(str(i), row) for i, row in enumerate(codes)]
    write_shard(path, records, "jsonl", dedup=True)
    assert read_shard(path, SIZES) == records


def test_json_lines_have_the_names_others_read(tmp_path) -> None:
    write_shard(tmp_path / "t.jsonl", RECORDS, "jsonl", dedup=True)
    row = json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])
    assert row["file_name"] == "/audio/a/é 1.wav"
    assert row["units"] == [1, 8, 0]
    assert row["duration"] == [2, 1, 1]


def test_km_is_fairseqs_pair(tmp_path) -> None:
    records = [Record(r.file_name, r.file_name, {"primary": r.tokens["primary"]}) for r in RECORDS]
    write_shard(tmp_path / "t.km", records, "km", dedup=False)
    assert (tmp_path / "t.km").read_text() == "1 1 8 0\n\n3\n"
    assert (tmp_path / "t.tsv").read_text() == "/\n/audio/a/é 1.wav\t1360\n/audio/empty.wav\t80\n/audio/b.wav\t400\n"
    assert read_shard(tmp_path / "t.km", {"primary": 9}) == records
    with pytest.raises(ShardError, match="durations would be lost"):
        write_shard(tmp_path / "t.km", records, "km", dedup=True)
    with pytest.raises(ShardError, match="cannot hold this name"):
        write_shard(tmp_path / "t.km", [Record("x", "a\tb.wav", records[0].tokens)], "km", dedup=False)


def test_a_km_without_its_list_is_refused(tmp_path) -> None:
    (tmp_path / "t.km").write_text("1 1\n2\n")
    (tmp_path / "t.tsv").write_text("/\na.wav\t400\n")
    with pytest.raises(ShardError, match="2 lines for 1 files"):
        read_shard(tmp_path / "t.km", {"primary": 9})


def row(**changed: object) -> str:
    """A line with one run of three frames, and something changed."""
    names = {"key": "a", "file_name": "a", "speaker": None, "num_samples": 1000, "num_frames": 3}
    return json.dumps({**names, "units": [1], "duration": [3], **changed})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json\n", "not JSON"),
        ("[1]\n", "not a JSON object"),
        ('{"key": "a"}\n', "not a token shard"),
        (
            '{"key": "a", "file_name": "a", "speaker": null, "num_samples": 9, "num_frames": 3, "units": [1], '
            '"duration": [2]}\n',
            "2 codes for 3 frames",
        ),
        # Nothing of this size is allocated, or converted, before it is compared.
        (row(duration=[2_000_000_000]), "2000000000 codes for 3 frames"),
        (row(duration=[2_000_000_000], num_frames=2_000_000_000), "2000000000 frames of 1000 samples"),
        (row(duration=[10**400]), "codes for 3 frames"),
        (row(duration=[10**400], num_frames=10**400), "frames of 1000 samples"),
        (row(units=[10**400]), "codes must be integers"),
        (row(duration=[-3, 6], units=[1, 2]), "at least 1 frame"),
        (row(num_samples="1000"), "frames of '1000' samples"),
        (row(num_samples=float("nan")), "frames of nan samples"),
        (row(key=7), "are strings"),
        (row(speaker=[]), "are strings"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_damaged_shards_are_refused(tmp_path, text, message) -> None:
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(ShardError, match=message):
        read_shard(tmp_path / "t.jsonl", {"primary": 9})


def test_atomic_leaves_the_old_file_when_writing_fails(tmp_path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
