import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_checkpoints import fairseq_features, spin_checkpoint, wavlm
from safetensors.torch import load_file

import spintok
from spintok.chunking import Window
from spintok.data.audio import AudioError, Recording
from spintok.frames import num_frames
from spintok.loading import find_device
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.config import EncoderConfig
from spintok.models.encoder import random_encoder
from spintok.models.mfcc import Mfcc
from spintok.serialization import TokenizerError
from spintok.tokenizer import Tokenizer

TINY = EncoderConfig(
    conv_channels=(32,) * 7, width=48, heads=4, feed_forward=96, layers=2, positional_kernel=16, positional_groups=4
)


def ssl_tokenizer(window: Window | None = None, **changes) -> Tokenizer:
    """A random encoder with a primary and an auxiliary codebook."""
    torch.manual_seed(0)
    encoder = random_encoder(EncoderConfig(**{**TINY.to_dict(), **changes}), torch.Generator().manual_seed(0))
    books = [
        Codebook(CodebookConfig("primary", 50, 48, 16, "dot", projection=True)),
        Codebook(CodebookConfig("auxiliary", 300, 48, 16, "dot", projection=True)),
    ]
    return Tokenizer(encoder, books, layer=2, name="tiny", window=window)


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    return ssl_tokenizer()


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(samples).astype(np.float32)) * 0.1


def test_the_default_tokenizer_encodes_a_file(speech) -> None:
    tokenizer = spintok.load()
    tokens = tokenizer.encode(speech / "eve_bus.flac")
    assert tokens.durations.sum() == tokens.num_frames == num_frames(soundfile.info(speech / "eve_bus.flac").frames)
    assert tokens.codebook_size == tokenizer.codebook_size == 100
    assert len(set(tokens.codes.tolist())) > 10


def test_loading_and_encoding_do_not_import_the_compiler_of_torch() -> None:
    """It takes seconds. A tensor operation on the meta device is enough to import it."""
    code = (
        "import sys, spintok, torch; spintok.load().encode(torch.zeros(8000), 16000); "
        "print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_paths_arrays_and_lists_give_the_same_tokens(tiny, speech) -> None:
    paths = sorted(speech.glob("*.flac"))
    alone = [tiny.encode(path) for path in paths]
    assert tiny.encode(paths) == alone
    assert tiny.encode(str(paths[0])) == alone[0]
    samples, rate = soundfile.read(paths[0], dtype="int16")
    assert tiny.encode(samples, rate) == alone[0]
    assert tiny.encode([torch.from_numpy(samples)], rate) == alone[:1]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 24_000), min_size=1, max_size=6),
    group_norm=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_tokens_do_not_depend_on_the_batch(lengths, group_norm, seed) -> None:
    """Padded batches, as on a GPU, give the same tokens, whatever else is in the batch and in any order."""
    tokenizer = ssl_tokenizer() if group_norm else ssl_tokenizer(conv_norm="layer", norm_position="pre")
    waveforms = [noise(n, seed + i) for i, n in enumerate(lengths)]
    alone = [tokenizer.encode(waveform, 16_000) for waveform in waveforms]
    assert [t.num_frames for t in alone] == [num_frames(n) for n in lengths]
    with torch.inference_mode():
        padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True, padding_value=0.5)
        features, counts = tokenizer.encoder(padded, torch.tensor(lengths), layer=tokenizer.layer)
        for row, count, expected in zip(features, counts.tolist(), alone, strict=True):
            assert tokenizer.codebooks["primary"].codes(row[:count]).tolist() == expected.codes.tolist()
    assert tokenizer.encode(waveforms[::-1], 16_000) == alone[::-1]


def test_groups_cover_all_recordings_and_respect_the_size(tiny, monkeypatch) -> None:
    monkeypatch.setattr(Tokenizer, "device", torch.device("cuda"))
    lengths = dict(enumerate([16_000 * n for n in (3, 50, 1, 2, 1, 9)]))
    groups = list(tiny._groups(lengths, batch_seconds=10))
    assert sorted(i for group in groups for i in group) == list(range(6))
    assert groups[0] == [1]
    assert all(max(lengths[i] for i in g) * len(g) <= 160_000 for g in groups[1:])


