"""A run that ends inside a long recording goes on inside it, and leaves the bytes of an undisturbed run."""

import os

import numpy as np
import pytest
import soundfile

from spintok.chunking import Window
from spintok.corpus import partial
from spintok.corpus.partial import Partial, partial_path
from spintok.data.manifest import scan
from spintok.tokenizer import Tokenizer
from tests.corpus.jobs import FORMATS, contents, encode
from tests.streaming.streamers import tokenizer as small

# The second is long: the windows below keep 2 s. So it has an empty part, after listening, and five more.
LENGTHS = (0.9, 9.0, 1.3)
PARTS = 6


@pytest.fixture(autouse=True)
def always(monkeypatch) -> None:
    """Keep every part, however little time has passed."""
    monkeypatch.setattr(partial, "SHORTEST", 0.0)
    monkeypatch.setattr(partial, "COST", 1e9)


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    return make_audio(tmp_path_factory.mktemp("audio"), LENGTHS)


def make_audio(folder, lengths):
    rng = np.random.default_rng(0)
    for i, seconds in enumerate(lengths):
        # At another rate, so that the resampler has to go on too.
        soundfile.write(folder / f"{i}.wav", rng.standard_normal(int(seconds * 8000)) * 0.1, 8000)
    return folder


def tokenizer(kind: str, latency: float | None = None) -> Tokenizer:
    whole = small(kind)
    window = Window(keep=100, context=20)
    return Tokenizer(whole.encoder, whole.codebooks.values(), name=kind, window=window, latency=latency)


def stopped(monkeypatch, audio, out, parts, *arguments, made=None, **options):
    """Encode until ``parts`` parts of a long recording were kept."""
    keep, kept = Partial.keep, []

    def stopping(self, *where, **what):
        keep(self, *where, **what)
        kept.append(1)
        if len(kept) == parts:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Partial, "keep", stopping)
        encode(made or tokenizer("windows"), scan(audio), out, *arguments, **options)


def resumed(monkeypatch, audio, out, *arguments, made=None, **options):
    """The number of parts that the resume takes."""
    keep, kept = Partial.keep, []

    def counting(self, *where, **what):
        kept.append(1)
        keep(self, *where, **what)

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "keep", counting)
        summary = encode(made or tokenizer("windows"), scan(audio), out, *arguments, **options)
    assert not summary.failures
    return len(kept)


@pytest.mark.parametrize("format", FORMATS)
def test_a_resume_goes_on_inside_the_recording(monkeypatch, audio, tmp_path, format) -> None:
    encode(tokenizer("windows"), scan(audio), tmp_path / "clean", format, shard_size=3)
    out = tmp_path / "out"
    stopped(monkeypatch, audio, out, 3, format, shard_size=3)
    stopped(monkeypatch, audio, out, 2, format, shard_size=3)
    assert resumed(monkeypatch, audio, out, format, shard_size=3) == PARTS - 5
    assert contents(out) == contents(tmp_path / "clean")


