"""Tokenizers in half precision: close to float32, the same in any company, and never taken for exact."""

import json

import pytest
import torch
from command_line import run
from forks import fork_commands
from small_models import TINY, save_tiny, tiny_encoder

import spintok
from spintok.corpus.tokens import Options, encode_corpus
from spintok.corpus.verify import compare_codes
from spintok.data.manifest import scan
from spintok.featurizer import Featurizer
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.reduced import reduced
from spintok.reduced import ReducedTokenizer, changed_codes, in_precision
from spintok.tokenizer import Tokenizer

HALVES = ["bfloat16", "float16"]


@pytest.fixture(scope="module")
def exact(speech) -> Tokenizer:
    """Codewords between neighbouring frames of the sample speech, so that many codes are nearly tied."""
    encoder = tiny_encoder()
    featurizer = Featurizer(encoder)
    recordings = [featurizer.record(path) for path in sorted(speech.glob("*.flac"))]
    frames = torch.cat([part for batch in featurizer.iter_features(recordings) for part in batch.features])
    book = Codebook(CodebookConfig("primary", 400, TINY.width, TINY.width, "l2", projection=False))
    book.codewords.data.copy_((frames[:800:2] + frames[1:800:2]) / 2)
    return Tokenizer(encoder, [book], layer=3, name="tiny")


@pytest.mark.parametrize("precision", HALVES)
def test_features_are_close_and_codes_the_same_in_any_company(exact: Tokenizer, speech, precision: str) -> None:
    other = ReducedTokenizer(exact, precision)
    recordings = [exact.record(path) for path in sorted(speech.glob("*.flac"))]
    (before,), (after,) = (next(one.iter_features(recordings[:1])).layers[0] for one in (exact, other))
    error = (after - before).norm() / before.norm()
    # Rounding to 8 or 11 bits, a few times over.
    assert 1e-5 < error < (0.03 if precision == "bfloat16" else 0.004)
    together = other.encode_recordings(recordings)
    for i, recording in reversed(list(enumerate(recordings))):
        (alone,) = other.encode_recordings([recording])
        assert (alone["primary"].codes == together[i]["primary"].codes).all()


def test_only_products_of_the_transformer_are_rounded(exact: Tokenizer) -> None:
    before, after = exact.encoder.state_dict(), reduced(exact.encoder, "float16").state_dict()
    assert list(before) == list(after)
    halves = {name for name in after if after[name].dtype is torch.float16}
    assert halves == {
        f"layers.{i}.{name}.weight"
        for i in range(3)
        for name in ("attention.qkv", "attention.out", "expand", "contract")
    }
    assert all(after[name].data_ptr() == before[name].data_ptr() for name in before if name not in halves)


def test_fingerprints_differ(exact: Tokenizer) -> None:
    found = {exact.fingerprint, *(ReducedTokenizer(exact, precision).fingerprint for precision in HALVES)}
    assert len(found) == 3
    assert in_precision(exact, "float32") is exact
    other = in_precision(exact, "bfloat16")
    assert other.at(None) is other


def test_changed_codes_are_counted(exact: Tokenizer, speech, tmp_path) -> None:
    other = ReducedTokenizer(exact, "bfloat16")
    damaged = tmp_path / "damaged.wav"
    damaged.write_bytes(b"no audio")
    paths = [*sorted(speech.glob("*.flac")), damaged]
    change = changed_codes(exact, other, paths)
    pairs = [(exact.encode(path).codes, other.encode(path).codes) for path in paths[:-1]]
    assert change == (len(pairs), sum(len(a) for a, _ in pairs), sum(int((a != b).sum()) for a, b in pairs))
    assert 0 < change.changed < change.codes
    share = f"({100 * change.changed / change.codes:.2f} %)"
    assert str(change).endswith(f"codes of {change.files} of these files differ from float32 {share}")


def test_what_is_not_possible_is_said(exact: Tokenizer, tmp_path) -> None:
    other = ReducedTokenizer(exact, "float16")
    for call, message in (
        (lambda: other.save(tmp_path), "holds no precision"),
        (lambda: other.at(0.32), "streams are computed in float32"),
        (lambda: other.stream(), "streams are computed in float32"),
        (lambda: ReducedTokenizer(exact.at(0.32), "float16"), "streams are computed in float32"),
        (lambda: ReducedTokenizer(exact, "float32"), "use that"),
        (lambda: in_precision(exact, "int4"), "not one of float32, bfloat16, float16"),
        (lambda: in_precision(spintok.load("mfcc-kmeans-100"), "float16"), "no transformer"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    large = tiny_encoder()
    large.layers[0].expand.weight.data[0, 0] = 1e5
    with pytest.raises(ValueError, match="too large for float16: take bfloat16"):
        reduced(large, "float16")
    reduced(large, "bfloat16")


def test_folders_carry_the_precision(capsys, speech, tmp_path, monkeypatch) -> None:
    tokenizer = save_tiny(tmp_path / "tokenizer", size=500)
    arguments = ("encode", speech, tmp_path / "out", "-t", tokenizer)
    code, _, errors = run(capsys, *arguments, "--precision", "bfloat16")
    assert code == 0
    assert "codes of 6 of these files differ from float32 (" in errors
    description = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    loaded = in_precision(spintok.load(tokenizer), "bfloat16")
    assert (description["precision"], description["fingerprint"]) == ("bfloat16", loaded.fingerprint)
    for again in ((), ("--precision", "float16")):
        code, _, errors = run(capsys, *arguments, "-q", *again)
        assert code != 0
        assert "another tokenizer, latency or precision" in errors
    fork_commands(monkeypatch, tmp_path)
    (row,) = compare_codes(loaded, str(tokenizer), tmp_path / "out", sample=2, ways=["by two processes"])
    assert row.codes > 0
    assert row.differ == 0
    code, out, _ = run(capsys, "verify", tmp_path / "out", "-t", tokenizer, "--sample", "0")
    assert code == 0
    assert "complete" in out
    code, _, errors = run(capsys, "encode", speech, "-t", tokenizer, "--features", "2", "--precision", "float16")
    assert code != 0
    assert "--precision is for tokens" in errors


def test_verify_takes_the_precision_of_the_folder(exact: Tokenizer, speech, tmp_path) -> None:
    encode_corpus(ReducedTokenizer(exact, "bfloat16"), scan(speech), tmp_path / "out", Options())
    ways = ["alone", "together, in another order"]
    of_its_own = compare_codes(ReducedTokenizer(exact, "bfloat16"), "unused", tmp_path / "out", ways=ways)
    assert [row.differ for row in of_its_own] == [0, 0]