@pytest.fixture
def _two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_two_threads")
def test_recordings_are_encoded_in_threads_with_the_same_tokens_in_order(tiny, monkeypatch) -> None:
    waveforms = [noise(4000 + 700 * n, n) for n in range(9)]
    alone = [tiny.encode(waveform, 16_000) for waveform in waveforms]
    encode, seen = tiny._hidden_states, set()

    def watched(*arguments):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return encode(*arguments)

    monkeypatch.setattr(tiny, "_hidden_states", watched)
    assert tiny.encode(waveforms, 16_000) == alone
    assert 1 <= len(seen) <= 2
    assert {threads for _, threads in seen} == {1}
    assert threading.get_ident() not in {thread for thread, _ in seen}
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("_two_threads")
def test_an_error_in_a_thread_reaches_the_caller_and_the_threads_end(tiny, monkeypatch) -> None:
    def fail(waveforms, *arguments):
        raise ValueError("a damaged encoder")

    monkeypatch.setattr(tiny, "_hidden_states", fail)
    before = threading.active_count()
    with pytest.raises(ValueError, match="a damaged encoder"):
        tiny.encode([noise(4000)] * 12, 16_000)
    assert threading.active_count() == before
    assert torch.get_num_threads() == 2


def test_a_batch_that_does_not_fit_into_memory_is_halved(tiny, monkeypatch) -> None:
    waveforms = [noise(8000 * n, n) for n in (1, 2, 3, 4, 5)]
    recordings = [Recording(waveform, lambda: iter(())) for waveform in waveforms]
    expected = tiny.encode_recordings(recordings)
    monkeypatch.setattr(Tokenizer, "_groups", lambda self, lengths, batch_seconds: [list(lengths)])
    encode, tried = tiny._hidden_states, []

    def small_device(waveforms, *arguments):
        tried.append(len(waveforms))
        if len(waveforms) > most:
            raise torch.OutOfMemoryError("the device is full")
        return encode(waveforms, *arguments)

    monkeypatch.setattr(tiny, "_hidden_states", small_device)
    most = 2
    assert tiny.encode_recordings(recordings) == expected
    assert tried == [5, 2, 3, 1, 2]
    most = 0
    with pytest.raises(torch.OutOfMemoryError, match="the device is full"):
        tiny.encode_recordings(recordings)


def test_both_codebooks_come_from_one_pass(tiny) -> None:
    waveform = noise(20_000)
    (found,) = tiny.encode_recordings([Recording(waveform, lambda: iter([waveform]))])
    assert list(found) == ["primary", "auxiliary"] == tiny.codebook_names
    assert found["auxiliary"].codebook_size == tiny.size_of("auxiliary") == 300
    assert found["auxiliary"] == tiny.encode(waveform, 16_000, codebook="auxiliary")
    assert found["primary"].num_samples == 20_000


def test_shorter_than_a_frame_is_no_tokens(tiny) -> None:
    for samples in (0, 1, 399):
        assert tiny.encode(noise(samples), 16_000).num_frames == 0
    assert tiny.encode(noise(400), 16_000).num_frames == 1


def test_mfcc_in_windows_is_the_whole_exactly() -> None:
    whole = Tokenizer(Mfcc(), [spintok.load("mfcc-kmeans-100").codebooks["primary"]], window=Window(10_000, 2))
    parts = Tokenizer(Mfcc(), [spintok.load("mfcc-kmeans-100").codebooks["primary"]], window=Window(50, 2))
    waveform = noise(16_000 * 9 + 123)
    assert parts.encode(waveform, 16_000) == whole.encode(waveform, 16_000)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_an_encoder_in_windows_keeps_every_frame_and_most_codes(norm) -> None:
    changes = {"conv_norm": norm, "normalize_waveform": norm == "layer"}
    whole, parts = ssl_tokenizer(**changes), ssl_tokenizer(Window(100, 50), **changes)
    waveform = noise(16_000 * 12 + 77) * torch.linspace(0.1, 2, 16_000 * 12 + 77)
    one, many = whole.encode(waveform, 16_000), parts.encode(waveform, 16_000)
    assert one.num_frames == many.num_frames == num_frames(len(waveform))
    assert one.num_samples == many.num_samples == len(waveform)
    # Normalisation uses the whole recording; attention sees only the window.
    assert (one.codes == many.codes).mean() > 0.9


