"""Every form in which people have audio gives the same tokens, and what is ambiguous is refused."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_models import save_tiny

import spintok
from spintok.data.audio import AudioError
from spintok.data.ffmpeg import FfmpegError
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

RNG = np.random.default_rng(0)
A = (RNG.standard_normal(16_000).clip(-4, 4) * 0.1).astype(np.float32)
B = (RNG.standard_normal(12_345).clip(-4, 4) * 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return spintok.load(save_tiny(tmp_path_factory.mktemp("t"), size=50))


@pytest.fixture(scope="module")
def tokens(tiny: Tokenizer) -> list[Tokens]:
    return [tiny.encode(A, 16_000), tiny.encode(B, 16_000)]


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


def test_two_rows_are_not_averaged(tiny: Tokenizer, tokens: list[Tokens]) -> None:
    both = np.stack([A, A[::-1]])
    with pytest.raises(AudioError, match="give a list of recordings, lengths= for a padded batch, or channels=True"):
        tiny.encode(both, 16_000)
    with pytest.raises(AudioError, match="give a list"):
        tiny.encode([both], 16_000)
    assert tiny.encode(both, 16_000, channels=True) == tiny.encode(both.mean(0), 16_000)
    assert tiny.encode(list(both), 16_000)[0] == tokens[0]
    # One row is one recording.
    assert tiny.encode(A[None], 16_000) == tokens[0]
    assert tiny.encode(torch.from_numpy(A)[None], 16_000) == tokens[0]


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_a_padded_batch_with_lengths(tiny: Tokenizer, tokens: list[Tokens], make) -> None:
    padded = np.full((2, 20_000), 0.7, np.float32)
    padded[0, : len(A)], padded[1, : len(B)] = A, B
    for lengths in ([len(A), len(B)], np.array([len(A), len(B)]), torch.tensor([len(A), len(B)])):
        assert tiny.encode(make(padded), 16_000, lengths=lengths) == tokens
    for lengths, message in (([1], "1 lengths"), ([1, 20_001], "must be in 0"), ([-1, 5], "must be in 0")):
        with pytest.raises(AudioError, match=message):
            tiny.encode(make(padded), 16_000, lengths=lengths)
    with pytest.raises(AudioError, match="lengths are for an array"):
        tiny.encode(A, 16_000, lengths=[len(A)])


def test_forms_of_one_recording(tiny: Tokenizer, tokens: list[Tokens], tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(A))
    row = {"array": A, "sampling_rate": 16_000, "path": None}
    for audio in (
        path, str(path), (A, 16_000), (torch.from_numpy(A), 16_000), wav(A), bytearray(wav(A)), io.BytesIO(wav(A)),
        row, {"array": A.tolist(), "sampling_rate": 16_000}, {"audio": row, "text": "yes"},
        {"bytes": wav(A), "path": "a.wav"}, {"bytes": None, "path": str(path)},
    ):  # fmt: skip
        assert tiny.encode(audio) == tokens[0], audio
        if isinstance(audio, io.BytesIO):
            audio.seek(0)
        assert tiny.encode([audio]) == tokens[:1]
    with path.open("rb") as file:
        assert tiny.encode(file) == tokens[0]
    assert not list(Path(tempfile.gettempdir()).glob("spintok-*/a.wav"))


def test_the_name_of_a_file_decides_who_decodes_it(tiny: Tokenizer, tmp_path: Path, monkeypatch) -> None:
    """ffmpeg is asked by the ending, as for files on disk."""
    asked = []

    def blocks(name: str, seconds: int) -> None:
        asked.append(Path(name).suffix)
        raise FfmpegError("is busy")

    monkeypatch.setattr("spintok.data.ffmpeg.blocks", blocks)
    (tmp_path / "a.m4a").write_bytes(wav(A))
    with (tmp_path / "a.m4a").open("rb") as file:
        for audio in ({"bytes": wav(A), "path": "x/a.M4A"}, file):
            with pytest.raises(AudioError, match=r"audio of [\d,]+ bytes: is busy"):
                tiny.encode(audio)
    assert asked == [".m4a", ".m4a"]


class Samples:
    def __init__(self) -> None:
        self.data, self.sample_rate = torch.from_numpy(np.stack([A, A])), 16_000


class AudioDecoder:
    """The two members of torchcodec's AudioDecoder that are used."""

    def get_all_samples(self) -> Samples:
        return Samples()


