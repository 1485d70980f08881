"""Graphs of tokenizers: ONNX Runtime, which knows nothing of spintok, gives the same codes, in Chromium too."""

import json
import os
import re
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import soundfile
import torch
from command_line import run
from markdown_blocks import ROOT, blocks, run_python
from small_models import TINY, save_tiny, tiny_encoder

import spintok
from spintok.chunking import Window
from spintok.data.audio import read
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.config import EncoderConfig
from spintok.models.mfcc import Mfcc
from spintok.models.streaming import StreamingConfig
from spintok.onnx import export, export_onnx
from spintok.onnx.check import agreement
from spintok.tokenizer import Tokenizer

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# Few and large convolutions, one layer: torch.export thinks for seconds about every operation on a dynamic length.
SMALL = replace(TINY, conv_channels=(8, 8), conv_kernels=(10, 66), conv_strides=(5, 64), layers=1)
LOG_MEL = replace(SMALL, front_end="log_mel", conv_channels=(16, 8), conv_kernels=(240, 2), conv_strides=(160, 2))
# HuBERT's front end, and all that one encoder can have of what Large models, WavLM and data2vec do otherwise.
OTHERWISE = replace(
    SMALL,
    conv_bias=True,
    normalize_waveform=True,
    norm_position="pre",
    final_norm=True,
    position_buckets=8,
    position_max_distance=20,
    positional_stack=2,
)
GEOMETRIES = {
    "log-mel": LOG_MEL,
    "streaming": replace(LOG_MEL, streaming=StreamingConfig()),
    "otherwise": OTHERWISE,
}
GUIDE = ROOT / "docs/guides/onnx.md"
PAGE = ROOT / "docs/browser/index.html"
CDN = "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/"


def _tokenizer(config: EncoderConfig | None, seed: int = 1) -> Tokenizer:
    """With windows of 20 frames and contexts of 5, so that a second takes several."""
    torch.manual_seed(seed)
    if config is None:
        book = Codebook(CodebookConfig("primary", 50, 39, 39, "l2", projection=False))
        book.codewords.data *= 10
        return Tokenizer(Mfcc(), [book], window=Window(20, 5))
    book = Codebook(CodebookConfig("primary", 7, config.width, 4, "dot", projection=True))
    return Tokenizer(tiny_encoder(config=config), [book], window=Window(20, 5))