def test_long_files_are_read_in_blocks(tmp_path, monkeypatch) -> None:
    tokenizer = ssl_tokenizer(Window(60, 20))
    soundfile.write(tmp_path / "a.wav", noise(16_000 * 7).numpy(), 16_000, subtype="FLOAT")
    monkeypatch.setattr("spintok.data.audio.BLOCK_SECONDS", 1)
    assert tokenizer.record(tmp_path / "a.wav").waveform is None
    assert tokenizer.encode(tmp_path / "a.wav") == tokenizer.encode(noise(16_000 * 7), 16_000)


def test_an_hour_has_the_frames_of_the_formula_and_is_never_held() -> None:
    block = noise(16_000 * 30)
    samples = 16_000 * 3600 + 123

    def blocks():
        left = samples
        while left:
            yield block[:left]
            left -= len(block[:left])

    (found,) = spintok.load("mfcc-kmeans-100").encode_recordings([Recording(None, blocks)])
    tokens = found["primary"]
    assert tokens.num_frames == num_frames(samples) == 180_000
    assert tokens.num_samples == samples
    # The blocks are equal and 1,500 frames long, so the codes repeat too, across all borders of windows.
    inner = tokens.codes[:179_900].reshape(-1, 100)
    period = 15
    same = [(inner[i] == inner[i + period]).mean() for i in range(0, len(inner) - period, 7)]
    assert min(same) == 1.0


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_and_matmul_precision_of_the_caller_do_not_matter(tiny, half) -> None:
    waveforms = [noise(20_000), noise(16_000 * 40, seed=1)]
    expected = tiny.encode(waveforms, 16_000)
    features = next(tiny.iter_features([Recording(waveforms[0], lambda: iter([waveforms[0]]))])).features[0]
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(precision)
            with torch.autocast("cpu", dtype=half):
                assert tiny.encode(waveforms, 16_000) == expected
                again = next(tiny.iter_features([Recording(waveforms[0], lambda: iter([waveforms[0]]))])).features[0]
                assert again.dtype == torch.float32
                assert torch.equal(again, features)
                # The caller's settings are as they were.
                assert torch.is_autocast_enabled("cpu")
                assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == half
            assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_save_and_load_keep_tokens_and_fingerprint(tiny, tmp_path) -> None:
    tiny.save(tmp_path / "t")
    again = spintok.load(tmp_path / "t")
    assert again.fingerprint == tiny.fingerprint
    assert again.encode(noise(9_000), 16_000) == tiny.encode(noise(9_000), 16_000)
    assert (again.sample_rate, again.frame_rate, again.frame_size, again.num_codebooks) == (16_000, 50, 320, 2)
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == ["config.json", "model.safetensors"]


