"""Tokenizer folders that are damaged on purpose: one line, no memory taken, nothing computed with NaN."""

import json
import random
import resource
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import save_tiny

import spintok
from spintok.serialization import TokenizerError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tokenizer"))


def copy(folder: Path, target: Path, change: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (target / "config.json").write_text(json.dumps(config))
    (target / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return target


def refused(folder: Path) -> str:
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TokenizerError) as caught:
        spintok.load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800
    assert time.monotonic() - start < 10
    # In KiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    return str(caught.value)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """Of everything inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*path, key))


def put(config: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = value


def test_values_of_the_wrong_type_and_size(folder: Path, tmp_path: Path) -> None:
    """Every value in turn; a value may also be harmless, such as a smaller dropout."""
    config = json.loads((folder / "config.json").read_text())
    values = (None, "x", -1, 1.5, True, 10**30, float("nan"))
    count = 0
    for path in list(paths(config))[1:]:
        for value in values:
            copy(folder, tmp_path, lambda c, path=path, value=value: put(c, path, value))
            try:
                spintok.load(tmp_path).encode(torch.zeros(1600), 16_000)
            except TokenizerError:
                count += 1
    assert count > 150


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("encoder", "conv_channels"), [1_000_000] * 7),
        (("encoder", "positional_kernel"), 1_000_000),
        (("encoder", "feed_forward"), 1 << 24),
        (("encoder", "layers"), 200),
        (("codebooks", 0, "size"), 1 << 24),
        (("codebooks", 0, "width"), 1 << 24),
    ],
)
def test_sizes_are_compared_with_the_weights_first(folder: Path, tmp_path: Path, path: Any, value: Any) -> None:
    copy(folder, tmp_path, lambda config: put(config, path, value))
    assert "fit" in refused(tmp_path) or "does not describe" in refused(tmp_path)


def test_log_mel_bands_are_bounded(folder: Path, tmp_path: Path) -> None:
    def change(config: Any) -> None:
        config["encoder"] |= {
            "front_end": "log_mel",
            "conv_channels": [1 << 24, 8],
            "conv_kernels": [240, 2],
            "conv_strides": [160, 2],
        }

    copy(folder, tmp_path, change)
    assert "mel bands" in refused(tmp_path)


def test_deep_json(folder: Path, tmp_path: Path) -> None:
    copy(folder, tmp_path, lambda config: None)
    (tmp_path / "config.json").write_text('{"a":' * 100_000)
    refused(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    refused(tmp_path)
    (tmp_path / "config.json").write_text("9" * 10_000)
    refused(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder: Path, tmp_path: Path, value: float) -> None:
    copy(folder, tmp_path, lambda config: None)
    weights = load_file(tmp_path / "model.safetensors")
    for name in list(weights):
        damaged = {**weights, name: weights[name].clone()}
        damaged[name].view(-1)[-1] = value
        save_file(damaged, tmp_path / "model.safetensors")
        assert f"{name} has weights that are NaN or infinite" in refused(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int32, torch.bool])
def test_weights_of_another_dtype(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    copy(folder, tmp_path, lambda config: None)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    refused(tmp_path)


def test_headers_of_the_weights(folder: Path, tmp_path: Path) -> None:
    """The header's numbers and words, damaged at random: a typed error, or the same weights."""
    rng = random.Random(0)
    data = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    copy(folder, tmp_path, lambda config: None)
    names = list(header)
    for _ in range(150):
        damaged = json.loads(json.dumps(header))
        entry = damaged[rng.choice(names)]
        field = rng.choice(["dtype", "shape", "data_offsets"])
        entry[field] = rng.choice(
            [[], [-1], [0], [10**12, 10**12], [1 << 63], "F64", "I64", "F8_E4M3", None, {}, [0, 10**15], [[1]], 7]
        )
        text = json.dumps(damaged).encode()
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
        refused(tmp_path)
    for length in (0, 7, 8, 1 << 62):
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length) + data[8:])
        refused(tmp_path)
