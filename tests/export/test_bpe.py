"""BPE over units: exact, nested, and what its report says."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.corpus.token_formats import Record
from spintok.export.bpe import UnitBpe, export_bpe
from spintok.export.errors import ExportError
from spintok.tokens import Tokens
from tests.export.token_folders import write_folder

SIZE = 50


def corpus(seed=0, count=60):
    """Units with words: a few fixed stretches in random order, so that merges have something to find."""
    rng = np.random.default_rng(seed)
    words = [rng.integers(SIZE, size=rng.integers(2, 6)) for _ in range(20)]
    return [np.concatenate([words[w] for w in rng.integers(20, size=12)]).astype(np.int32) for _ in range(count)]


@pytest.fixture(scope="module")
def bpe():
    return UnitBpe.train(corpus(), SIZE, 100, fingerprint="f", dedup=True)


@settings(max_examples=100, deadline=None)
@given(units=st.lists(st.integers(0, SIZE - 1)))
def test_decode_is_exact(bpe, units):
    array = np.array(units, dtype=np.int32)
    ids = bpe.encode(array)
    np.testing.assert_array_equal(bpe.decode(ids), array)
    assert ids.size <= array.size


def test_corpus_is_shortened_and_exact(bpe):
    units = corpus()
    encoded = bpe.encode_batch(units)
    assert sum(map(len, encoded)) < 0.6 * sum(map(len, units))
    for ids, part in zip(encoded, units, strict=True):
        np.testing.assert_array_equal(bpe.decode(ids), part)


def test_codes_keep_their_ids(bpe):
    for code in range(SIZE):
        assert bpe.decode(np.array([code])).tolist() == [code]
    assert bpe.encode(np.array([SIZE - 1], dtype=np.int32)).tolist() == [SIZE - 1]


def test_smaller_is_what_training_smaller_gives(bpe):
    trained = UnitBpe.train(corpus(), SIZE, 70, fingerprint="f", dedup=True)
    for one, other in zip(trained.encode_batch(corpus(1)), bpe.smaller(70).encode_batch(corpus(1)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_large_codebooks_use_all_private_areas():
    bpe = UnitBpe.train(
        [np.array([7000, 70000, 7000, 70000], dtype=np.int32)], 80_000, 80_001, fingerprint="f", dedup=True
    )
    assert bpe.encode(np.array([7000, 70000, 5], dtype=np.int32)).tolist() == [80_000, 5]


def test_tokenizers_reads_what_is_saved(bpe, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    bpe.save(tmp_path)
    units = corpus(1)[0]
    text = "".join(chr(0xE000 + code) for code in units.tolist())
    assert (
        tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == bpe.encode(units).tolist()
    )
    again = UnitBpe.load(tmp_path)
    assert (again.size, again.codebook_size, again.fingerprint, again.dedup) == (100, SIZE, "f", True)
    assert again.identity == bpe.identity
    np.testing.assert_array_equal(again.decode(again.encode(units)), units)
    with pytest.raises(ExportError, match="missing"):
        UnitBpe.load(tmp_path / "nowhere")


def test_stock_decode_joins_pieces_without_spaces(bpe, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    bpe.save(tmp_path)
    units = corpus(1)[0]
    text = "".join(chr(0xE000 + code) for code in units.tolist())
    stock = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert stock.decode(stock.encode(text).ids) == text
    # The decoder is no part of the identity, which vocabularies of earlier exports hold.
    assert bpe.identity == UnitBpe.load(tmp_path).identity
    assert json.loads(bpe.model.to_str())["decoder"] is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bpe.spintok.json", "[" * 100_000 + "]" * 100_000),
        ("bpe.spintok.json", '{"codebook_size": 1000000000000, "fingerprint": "f", "dedup": true}'),
        ("bpe.spintok.json", '{"codebook_size": "50", "fingerprint": "f", "dedup": true}'),
        ("bpe.spintok.json", "[]"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": {"vocab": {}}}'),
        ("tokenizer.json", '{"model": {"vocab": 7}}'),
    ],
)
def test_damaged_folders_are_one_line(bpe, tmp_path, name, content):
    bpe.save(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ExportError, match="not a BPE of spintok") as caught:
        UnitBpe.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_units_of_another_codebook_are_refused(bpe):
    with pytest.raises(ExportError, match=r"in \[0, 50\)"):
        bpe.encode(np.array([SIZE], dtype=np.int32))
    with pytest.raises(ExportError, match=r"in \[0, 100\)"):
        bpe.decode(np.array([100]))


@pytest.mark.parametrize("dedup", [True, False])
def test_report(dedup, tmp_path):
    rng = np.random.default_rng(0)
    tokens = [Tokens(np.repeat(part, rng.integers(1, 3, size=part.size)), SIZE, 10_000) for part in corpus()]
    records = [Record(f"u{i}", f"u{i}.wav", {"primary": t}) for i, t in enumerate(tokens)]
    folder = write_folder(tmp_path / "tokens", records)
    report = export_bpe([folder], tmp_path / "out", [80, 100], dedup=dedup)
    assert export_bpe([folder], tmp_path / "out", [80, 100], dedup=dedup) == report
    seconds = sum(t.num_frames for t in tokens) / 50
    for row in report:
        size = row["vocab_size"]
        parts = [t.units if dedup else t.codes for t in tokens]
        if size > SIZE:
            parts = UnitBpe.load(tmp_path / f"out/bpe-{size}").encode_batch(parts)
        flat = np.concatenate(parts)
        share = np.unique(flat, return_counts=True)[1] / flat.size
        assert row["tokens"] == flat.size
        assert row["token_rate"] == pytest.approx(flat.size / seconds)
        assert row["token_bitrate"] == pytest.approx(math.log2(size) * flat.size / seconds)
        assert row["entropy_bitrate"] == pytest.approx(-(share * np.log2(share)).sum() * flat.size / seconds)
        assert row["compression"] == pytest.approx(report[0]["tokens"] / flat.size)
    assert report[0]["compression"] == 1 < report[1]["compression"] < report[2]["compression"]


def test_bad_sizes(tmp_path):
    records = [Record("u", "u.wav", {"primary": Tokens(np.array([1, 2, 3]), SIZE, 2000)})]
    folder = write_folder(tmp_path / "tokens", records)
    cases = {"no merges": [50], "give at least one size": [], "pairs for a vocabulary of 52 only": [1000]}
    for message, sizes in cases.items():
        with pytest.raises(ExportError, match=message):
            export_bpe([folder], tmp_path / "out", sizes)
