"""Packed files against megatron-core's own reader, and the data sets made of them."""

import json
import warnings
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
from forks import ended, fork
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.export.bpe import UnitBpe
from spintok.export.errors import ExportError
from spintok.export.packed.dataset import export_packed
from spintok.export.packed.indexed import IndexedDataset, id_type, indexed_writer
from spintok.export.packed.reader import Windows, read_packed
from spintok.export.packed.windows import split_of
from spintok.export.sidecar import read_sidecar
from spintok.export.vocabulary import Vocabulary
from tests.export.token_folders import make_records, write_folder

SEQUENCES = [np.array([1, 2, 3]), np.array([], dtype=int), np.array([65535]), np.arange(100)]


def write(prefix, dtype, sequences=SEQUENCES):
    with indexed_writer(prefix, dtype) as append:
        for sequence in sequences:
            append(sequence)


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_own_reader(dtype, tmp_path):
    write(tmp_path / "x", dtype)
    packed = IndexedDataset(tmp_path / "x")
    assert len(packed) == len(SEQUENCES)
    for found, expected in zip(packed, SEQUENCES, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(packed[-1], SEQUENCES[-1])
    with pytest.raises(IndexError):
        packed[len(SEQUENCES)]


def test_plain_memmap_reads_the_data(tmp_path):
    write(tmp_path / "x", "uint16")
    np.testing.assert_array_equal(np.memmap(tmp_path / "x.bin", dtype="<u2", mode="r"), np.concatenate(SEQUENCES))


def read_with_megatron(prefixes, output):
    warnings.simplefilter("ignore")
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    found = []
    for prefix in prefixes:
        data = IndexedDataset(str(prefix), multimodal=False, mmap=True)
        found.append([data.document_indices.tolist(), [data[i].tolist() for i in range(len(data))]])
    output.write_text(json.dumps(found))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core")
def test_megatron_reads_it(tmp_path):
    """In one forked process for both types: importing megatron takes most of the time, and changes this process."""
    prefixes = [tmp_path / dtype for dtype in ("uint16", "uint32")]
    for prefix in prefixes:
        write(prefix, prefix.name)
    assert ended(fork(partial(read_with_megatron, prefixes, tmp_path / "found.json"))) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == [[[0, 1, 2, 3, 4], [sequence.tolist() for sequence in SEQUENCES]]] * 2


def test_many_sequences_cross_the_index_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("spintok.export.packed.indexed.BLOCK", 3)
    sequences = [np.arange(n % 5) for n in range(20)]
    write(tmp_path / "x", "uint16", sequences)
    packed = IndexedDataset(tmp_path / "x")
    assert [part.tolist() for part in packed] == [s.tolist() for s in sequences]
    assert packed.documents.tolist() == list(range(21))


def test_ids_that_do_not_fit_leave_nothing_behind(tmp_path):
    for dtype, bad in (("uint16", 65536), ("uint16", -1), ("uint32", 2**31)):
        with pytest.raises(ExportError, match="do not fit"):
            write(tmp_path / "x", dtype, [np.array([1]), np.array([bad])])
    assert list(tmp_path.iterdir()) == []
    assert (id_type(65536), id_type(65537)) == ("uint16", "uint32")
    with pytest.raises(ExportError, match="does not fit in uint16"):
        id_type(65537, "uint16")


def test_damaged_pairs_are_refused(tmp_path):
    write(tmp_path / "x", "uint16")
    (tmp_path / "x.bin").write_bytes(b"\0\0")
    with pytest.raises(ExportError, match="does not have the size"):
        IndexedDataset(tmp_path / "x")
    (tmp_path / "x.idx").write_bytes(b"MMIDIDX")
    with pytest.raises(ExportError, match="not the index of an indexed dataset"):
        IndexedDataset(tmp_path / "x")


@pytest.mark.parametrize("form", ["units", "frames", "durations"])
@pytest.mark.parametrize("shuffle", [None, 3])
def test_round_trip(form, shuffle, folder, records, tmp_path, same):
    vocabulary = Vocabulary("random", "f" * 64, {"primary": 100}, first_id=1000, durations=3)
    export_packed([folder], tmp_path / "out", form=form, vocabulary=vocabulary, shuffle=shuffle)
    _, found = read_packed(tmp_path / "out")
    found = list(found)
    if shuffle is not None:
        assert [r.key for r in found] != [r.key for r in records]
        found = sorted(found, key=lambda r: int(r.key.rpartition("-")[2]))
    same(found, records)


def test_plain_ids_are_codes(folder, records, tmp_path):
    export_packed([folder], tmp_path / "out")
    vocabulary = Vocabulary.load(tmp_path / "out")
    assert vocabulary.fingerprint == "f" * 64
    for found, record in zip(IndexedDataset(tmp_path / "out/tokens"), records, strict=True):
        begin, *units, end = found.tolist()
        assert units == record.tokens["primary"].units.tolist()
        assert (begin, end) == (vocabulary.special("begin_speech"), vocabulary.special("end_speech")) == (100, 101)


def test_split_by_speaker_keeps_speakers_apart(tmp_path, same):
    records = [r for r in make_records(count=60) if r.speaker is not None]
    folder = write_folder(tmp_path / "tokens", records)
    export_packed([folder], tmp_path / "out", split_by="speaker", validation=0.5)
    _, found = read_packed(tmp_path / "out")
    found = list(found)
    train = len(IndexedDataset(tmp_path / "out/train"))
    assert 0 < train < len(records)
    assert not {r.speaker for r in found[:train]} & {r.speaker for r in found[train:]}
    same(sorted(found, key=lambda r: r.key), sorted(records, key=lambda r: r.key))


def test_split_by_file_needs_no_speaker(folder, records, tmp_path):
    export_packed([folder], tmp_path / "out", split_by="file", validation=0.3)
    expected = sum(split_of(r.key, 0.3) == "validation" for r in records)
    assert 0 < expected == len(IndexedDataset(tmp_path / "out/validation"))
    with pytest.raises(ExportError, match="speaker is not known"):
        export_packed([folder], tmp_path / "speaker", split_by="speaker")


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.floats(0, 1), st.integers(0, 9))
def test_a_split_depends_on_the_name_alone(names, share, seed):
    alone = [split_of(name, share, seed) for name in names]
    assert [split_of(name, share, seed) for name in reversed(names)] == alone[::-1]
    # A larger share only moves names from train to validation.
    larger = [split_of(name, min(1.0, share + 0.1), seed) for name in names]
    assert all(b == "validation" for a, b in zip(alone, larger, strict=True) if a == "validation")


