import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open

import spintok
import spintok.cli
from spintok.chunking import Window
from spintok.corpus.feature_formats import DTYPES
from spintok.corpus.features import FeatureOptions, encode_features, read_features
from spintok.corpus.shard_record import record_path
from spintok.corpus.token_formats import ShardError
from spintok.corpus.tokens import CorpusError, Options, encode_corpus, read_corpus
from spintok.data.audio import read
from spintok.data.manifest import Utterance, scan
from spintok.frames import num_frames
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.config import EncoderConfig
from spintok.models.encoder import random_encoder
from spintok.models.importers import load_encoder
from spintok.tokenizer import Tokenizer

TINY = EncoderConfig(
    conv_channels=(16,) * 7, width=24, heads=2, feed_forward=48, layers=3, positional_kernel=16, positional_groups=4
)


def tiny(layers: int = 3, seed: int = 0, window: Window | None = None) -> Tokenizer:
    """A tokenizer that holds the lowest layers of a random encoder; its codebook is of its own."""
    encoder = random_encoder(TINY, torch.Generator().manual_seed(seed)).truncated(layers)
    book = Codebook(CodebookConfig("primary", 5, 24, 8, "dot", projection=True))
    return Tokenizer(encoder, [book], layer=layers, name="tiny", window=window)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny()