def test_an_audio_decoder(tiny: Tokenizer, tokens: list[Tokens]) -> None:
    assert tiny.encode(AudioDecoder()) == tokens[0]
    assert tiny.encode([{"audio": AudioDecoder()}]) == tokens[:1]


def test_rows_of_datasets(tiny: Tokenizer, tokens: list[Tokens]) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"bytes": wav(A), "path": None}, {"bytes": wav(B), "path": None}]
    data = datasets.Dataset.from_dict({"audio": rows}).cast_column("audio", datasets.Audio(decode=False))
    assert tiny.encode(data[0]) == tiny.encode(data[0]["audio"]) == tokens[0]
    assert tiny.encode(data["audio"]) == tiny.encode(data) == tokens
    assert tiny.encode(data.to_iterable_dataset()) == tokens
    units = data.map(
        lambda batch: {"units": [t.units for t in tiny.encode(batch["audio"])]}, batched=True, remove_columns="audio"
    )
    assert [row["units"] for row in units] == [t.units.tolist() for t in tokens]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float32])
def test_other_dtypes(tiny: Tokenizer, dtype: torch.dtype) -> None:
    half = torch.from_numpy(A).to(dtype)
    assert tiny.encode(half, 16_000) == tiny.encode(half.float(), 16_000)
    if dtype != torch.bfloat16:
        assert tiny.encode(half.numpy(), 16_000) == tiny.encode(half.float(), 16_000)


def test_iterables(tiny: Tokenizer, tokens: list[Tokens], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tokens * 5
    assert tiny.encode(iter([A, B] * 5), 16_000) == expected
    assert tiny.encode((x, 16_000) for x in [A, B] * 5) == expected
    assert tiny.encode((A, B), 16_000) == tokens
    assert tiny.encode({"a": A, "b": B}.values(), 16_000) == tokens
    assert tiny.encode([], 16_000) == []
    monkeypatch.setattr("spintok.tokenizer._PORTION", 3)
    assert tiny.encode([A, B] * 5, 16_000) == expected


def test_a_bad_file_does_not_lose_the_others(tiny: Tokenizer, tokens: list[Tokens], tmp_path: Path) -> None:
    """Also one whose damage shows only at its end, when it is long, and anything that is no audio."""
    (tmp_path / "a.wav").write_bytes(wav(A))
    long = np.zeros(16_000 * 40, np.float32)
    long[-5] = np.nan
    (tmp_path / "long.wav").write_bytes(wav(long))
    given = [tmp_path / "a.wav", tmp_path / "no.wav", (B, 16_000), tmp_path / "long.wav", b"nothing", 7, (A, 0), {}]
    found = tiny.encode(given, errors="return")
    assert found[0] == tokens[0]
    assert found[2] == tokens[1]
    for place, message in (
        (1, "no such file"), (3, "NaN"), (4, "audio of 7 bytes: libsndfile"), (5, "cannot be a int"),
        (6, "rate"), (7, "a mapping must hold"),
    ):  # fmt: skip
        assert isinstance(found[place], AudioError)
        assert message in str(found[place])
        assert "\n" not in str(found[place])
        with pytest.raises(AudioError):
            tiny.encode(given[place])
    assert isinstance(tiny.encode(tmp_path / "no.wav", errors="return"), AudioError)
    with pytest.raises(ValueError, match='"raise" or "return"'):
        tiny.encode(A, 16_000, errors="ignore")  # type: ignore[call-overload]


def test_rates_that_are_missing_or_contradict(tiny: Tokenizer) -> None:
    for audio in (A, [A], A.tolist()):
        with pytest.raises(AudioError, match="needs a sample rate|cannot be a float"):
            tiny.encode(audio)
    for audio in ((A, 16_000), {"array": A, "sampling_rate": 16_000}):
        with pytest.raises(AudioError, match="states a rate of 16000 Hz, but sample_rate is 8000"):
            tiny.encode(audio, 8_000)
    with pytest.raises(AudioError, match="binary mode"):
        tiny.encode(io.StringIO("x"))


def test_a_device_can_be_chosen_automatically() -> None:
    tokenizer = spintok.load("mfcc-kmeans-100", device="auto")
    assert tokenizer.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