def test_split_share():
    names = [f"speaker-{n}" for n in range(5000)]
    share = sum(split_of(name, 0.1) == "validation" for name in names) / len(names)
    # Five standard deviations of a binomial share.
    assert abs(share - 0.1) < 5 * (0.1 * 0.9 / 5000) ** 0.5


@pytest.mark.parametrize("shuffle", [None, 0])
def test_windows(shuffle, folder, records, tmp_path):
    out = tmp_path / "out"
    export_packed([folder], out, window=17, shuffle=shuffle)
    windows = Windows(out / "tokens")
    documents = sorted(record.tokens["primary"].units.tolist() for record in records)
    ids = np.concatenate([windows[i]["input_ids"] for i in range(len(windows))])
    positions = np.concatenate([windows[i]["position_ids"] for i in range(len(windows))])
    total = sum(len(units) + 2 for units in documents)
    assert len(windows) == -(-total // 17)
    assert {item["input_ids"].shape for item in (windows[i] for i in range(len(windows)))} == {(17,)}
    # Every document lies there whole, and in no other place.
    found = [part.tolist() for part in np.split(ids[:total], np.flatnonzero(ids[:total] == 100)[1:])]
    assert sorted(part[1:-1] for part in found) == documents
    assert {part[-1] for part in found} == {101}
    starts = (ids == 100) | (np.arange(ids.size) % 17 == 0)
    starts[total : total + 1] = True
    np.testing.assert_array_equal(positions == 0, starts[: ids.size])
    for i in range(len(windows)):
        item = windows[i]
        counted = item["labels"] != -100
        np.testing.assert_array_equal(item["labels"][counted], item["input_ids"][counted])
        assert not counted[item["position_ids"] == 0].any()
    last = windows[len(windows) - 1]["labels"]
    assert (last[total % 17 or 17 :] == -100).all()
    with pytest.raises(ExportError, match="not a packed export of whole utterances"):
        read_packed(out)


def test_same_bytes_for_the_same_seed(folder, tmp_path):
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        export_packed([folder], tmp_path / name, window=32, shuffle=seed)
    one, two, other = ((tmp_path / name / "tokens.bin").read_bytes() for name in ("one", "two", "other"))
    assert one == two != other


def test_bpe_shortens_and_comes_back(folder, records, tmp_path, same):
    units = [r.tokens["primary"].units for r in records]
    bpe = UnitBpe.train([*units, *units], 100, 130, fingerprint="f" * 64, dedup=True)
    export_packed([folder], tmp_path / "out", bpe=bpe)
    same(list(read_packed(tmp_path / "out")[1]), records)
    assert IndexedDataset(tmp_path / "out/tokens").lengths.sum() < sum(u.size + 2 for u in units)
    other = UnitBpe.train([*units, *units], 100, 130, fingerprint="e" * 64, dedup=True)
    with pytest.raises(ExportError, match="another tokenizer"):
        export_packed([folder], tmp_path / "mixed", bpe=other)
    with pytest.raises(ExportError, match="form units"):
        export_packed([folder], tmp_path / "mixed", bpe=bpe, form="frames")
    # Another BPE of the same size gives other ids.
    twin = UnitBpe.train([u[::-1] for u in [*units, *units]], 100, 130, fingerprint="f" * 64, dedup=True)
    with pytest.raises(ExportError, match="another tokenizer"):
        export_packed([folder], tmp_path / "mixed", bpe=twin, vocabulary=Vocabulary.load(tmp_path / "out"))
    with pytest.raises(ExportError, match="other options"):
        export_packed([folder], tmp_path / "out", bpe=twin)


def test_bad_input_leaves_nothing(folder, tmp_path):
    vocabulary = Vocabulary("random", "f" * 64, {"primary": 100}, first_id=70_000)
    cases = {
        "does not fit in uint16": {"dtype": "uint16", "vocabulary": vocabulary},
        "another tokenizer": {"vocabulary": Vocabulary("other", "e" * 64, {"primary": 100})},
        "no 100 tokens of 'primary'": {"vocabulary": Vocabulary("random", "f" * 64, {"primary": 50})},
        "at least 2 ids": {"window": 1},
        "share must be in": {"split_by": "file", "validation": 1.5},
        "no codebook": {"codebook": "nope"},
    }
    for message, options in cases.items():
        with pytest.raises(ExportError, match=message):
            export_packed([folder], tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
    with pytest.raises(ExportError, match="no duration tokens"):
        export_packed([folder], tmp_path / "out", form="durations")
    assert not (tmp_path / "out").exists()


def test_again_is_already_there(folder, tmp_path):
    first = export_packed([folder], tmp_path / "out", shuffle=1)
    again = export_packed([folder], tmp_path / "out", shuffle=1)
    assert (first.already, again.already) == (False, True)
    assert (first.utterances, first.tokens) == (again.utterances, again.tokens)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in first.files} | {"spintok.json"}
    with pytest.raises(ExportError, match="other options"):
        export_packed([folder], tmp_path / "out", shuffle=2)
    export_packed([folder], tmp_path / "out", shuffle=2, overwrite=True)
    assert read_sidecar(tmp_path / "out")["options"]["shuffle"] == 2