def test_after_more_than_a_block_of_the_file(monkeypatch, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    audio, out = make_audio(tmp_path / "in", (32.0,)), tmp_path / "out"
    encode(tokenizer("windows"), scan(audio), tmp_path / "clean")
    stopped(monkeypatch, audio, out, 16)
    assert resumed(monkeypatch, audio, out) == 1
    assert contents(out) == contents(tmp_path / "clean")


@pytest.mark.parametrize("kind", ["streaming", "windows"])
def test_with_a_latency_too(monkeypatch, audio, tmp_path, kind) -> None:
    options = {"made": tokenizer(kind, 0.32), "codebooks": ("primary", "coarse"), "shard_size": 3}
    parts = resumed(monkeypatch, audio, tmp_path / "clean", **options)
    out = tmp_path / "out"
    stopped(monkeypatch, audio, out, 4, **options)
    stopped(monkeypatch, audio, out, 3, **options)
    assert 9 < parts == 7 + resumed(monkeypatch, audio, out, **options)
    assert contents(out) == contents(tmp_path / "clean")


def test_what_came_before_it_is_in_the_journal(monkeypatch, audio, tmp_path) -> None:
    stopped(monkeypatch, audio, tmp_path / "out", 1, shard_size=3)
    summary = encode(tokenizer("windows"), scan(audio), tmp_path / "out", shard_size=3)
    assert (summary.resumed, summary.encoded) == (1, 2)


def test_only_the_new_seconds_count(monkeypatch, audio, tmp_path) -> None:
    made = tokenizer("streaming", 0.32)
    stopped(monkeypatch, audio, tmp_path / "out", 4, made=made, shard_size=3)
    summary = encode(made, scan(audio), tmp_path / "out", shard_size=3)
    assert 5 + LENGTHS[2] <= summary.audio_seconds < 5.1 + LENGTHS[2]


@pytest.mark.parametrize("where", ["codes", "spans"])
def test_damage_means_beginning_again(monkeypatch, audio, tmp_path, where) -> None:
    format = "jsonl" if where == "codes" else "safetensors"
    out = tmp_path / "out"
    encode(tokenizer("windows"), scan(audio), tmp_path / "clean", format, shard_size=3)
    stopped(monkeypatch, audio, out, 4, format, shard_size=3)
    shard = next(path for path in out.iterdir() if path.name.endswith(".partial"))
    hurt = shard if where == "codes" else shard.with_suffix(".data")
    data = bytearray(hurt.read_bytes())
    data[-5] ^= 1
    hurt.write_bytes(data)
    assert resumed(monkeypatch, audio, out, format, shard_size=3) == PARTS
    assert contents(out) == contents(tmp_path / "clean")


def test_every_torn_file_means_beginning_again(tmp_path) -> None:
    shard = tmp_path / "tokens-00000.jsonl"
    Partial(shard, {"name": "a"}).keep(5, lambda: b"state", values=lambda: [1])
    whole = partial_path(shard).read_bytes()
    (saved,) = Partial(shard, {"name": "a"}).saved
    assert (saved.samples, saved.state, saved.values) == (5, b"state", [1])
    assert Partial(shard, {"name": "b"}).saved == []
    assert Partial(shard, None).saved == []
    for end in range(len(whole)):
        partial_path(shard).write_bytes(whole[:end])
        assert Partial(shard, {"name": "a"}).saved == []


def test_a_replaced_file_and_another_tokenizer_begin_again(monkeypatch, tmp_path, audio) -> None:
    own = tmp_path / "in"
    own.mkdir()
    for path in audio.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "out"
    stopped(monkeypatch, own, out, 4, shard_size=3)
    os.utime(own / "1.wav", ns=(1, 1))
    assert resumed(monkeypatch, own, out, shard_size=3) == PARTS
    again = tmp_path / "again"
    stopped(monkeypatch, own, again, 4, shard_size=3)
    other = tokenizer("mfcc")
    encode(other, scan(own), tmp_path / "clean", shard_size=3)
    # The journal and the partial file of the first tokenizer are there, and its description is not.
    (again / "tokenizer.json").unlink()
    assert resumed(monkeypatch, own, again, made=other, shard_size=3, overwrite=True) == PARTS
    assert contents(again) == contents(tmp_path / "clean")


def test_a_worker_goes_on_where_another_died(monkeypatch, audio, tmp_path) -> None:
    encode(tokenizer("windows"), scan(audio), tmp_path / "clean", shard_size=3)
    out = tmp_path / "out"
    stopped(monkeypatch, audio, out, 4, shard_size=3, shared=True, lease_seconds=0.5)
    assert resumed(monkeypatch, audio, out, shard_size=3, shared=True, lease_seconds=0.5) == PARTS - 4
    assert (out / "tokens-00000.jsonl").read_bytes() == (tmp_path / "clean/tokens-00000.jsonl").read_bytes()


def test_features_at_a_latency_are_refused(audio, tmp_path) -> None:
    with pytest.raises(ValueError, match="features are those of whole recordings"):
        encode(tokenizer("windows", 0.16), scan(audio), tmp_path / "out", "safetensors")