@pytest.fixture
def audio(tmp_path):
    """Seven recordings, one of them without a frame, with speakers in their manifest, not in the order of keys."""
    rng = np.random.default_rng(0)
    lines = []
    for i in (4, 2, 0, 6, 5, 1, 3):
        samples = rng.standard_normal(100 if i == 5 else int(rng.integers(400, 16_000))) * 0.1
        soundfile.write(tmp_path / f"{i}.wav", samples, 16_000)
        speaker = {"speaker": f"s{i % 2}"} if i else {}
        lines.append(json.dumps({"path": f"{i}.wav", "id": f"ü/{i}", **speaker}))
    (tmp_path / "list.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "list.jsonl"


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def encode(tokenizer, audio, folder, **options):
    return encode_features(tokenizer, scan(audio), folder, FeatureOptions(**{"layer": 2, "shard_size": 3, **options}))


def alone(tokenizer, path, layer):
    """The encoder's own answer for one whole file, (T, D)."""
    with torch.inference_mode():
        return tokenizer.encoder(read(path)[None], layer=layer)[0][0]


@pytest.mark.parametrize("format", ["safetensors", "parquet"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_read_is_the_encoders_layer(tokenizer, audio, tmp_path, format, dtype) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    summary = encode(tokenizer, audio, tmp_path / "out", format=format, dtype=dtype)
    assert summary.audit == "7 files in = 7 files out + 0 failed"
    assert len(list((tmp_path / "out").glob(f"features-*.{format}"))) == 3
    description, records = read_features(tmp_path / "out")
    records = list(records)
    assert (description["layer"], description["width"], description["dtype"]) == (2, 24, dtype)
    listed = scan(audio)
    assert [r.key for r in records] == [u.key for u in listed]
    for record, utterance in zip(records, listed, strict=True):
        assert (record.file_name, record.speaker) == (str(utterance.path), utterance.speaker)
        assert record.num_samples == soundfile.info(utterance.path).frames
        assert record.features.shape == (num_frames(record.num_samples), 24)
        assert torch.equal(record.features, alone(tokenizer, utterance.path, 2).to(DTYPES[dtype]))


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_any_layer(tokenizer, audio, tmp_path, layer) -> None:
    encode(tokenizer, audio, tmp_path / "out", layer=layer, dtype="float32")
    for record in read_features(tmp_path / "out")[1]:
        assert torch.equal(record.features, alone(tokenizer, record.file_name, layer))


def test_others_read_the_shards(tokenizer, audio, tmp_path) -> None:
    encode(tokenizer, audio, tmp_path / "s")
    keys = [u.key for u in scan(audio)]
    with safe_open(tmp_path / "s/features-00000.safetensors", "np") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(keys[:3])
        found = {key: file.get_tensor(key) for key in keys[:3]}
    assert [row["key"] for row in json.loads(metadata["utterances"])] == keys[:3]
    raw = (tmp_path / "s/features-00000.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert sorted(keys[:3], key=lambda key: header[key]["data_offsets"]) == keys[:3]
    assert metadata["encoder"] == tokenizer.encoder_fingerprint(2)
    assert (metadata["layer"], metadata["dtype"]) == ("2", "float16")
    parquet = pytest.importorskip("pyarrow.parquet")
    encode(tokenizer, audio, tmp_path / "p", format="parquet")
    rows = parquet.read_table(tmp_path / "p/features-00000.parquet").to_pylist()
    assert list(rows[0]) == ["key", "file_name", "speaker", "num_samples", "num_frames", "width", "features"]
    for row in rows:
        values = np.frombuffer(row["features"], "<f2").reshape(row["num_frames"], row["width"])
        assert np.array_equal(values, found[row["key"]])


def test_mfcc_have_layer_0(speech, tmp_path) -> None:
    mfcc = spintok.load("mfcc-kmeans-100")
    encode_features(mfcc, scan(speech), tmp_path / "out", FeatureOptions(layer=0, dtype="float32"))
    records = list(read_features(tmp_path / "out")[1])
    assert len(records) == 6
    for record in records:
        waveform = read(record.file_name)[None]
        assert torch.equal(record.features, mfcc.encoder(waveform, torch.tensor([waveform.shape[1]]))[0][0])
    with pytest.raises(ValueError, match="MFCC have no layers"):
        encode_features(mfcc, scan(speech), tmp_path / "no", FeatureOptions(layer=1))
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("format", ["safetensors", "parquet"])
def test_a_resumed_run_has_the_bytes_of_one_run(tokenizer, audio, tmp_path, format) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    encode(tokenizer, audio, tmp_path / "clean", format=format)
    good, times = (tmp_path / "2.wav").read_bytes(), (tmp_path / "2.wav").stat()
    (tmp_path / "2.wav").write_text("not audio")
    out = tmp_path / "out"
    summary = encode(tokenizer, audio, out, format=format, workers=1)
    assert summary.audit == "7 files in = 6 files out + 1 failed"
    (failed,) = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert failed["key"] == "ü/2"
    # As a kill would leave it: a shard missing, another half written.
    (out / f"features-00001.{format}").unlink()
    (out / f".features-00001.{format}.99.tmp").write_bytes(b"half")
    (tmp_path / "2.wav").write_bytes(good)
    os.utime(tmp_path / "2.wav", ns=(times.st_atime_ns, times.st_mtime_ns))
    summary = encode(tokenizer, audio, out, format=format)
    assert (summary.encoded, summary.resumed, summary.failures) == (4, 3, [])
    assert contents(out) == contents(tmp_path / "clean")
    assert encode(tokenizer, audio, out, format=format).resumed == 7
    assert contents(out) == contents(tmp_path / "clean")


def test_ranks_write_the_same_shards(tokenizer, audio, tmp_path) -> None:
    encode(tokenizer, audio, tmp_path / "one")
    for rank in (1, 0):
        encode(tokenizer, audio, tmp_path / "two", rank=rank, ranks=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_long_recordings_come_window_by_window(audio, tmp_path) -> None:
    """A layer that sees one frame at a time is the same in windows; none is lost or doubled at their borders."""
    parts = tiny(window=Window(20, 30))
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "long.wav", rng.standard_normal(160_123) * 0.1, 16_000)
    utterances = [Utterance("long", tmp_path / "long.wav"), *scan(audio)]
    encode_features(parts, utterances, tmp_path / "out", FeatureOptions(layer=0, dtype="float32"))
    record = next(read_features(tmp_path / "out")[1])
    assert record.num_samples == 160_123
    whole = alone(parts, tmp_path / "long.wav", 0)
    assert record.features.shape == whole.shape
    # The positional convolution reaches 8 frames, less than the context; statistics are the whole file's.
    assert torch.allclose(record.features, whole, atol=1e-4)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_memory_does_not_grow_with_a_recording(tmp_path) -> None:
    """20 minutes are 58 MB of samples and 46 MB of features more than 5, of which memory sees none."""
    config = EncoderConfig(**{**TINY.to_dict(), "conv_channels": (4,) * 7, "width": 256, "layers": 0})
    encoder = random_encoder(config, torch.Generator().manual_seed(0))
    Tokenizer(encoder, [Codebook(CodebookConfig("primary", 5, 256, 8, "dot", projection=True))], layer=0).save(
        tmp_path / "t"
    )
    noise = (np.random.default_rng(0).standard_normal(16_000 * 60) * 3000).astype(np.int16)
    for name, minutes in (("short", 5), ("long", 20)):
        with soundfile.SoundFile(tmp_path / f"{name}.wav", "w", 16_000, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(noise)
    script = (
        "import sys, torch\n"
        "torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "import spintok\n"
        "from spintok.corpus.features import FeatureOptions, encode_features\n"
        "from spintok.data.manifest import scan\n"
        "folder = Path(sys.argv[1])\n"
        "for name in ('short', 'long'):\n"
        "    options = FeatureOptions(layer=0, dtype='float32')\n"
        "    encode_features(spintok.load(folder / 't'), scan(folder / f'{name}.wav'), folder / name, options)\n"
        "    print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    short, long = map(int, done.stdout.split())
    # Holding either would take 46 MB or more; the allocator's pools differ by up to 31 from run to run.
    assert long - short < 42_000
    assert next(read_features(tmp_path / "long")[1]).features.shape == (num_frames(16_000 * 1200), 256)


def test_what_does_not_fit_is_never_mixed(tokenizer, audio, tmp_path) -> None:
    out = tmp_path / "out"
    encode(tokenizer, audio, out)
    before = contents(out)
    for change, message in (
        ({"layer": 1}, "another layer"),
        ({"dtype": "bfloat16"}, "another dtype"),
        ({"shard_size": 4}, "another size"),
    ):
        with pytest.raises(CorpusError, match=message):
            encode(tokenizer, audio, out, **change)
    with pytest.raises(CorpusError, match="another encoder"):
        encode(tiny(seed=1), audio, out)
    assert contents(out) == before
    # The same layers under other ones, and another codebook, give the same features.
    assert encode(tiny(layers=2), audio, out).resumed == 7
    assert encode(tokenizer, audio, out, layer=1, overwrite=True).encoded == 7


@pytest.mark.parametrize("overwrite", [False, True])
def test_tokens_and_features_never_share_a_folder(tokenizer, audio, tmp_path, overwrite) -> None:
    encode(tokenizer, audio, tmp_path / "f")
    encode_corpus(tokenizer, scan(audio), tmp_path / "t", Options())
    before = contents(tmp_path / "f"), contents(tmp_path / "t")
    with pytest.raises(CorpusError, match="holds tokens, which features cannot join"):
        encode(tokenizer, audio, tmp_path / "t", overwrite=overwrite)
    with pytest.raises(CorpusError, match="holds features, which tokens cannot join"):
        encode_corpus(tokenizer, scan(audio), tmp_path / "f", Options(overwrite=overwrite))
    assert (contents(tmp_path / "f"), contents(tmp_path / "t")) == before
    with pytest.raises(CorpusError, match=r"no features\.json"):
        read_features(tmp_path / "t")
    with pytest.raises(CorpusError, match=r"no tokenizer\.json"):
        read_corpus(tmp_path / "f")


@pytest.mark.parametrize("format", ["safetensors", "parquet"])
def test_damaged_shards_are_refused(tokenizer, audio, tmp_path, format) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / "out"
    encode(tokenizer, audio, out, format=format)
    shard = out / f"features-00001.{format}"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(CorpusError, match=r"features-00001.*delete this shard"):
        encode(tokenizer, audio, out, format=format)
    with pytest.raises(ShardError, match="features-00001"):
        list(read_features(out)[1])
    encode(tokenizer, audio, tmp_path / "other", format=format, layer=1)
    (tmp_path / "other" / shard.name).replace(shard)
    with pytest.raises(ShardError, match="its SHA-256 is not the recorded one"):
        list(read_features(out)[1])
    # Without a record, as earlier versions wrote them.
    record_path(shard).unlink()
    with pytest.raises(ShardError, match="its layer is '1'|its encoder is"):
        list(read_features(out)[1])


def test_a_long_file_with_a_damaged_end_is_a_failure(tokenizer, audio, tmp_path) -> None:
    """It opens well, and shows only while it is encoded that samples are missing."""
    small = tiny(window=Window(20, 5))
    rng = np.random.default_rng(2)
    soundfile.write(tmp_path / "0.wav", rng.standard_normal(480_000) * 0.1, 16_000, format="FLAC")
    whole = (tmp_path / "0.wav").read_bytes()
    (tmp_path / "0.wav").write_bytes(whole[: len(whole) * 9 // 10])
    summary = encode(small, audio, tmp_path / "out")
    assert summary.audit == "7 files in = 6 files out + 1 failed"
    assert summary.failures[0].key == "ü/0"
    assert encode_corpus(small, scan(audio), tmp_path / "t", Options()).failures == summary.failures
    for record in read_features(tmp_path / "out")[1]:
        assert record.features.shape[0] == num_frames(record.num_samples)


def test_features_beyond_float16_are_refused_not_stored_as_infinite(audio, tmp_path) -> None:
    loud = tiny(layers=0)
    with torch.no_grad():
        loud.encoder.norm.weight.mul_(1e5)
    summary = encode(loud, audio, tmp_path / "out", layer=0)
    # One recording has no frames.
    assert (summary.encoded, len(summary.failures)) == (1, 6)
    assert all("not finite in float16" in failure.error for failure in summary.failures)
    assert [len(record.features) for record in read_features(tmp_path / "out")[1]] == [0]
    encode(loud, audio, tmp_path / "bf", layer=0, dtype="bfloat16")
    assert max(r.features.abs().max() for r in read_features(tmp_path / "bf")[1] if len(r.features)) > 65504


def test_layers_above_are_refused(audio, tmp_path) -> None:
    for layer in (3, -1):
        with pytest.raises(ValueError, match=rf"layers 0 \.\.\. 2 of its encoder, got layer {layer};"):
            encode(tiny(layers=2), audio, tmp_path / "out", layer=layer)
    assert not (tmp_path / "out").exists()


def test_impossible_options_are_refused() -> None:
    for options, message in (({"dtype": "int8"}, "stored as"), ({"format": "km"}, "safetensors or parquet")):
        with pytest.raises(ValueError, match=message):
            FeatureOptions(layer=0, **options)


def test_a_key_that_safetensors_keeps_is_refused(tokenizer, audio, tmp_path) -> None:
    utterances = [Utterance("__metadata__", tmp_path / "1.wav")]
    (failure,) = encode_features(tokenizer, utterances, tmp_path / "out", FeatureOptions(layer=0)).failures
    assert "reserves the key __metadata__" in failure.error


def run(capsys, *arguments):
    """Exit code, standard output and standard error of the command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["spintok", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            spintok.cli.main()
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_the_command_line(capsys, speech, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "encode", speech, "--features", 0)
    assert (code, err) == (0, "")
    assert "features of layer 0 in float16" in out
    assert "6 files in = 6 files out + 0 failed" in out
    assert len(list(read_features(tmp_path / "speech-features")[1])) == 6
    tiny().save(tmp_path / "t")
    file, chosen = speech / "fred_yes.flac", ["--features", 1, "--features-dtype", "bfloat16", "--tokenizer", "t"]
    assert run(capsys, "encode", file, *chosen, "--shard-size", 5, "--quiet")[:2] == (0, "")
    description, records = read_features(tmp_path / "fred_yes-features")
    assert (description["layer"], description["dtype"], description["shard_size"]) == (1, "bfloat16", 5)
    assert torch.equal(next(records).features, alone(tiny(), file, 1).bfloat16())
    (tmp_path / "bad.wav").write_text("x")
    code, out, err = run(capsys, "encode", "bad.wav", "--features", 0)
    assert (code, "failed.jsonl" in err) == (1, True)
    pytest.importorskip("pyarrow")
    assert run(capsys, "encode", speech, "p", "--features", 0, "--format", "parquet")[0] == 0
    assert (tmp_path / "p/features-00000.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "7", "--tokenizer", "mfcc-kmeans-100"], "MFCC have no layers"),
        (["--features", "0", "--format", "km"], "--format km is for tokens"),
        (["--features", "0", "--codebook", "primary"], "--codebook is for tokens"),
        (["--features", "0", "--no-dedup"], "--dedup is for tokens"),
        (["--features", "0", "--batch-seconds", "9"], "--batch-seconds is for tokens"),
        (["--format", "safetensors"], "add --features"),
        (["--features-dtype", "float16"], "add --features"),
    ],
)
def test_a_users_error_is_one_line(capsys, speech, tmp_path, arguments, message) -> None:
    code, out, err = run(capsys, "encode", speech, tmp_path / "out", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_an_encoder_without_a_codebook(audio, tmp_path, capsys) -> None:
    """A Hugging Face folder: the features are those of its layer, and codes are refused."""
    pytest.importorskip("transformers")
    from reference_features import transformers_model

    transformers_model("hubert").save_pretrained(tmp_path / "hubert-tiny")
    capsys.readouterr()
    options = ["-t", tmp_path / "hubert-tiny", "--features", "2", "--features-dtype", "float32"]
    code, out, err = run(capsys, "encode", audio, tmp_path / "out", *options)
    assert (code, err) == (0, "")
    assert "hubert-tiny" in out
    encoder = load_encoder(tmp_path / "hubert-tiny")
    description, records = read_features(tmp_path / "out")
    assert description["tokenizer"] == "hubert-tiny"
    for record in records:
        with torch.inference_mode():
            expected = encoder(read(record.file_name)[None], layer=2)[0][0]
        assert torch.equal(record.features, expected)
    code, _, err = run(capsys, "encode", audio, tmp_path / "tokens", "-t", tmp_path / "hubert-tiny")
    assert code == 2
    assert "contains an encoder, not a tokenizer" in err