def test_float16_halves_the_file_and_then_nothing_changes(tiny, tmp_path) -> None:
    before = tiny.fingerprint
    tiny.save(tmp_path / "whole")
    tiny.save(tmp_path / "half", dtype="float16")
    assert tiny.fingerprint == before
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert 0.49 < sizes[1] / sizes[0] < 0.55
    stored = load_file(tmp_path / "half/model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    half = spintok.load(tmp_path / "half")
    assert half.fingerprint != before
    for name, tensor in tiny.state_dict().items():
        # Computation is in float32, with the weights rounded to nearest.
        loaded = half.state_dict()[name]
        assert loaded.dtype == torch.float32
        assert torch.equal(loaded, torch.from_numpy(tensor.numpy().astype(np.float16).astype(np.float32)))
    for dtype in ("float16", "float32"):
        half.save(tmp_path / dtype, dtype=dtype)
        again = spintok.load(tmp_path / dtype)
        assert again.fingerprint == half.fingerprint
        assert again.encode(noise(9_000), 16_000) == half.encode(noise(9_000), 16_000)
    assert (tmp_path / "float16/model.safetensors").read_bytes() == (tmp_path / "half/model.safetensors").read_bytes()


def test_weights_that_float16_cannot_hold_are_refused(tmp_path) -> None:
    tokenizer = ssl_tokenizer()
    with torch.no_grad():
        tokenizer.codebooks["primary"].codewords[3, 2] = 70_000
    with pytest.raises(ValueError, match=r"codebooks.primary.codewords has weights beyond 65,504.*float32"):
        tokenizer.save(tmp_path / "t", dtype="float16")
    assert not (tmp_path / "t").exists()
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float16', got 'int8'"):
        tokenizer.save(tmp_path / "t", dtype="int8")  # type: ignore[arg-type]


def test_a_checkpoint_of_spins_authors_is_a_tokenizer(tmp_path) -> None:
    model, _ = wavlm(max_distance=800, num_buckets=320)
    values = spin_checkpoint(model)
    torch.save(values, tmp_path / "spin_20.ckpt")
    tokenizer = spintok.load(tmp_path / "spin_20.ckpt")
    assert (tokenizer.name, tokenizer.layer, tokenizer.codebook_size) == ("spin_20", 2, 20)
    state = values["state_dict"]
    with torch.inference_mode():
        head = fairseq_features(model, noise(16_000))[2] @ state["pred_head.layers.0.weight"].t()
        z = torch.nn.functional.normalize(head + state["pred_head.layers.0.bias"], dim=-1)
        codewords = torch.nn.functional.normalize(state["loss_module.codebook.weight"], dim=-1)
        expected = (z @ codewords.t()).argmax(-1)
    assert tokenizer.encode(noise(16_000), 16_000).codes.tolist() == expected.tolist()
    tokenizer.save(tmp_path / "saved")
    assert spintok.load(tmp_path / "saved").fingerprint == tokenizer.fingerprint


def test_files_and_folders_that_are_no_tokenizer_say_what_they_are(tmp_path) -> None:
    (tmp_path / "x.ckpt").write_text("nothing")
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        spintok.load(tmp_path / "x.ckpt")
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    with pytest.raises(TokenizerError, match="an encoder, not a tokenizer"):
        spintok.load(tmp_path)


def test_the_fingerprint_is_of_weights_and_configuration_not_of_the_name(tiny) -> None:
    same, other = ssl_tokenizer(), ssl_tokenizer()
    same.name = "renamed"
    with torch.no_grad():
        other.codebooks["auxiliary"].codewords[299, 15] += 1e-6
    assert same.fingerprint == tiny.fingerprint
    assert len({tiny.fingerprint, other.fingerprint, ssl_tokenizer(Window(99, 9)).fingerprint}) == 3


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ValueError, match="unknown tokenizer 'nope'.*mfcc-kmeans-100"):
        spintok.load("nope")
    with pytest.raises(ValueError, match="unknown codebook 'x'.*primary"):
        spintok.load("mfcc-kmeans-100").encode(noise(999), 16_000, codebook="x")
    with pytest.raises(ValueError, match="unknown device 'tpu9'"):
        spintok.load(device="tpu9")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA GPU"):
            spintok.load(device="cuda")


def test_bad_audio_is_refused(tiny, tmp_path) -> None:
    with pytest.raises(ValueError, match="needs a sample rate"):
        tiny.encode(noise(999))
    with pytest.raises(AudioError, match="no such file"):
        tiny.encode(tmp_path / "no.wav")


def damage(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


DAMAGES = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "missing"),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:999]),
        "model.safetensors is damaged",
    ),
    "other weights": (
        lambda f: damage(f, codebooks=ssl_tokenizer()._config({})["codebooks"][:1]),
        "fit",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "not json": (lambda f: (f / "config.json").write_text("{"), "does not describe a tokenizer"),
    "newer": (lambda f: damage(f, spintok_format=99), "format 99"),
    "field": (lambda f: damage(f, encoder={"type": "ssl", "colour": 1}), "colour"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_folders_are_refused_in_one_line(tiny, tmp_path, kind) -> None:
    tiny.save(tmp_path)
    change, message = DAMAGES[kind]
    change(tmp_path)
    with pytest.raises(TokenizerError, match=message) as caught:
        spintok.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_impossible_tokenizers_are_refused(tiny) -> None:
    book = tiny.codebooks["primary"]
    with pytest.raises(ValueError, match="at least one"):
        Tokenizer(tiny.encoder, [], layer=1)
    with pytest.raises(ValueError, match="different names"):
        Tokenizer(tiny.encoder, [book, book], layer=1)
    with pytest.raises(ValueError, match="layer"):
        Tokenizer(Mfcc(), [book], layer=1)
    with pytest.raises(ValueError, match="reads 48 features, but the encoder has 39"):
        Tokenizer(Mfcc(), [book])


def test_each_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = []
    for rank in (None, "0", "1", "2"):
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        if rank is not None:
            monkeypatch.setenv("LOCAL_RANK", rank)
        found.append(str(find_device("auto")))
    assert found == ["cuda:0", "cuda:0", "cuda:1", "cuda:0"]
