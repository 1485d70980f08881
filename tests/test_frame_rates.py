"""Tokenizers whose frames are not 20 ms: what they give, and what every folder, figure and page makes of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_line import run
from small_models import TINY, save_tiny

import spintok
from spintok.chunking import Window
from spintok.corpus import read_corpus
from spintok.frames import FrameGrid, num_frames
from spintok.models.config import EncoderConfig

# mHuBERT at 25 Hz has one convolution more; the other steps by 10 ms.
SLOW = replace(
    TINY, conv_channels=(8,) * 8, conv_kernels=(10, 3, 3, 3, 3, 2, 2, 2), conv_strides=(5, 2, 2, 2, 2, 2, 2, 2)
)
FAST = replace(TINY, conv_channels=(8,) * 6, conv_kernels=(10, 3, 3, 3, 3, 2), conv_strides=(5, 2, 2, 2, 2, 2))
SPEECH = torch.randn(37_777, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.mark.parametrize(("config", "rate", "reach"), [(SLOW, 25, 720), (FAST, 100, 240)])
def test_the_tokenizer_carries_its_frames(tmp_path: Path, config: EncoderConfig, rate: int, reach: int) -> None:
    tokenizer = spintok.load(save_tiny(tmp_path, config))
    grid = FrameGrid(16_000 // rate, reach)
    assert (tokenizer.grid, tokenizer.frame_rate, tokenizer.frame_size) == (grid, rate, 16_000 // rate)
    for samples in (reach - 1, reach, 16_000, 37_777):
        found = tokenizer.encode(SPEECH[:samples], 16_000)
        assert found.num_frames == num_frames(samples, grid)
        assert found.frame_rate == rate
        assert found.seconds == found.num_frames / rate
        assert found.times.shape == (found.units.size, 2)
    # In a batch, in chunks.
    both = tokenizer.encode([SPEECH, SPEECH[:9_000]], 16_000)
    assert both == [tokenizer.encode(one, 16_000) for one in (SPEECH, SPEECH[:9_000])]
    padded = torch.nn.functional.pad(torch.stack([SPEECH, SPEECH]), (0, 1_234))
    lengths = torch.tensor([len(SPEECH), 9_000])
    features, counts = tokenizer.encoder(padded, lengths)
    assert counts.tolist() == [num_frames(n, grid) for n in lengths.tolist()]
    alone, _ = tokenizer.encoder(SPEECH[None, :9_000])
    torch.testing.assert_close(features[1, : counts[1]], alone[0], rtol=1e-4, atol=1e-5)
    tokenizer.window = Window(20, 30)
    assert len(SPEECH) > tokenizer.max_samples or rate < 50
    assert tokenizer.encode(SPEECH, 16_000).num_frames == both[0].num_frames


def test_from_files_to_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """``encode``, ``stats``, ``verify``, ``report`` and ``export`` at 25 frames a second."""

    def ran(*arguments: object) -> str:
        code, out, error = run(capsys, *arguments)
        assert code == 0, error
        return str(out)

    save_tiny(tmp_path / "slow", SLOW)
    audio = tmp_path / "audio"
    audio.mkdir()
    for name, seconds in (("a", 1.3), ("b", 2.0)):
        noise = np.random.default_rng(len(name)).normal(size=int(seconds * 16_000)) * 0.1
        soundfile.write(audio / f"{name}.wav", noise, 16_000)
    ran("encode", audio, tmp_path / "out", "-t", tmp_path / "slow", "--device", "cpu")
    description, records = read_corpus(tmp_path / "out")
    assert (description["frame_rate"], description["receptive_field"]) == (25, 720)
    tokens = {record.key: record.tokens["primary"] for record in records}
    grid = FrameGrid(640, 720)
    assert {one.grid for one in tokens.values()} == {grid}
    assert [one.num_frames for one in tokens.values()] == [num_frames(20_800, grid), num_frames(32_000, grid)]
    ran("stats", tmp_path / "out", "--json", tmp_path / "stats.json")
    figures = json.loads((tmp_path / "stats.json").read_text())["figures"]
    frames = sum(one.num_frames for one in tokens.values())
    assert (figures["frame_rate"], figures["hours"] * 3600) == (25.0, pytest.approx(frames / 25))
    assert figures["token_rate"] == pytest.approx(sum(one.units.size for one in tokens.values()) / frames * 25)
    assert len(figures["token_rate_over_time"]) == 2
    ran("verify", tmp_path / "out", "-t", tmp_path / "slow", "--sample", 0)
    ran("report", tmp_path / "out", "-o", tmp_path / "page.html")
    ran("export", tmp_path / "out", tmp_path / "export", "--to", "slamkit")
    assert json.loads((tmp_path / "export/spintok.json").read_text())["receptive_field"] == 720