def _audio(samples: int) -> torch.Tensor:
    """Noise whose level rises and falls, with an offset."""
    time = torch.arange(samples) / 2000
    return 0.02 * torch.randn(samples, generator=torch.Generator().manual_seed(0)) * (2 * time.sin()).exp() + 0.01


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function: the tokenizer of a geometry, and its graph, which is traced once."""
    found: dict[str, tuple[Tokenizer, Path]] = {}

    def get(geometry: str) -> tuple[Tokenizer, Path]:
        if geometry not in found:
            tokenizer = _tokenizer(GEOMETRIES[geometry])
            done = export_onnx(tokenizer, tmp_path_factory.mktemp("graphs") / f"{geometry}.onnx")
            assert done.equal >= 0.999 * done.frames > 50
            found[geometry] = tokenizer, done.path
        return found[geometry]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_audio_of_any_length_gets_the_codes_of_spintok(geometry: str, exported) -> None:
    tokenizer, path = exported(geometry)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    _compare_lengths(session, tokenizer, "primary")


def _compare_lengths(session, tokenizer: Tokenizer, codebook: str) -> None:
    """Codes of audio of no frame, of one, at the borders of frames and windows, and of many windows."""
    reach, hop = tokenizer.grid.reach, tokenizer.grid.hop
    most = tokenizer.max_samples
    wrong = frames = 0
    audio = _audio(40_000)
    for samples in (0, 1, reach - 1, reach, reach + 160, reach + hop - 1, reach + hop, most, most + 1, 33_333, 40_000):
        expected = tokenizer.encode(audio[:samples], 16_000, codebook=codebook).codes
        (found,) = session.run(["codes"], {"audio": audio[:samples].numpy()})
        assert (found.dtype, found.shape) == (np.int32, expected.shape)
        wrong += int((found != expected).sum())
        frames += len(expected)
    # Another processor may round a tie the other way.
    assert wrong <= frames // 200
    assert len(np.unique(expected)) > 2


def test_the_command_says_what_it_wrote_and_the_file_what_it_is(capsys, tmp_path: Path, speech: Path) -> None:
    made = _tokenizer(None)
    folder = tmp_path / "mine"
    books = [made.codebook(), _another(made.codebook())]
    Tokenizer(made.encoder, books, name="mine", window=made.window).save(folder)
    tokenizer = spintok.load(folder)
    path = tmp_path / "a.onnx"
    code, out, err = run(
        capsys, "export-model", folder, "--to", "onnx", "-o", path, "--codebook", "another", "--sample", speech
    )
    assert (code, err) == (0, "")
    recordings = sorted(speech.glob("*.flac"))
    frames = sum(len(tokenizer.encode(one).codes) for one in recordings)
    assert "codebook another; ONNX Runtime" in out
    assert f"of {frames:,} codes as spintok's" in out
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {
        "tokenizer": "mine",
        "fingerprint": tokenizer.fingerprint,
        "codebook": "another",
        "codebook_size": "50",
        "sample_rate": "16000",
        "frame_rate": "50",
        "spintok_version": spintok.__version__,
    }
    (found,) = session.run(None, {"audio": read(recordings[0]).numpy()})
    assert np.mean(found == tokenizer.encode(recordings[0]).codes) < 0.5
    _compare_lengths(session, tokenizer, "another")


def _another(book: Codebook) -> Codebook:
    """The same codewords in another order."""
    other = Codebook(replace(book.config, name="another"))
    other.load_state_dict({"codewords": book.codewords.detach().flip(0)})
    return other


def test_the_example_in_python(exported, tmp_path: Path, monkeypatch, speech: Path) -> None:
    tokenizer, path = exported("log-mel")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dc-spin.onnx").write_bytes(path.read_bytes())
    soundfile.write("speech.wav", read(speech / "fred_yes.flac").numpy(), 16_000)
    (block,) = (block for block in blocks(GUIDE) if block.language == "python")
    printed = run_python(block.text, str(block), {})
    assert printed.split() == str(tokenizer.encode(speech / "fred_yes.flac").units).split()


def test_the_example_in_c_plus_plus(exported, tmp_path: Path, speech: Path) -> None:
    """Compiled and run as the guide says, if ONNX Runtime's headers and library are found as the guide says."""
    (code,) = (block.text for block in blocks(GUIDE) if block.language == "cpp")
    (commands,) = (block.text for block in blocks(GUIDE) if block.language == "sh" and "tokenize.cpp" in block.text)
    root = os.environ.get("ONNXRUNTIME_ROOT")
    if which("c++") is None or which("ffmpeg") is None:
        pytest.skip("needs a C++ compiler and ffmpeg")
    if root is None:
        if which("pkg-config") is None or subprocess.run(["pkg-config", "libonnxruntime"], check=False).returncode:
            pytest.skip("no ONNX Runtime for C++: set ONNXRUNTIME_ROOT, or install libonnxruntime-dev")
        (packaged,) = re.findall(r"`(c\+\+ .*pkg-config.*)`", GUIDE.read_text(encoding="utf-8"))
        commands = "\n".join([packaged, *commands.splitlines()[1:]])
    tokenizer, path = exported("log-mel")
    (tmp_path / "tokenize.cpp").write_text(code, encoding="utf-8")
    (tmp_path / "dc-spin.onnx").write_bytes(path.read_bytes())
    soundfile.write(tmp_path / "speech.wav", read(speech / "beth_river.flac").numpy(), 16_000)
    done = subprocess.run(["bash", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = np.array(done.stdout.split(), np.int32)
    expected = tokenizer.encode(speech / "beth_river.flac").codes
    assert found.shape == expected.shape
    assert len(expected) > tokenizer.window.frames
    assert (found != expected).sum() <= len(expected) // 200
    # No samples at all, and one less than a frame.
    for samples in (0, tokenizer.grid.reach - 1):
        np.zeros(samples, np.float32).tofile(tmp_path / "short.f32")
        command = [tmp_path / "tokenize", "dc-spin.onnx", "short.f32"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout == b""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory) -> dict[str, bytes]:
    """The files of onnxruntime-web by their addresses."""
    npm = which("npm")
    if npm is None:
        pytest.skip("no npm here to get onnxruntime-web with")
    folder = tmp_path_factory.mktemp("npm")
    package = CDN.rstrip("/").rpartition("/")[2]
    try:
        done = subprocess.run(
            [npm, "pack", package, "--prefer-offline", "--silent"],
            cwd=folder,
            capture_output=True,
            timeout=200,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry does not answer")
    packed = list(folder.glob("*.tgz"))
    if done.returncode or not packed:
        pytest.skip(f"npm cannot get {package}: {done.stderr.decode()[-200:]}")
    names = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm")
    with tarfile.open(packed[0]) as archive:
        return {CDN + name: archive.extractfile(f"package/{name}").read() for name in names}  # type: ignore[union-attr]


@pytest.fixture
def tab(runtime):
    """A page whose CDN is the package, and which reaches nothing else."""
    pytest.importorskip("playwright")
    from chromium import Tab, chromium

    def answer(route) -> None:
        address = route.request.url
        if address not in runtime:
            route.abort()
            return
        kind = "application/wasm" if address.endswith(".wasm") else "text/javascript"
        route.fulfill(body=runtime[address], content_type=kind, headers={"Access-Control-Allow-Origin": "*"})

    with chromium() as browser:
        tab = Tab(browser)
        tab.page.route(re.compile("^https:"), answer)
        yield tab


def test_the_page_tokenizes_and_so_does_the_example_in_javascript(exported, tab, tmp_path: Path, speech: Path) -> None:
    tokenizer, path = exported("log-mel")
    recording = speech / "beth_river.flac"
    expected = tokenizer.encode(recording).codes
    assert len(expected) > tokenizer.window.frames
    tab.open(PAGE)
    tab.page.set_input_files("#tokenizer", path)
    tab.page.set_input_files("#recording", recording)
    tab.wait("document.getElementById('codes').textContent !== ''", seconds=120)
    found = np.array(tab.page.locator("#codes").inner_text().split(), np.int32)
    assert found.shape == expected.shape
    assert (found != expected).sum() <= len(expected) // 200
    assert f"{len(expected)} codes of" in tab.page.locator("#status").inner_text()
    tab.page.set_input_files("#tokenizer", recording)
    tab.wait("document.getElementById('status').textContent.startsWith('Failed')", seconds=60)
    (block,) = (block for block in blocks(GUIDE) if block.language == "js")
    samples = read(speech / "fred_yes.flac")
    graph = "https://example.org/dc-spin.onnx"
    tab.page.route(graph, lambda route: route.fulfill(path=path, headers={"Access-Control-Allow-Origin": "*"}))
    script = block.text.replace('"dc-spin.onnx"', f'"{graph}"').replace("console.log(", "window.printed = Array.from(")
    tab.page.add_script_tag(
        type="module", content=f"const samples = new Float32Array({json.dumps(samples.tolist())});\n{script}"
    )
    tab.wait("window.printed !== undefined", seconds=120)
    assert (
        np.mean(np.array(tab.page.evaluate("window.printed")) == tokenizer.encode(speech / "fred_yes.flac").codes)
        > 0.99
    )


def test_a_graph_that_gives_other_codes_is_not_written(capsys, exported, tmp_path: Path, monkeypatch) -> None:
    # The graph of another tokenizer stands for whatever may go wrong on the way.
    other, path = exported("log-mel")
    model = onnx.load(path)
    folder = save_tiny(tmp_path / "tiny", SMALL)
    monkeypatch.setattr(export, "_model", lambda tokenizer, codebook: model)
    code, out, err = run(capsys, "export-model", folder, "-o", tmp_path / "a.onnx", "--quiet")
    assert (code, out) == (2, "")
    assert "a.onnx: not written: ONNX Runtime gives" in err
    assert "99.9% are needed" in err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    equal, frames = agreement(model.SerializeToString(), other, "primary", [_audio(9_000)])
    assert equal == frames == 27
    with pytest.raises(ValueError, match="no frame"):
        agreement(model.SerializeToString(), other, "primary", [_audio(20)])
    with pytest.raises(ValueError, match="ONNX Runtime cannot run the graph"):
        agreement(b"nothing", other, "primary", [_audio(9_000)])


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch) -> None:
    tokenizer = _tokenizer(SMALL)
    for path, message in ((tmp_path, "name a file to write"), (tmp_path / "none/a.onnx", "none: no such folder")):
        with pytest.raises(ValueError, match=message):
            export_onnx(tokenizer, path)
    with pytest.raises(ValueError, match="unknown codebook 'third'"):
        export_onnx(tokenizer, tmp_path / "a.onnx", codebook="third")
    with pytest.raises(ValueError, match="without a latency"):
        export_onnx(tokenizer.at(0.32), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="on meta: load it on the CPU"):
        export_onnx(_tokenizer(SMALL).to("meta"), tmp_path / "a.onnx")
    monkeypatch.setattr(export, "_LARGEST", 1000)
    with pytest.raises(ValueError, match="ends at 2 GiB"):
        export_onnx(tokenizer, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
