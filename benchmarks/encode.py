"""Speech to tokens on one machine: spintok against what a user would write with transformers and scikit-learn.

    python -m benchmarks.encode --layer 6

One random HuBERT Base and one codebook for all. The files' lengths are mixed, as a corpus's are. Ways:

* padded batches: ``HubertModel`` on padded batches with an attention mask, hidden state of the layer,
  ``KMeans.predict``; files in the order of the folder, as a data loader gives them;
* one by one: the same, a file at a time: slow and right, so it is the reference of the tokens;
* spintok: ``Tokenizer.encode_recordings`` of all files, as many at a time as torch has threads, as ``spintok encode``.

Agreement comes first: the share of each way's tokens that differ from the reference. Times are the least of
interleaved rounds; peak memory is that of a fresh process that does one round.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from spintok.data.audio import read
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.importers import load_encoder
from spintok.tokenizer import Tokenizer

BATCH = 8

Way = Callable[[], list[list[int]]]
"""Gives the tokens of every file of the folder, a code a frame."""


def make_inputs(folder: Path, seconds: float) -> None:
    """A random HuBERT Base and files of 1 to 20 s: noise with a moving tone, since the cost is all that matters."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    HubertModel(HubertConfig()).eval().save_pretrained(folder / "hubert")
    rng = np.random.default_rng(0)
    total = 0.0
    while total < seconds:
        length = float(np.clip(rng.lognormal(1.5, 0.8), 1, 20))
        time_axis = np.arange(int(length * 16_000)) / 16_000
        tone = np.sin(2 * np.pi * (150 + 80 * np.sin(2 * np.pi * rng.uniform(1, 4) * time_axis)) * time_axis)
        samples = 0.1 * rng.standard_normal(time_axis.size) * rng.uniform(0.2, 1) + 0.3 * tone
        soundfile.write(folder / f"{rng.integers(10**9):09d}.flac", np.clip(samples, -1, 1), 16_000)
        total += length


def their_ways(folder: Path, layer: int) -> dict[str, Way]:
    """What a user would write with transformers and scikit-learn; hidden states of all layers are computed."""
    from sklearn.cluster import KMeans
    from transformers import HubertModel

    model = HubertModel.from_pretrained(folder / "hubert").eval()
    files = sorted(folder.glob("*.flac"))
    codewords = codebook(folder, model, files, layer)
    kmeans = KMeans(len(codewords), n_init=1, max_iter=1).fit(codewords)
    kmeans.cluster_centers_ = codewords

    @torch.inference_mode()
    def padded_batches() -> list[list[int]]:
        tokens = []
        for start in range(0, len(files), BATCH):
            waveforms = [read(path) for path in files[start : start + BATCH]]
            padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
            lengths = torch.tensor([len(waveform) for waveform in waveforms])
            mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
            hidden = model(padded, attention_mask=mask, output_hidden_states=True).hidden_states[layer]
            frames = model._get_feat_extract_output_lengths(lengths)
            tokens += [kmeans.predict(row[:count].numpy()).tolist() for row, count in zip(hidden, frames, strict=True)]
        return tokens

    @torch.inference_mode()
    def one_by_one() -> list[list[int]]:
        tokens = []
        for path in files:
            hidden = model(read(path)[None], output_hidden_states=True).hidden_states[layer]
            tokens.append(kmeans.predict(hidden[0].numpy()).tolist())
        return tokens

    return {"padded batches": padded_batches, "one by one": one_by_one}


def our_way(folder: Path, layer: int) -> dict[str, Way]:
    """spintok, with the same weights and the codewords that ``their_ways`` has left in the folder."""
    codewords = np.load(codewords_path(folder, layer))
    size, width = codewords.shape
    book = Codebook(CodebookConfig("primary", size, width, width, "l2", projection=False))
    with torch.no_grad():
        book.codewords.copy_(torch.from_numpy(codewords))
    tokenizer = Tokenizer(load_encoder(folder / "hubert", layers=layer), [book], layer=layer)
    files = sorted(folder.glob("*.flac"))

    def spintok() -> list[list[int]]:
        recordings = [tokenizer.record(path) for path in files]
        return [found["primary"].codes.tolist() for found in tokenizer.encode_recordings(recordings)]

    return {"spintok": spintok}


def codewords_path(folder: Path, layer: int) -> Path:
    return folder / f"codewords-{layer}.npy"


def codebook(folder: Path, model: torch.nn.Module, files: list[Path], layer: int) -> np.ndarray:
    """500 frames of the files as codewords, the same in every process."""
    path = codewords_path(folder, layer)
    if not path.exists():
        with torch.inference_mode():
            frames = [model(read(f)[None], output_hidden_states=True).hidden_states[layer][0] for f in files[:12]]
        features = torch.cat(frames).numpy()
        np.save(path, features[np.random.default_rng(0).permutation(len(features))[:500]])
    return np.load(path)


def peak_memory(folder: Path, layer: int, way: str) -> int:
    """Bytes, by a fresh process that does one round."""
    command = [sys.executable, "-W", "ignore", "-m", __spec__.name, "--layer", str(layer)]
    done = subprocess.run(
        [*command, "--inputs", folder, "--memory-of", way], capture_output=True, text=True, check=True
    )
    return int(done.stdout.strip().splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", type=int, default=6, help="layer of HuBERT Base; 6 is the layer of GSLM's units")
    parser.add_argument("--seconds", type=float, default=120, help="seconds of audio")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--inputs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory_of:
        make = our_way if options.memory_of == "spintok" else their_ways
        make(options.inputs, options.layer)[options.memory_of]()
        print(high_water_mark())
        return
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    make_inputs(folder, options.seconds)
    todo = their_ways(folder, options.layer) | our_way(folder, options.layer)
    files = sorted(folder.glob("*.flac"))
    seconds = sum(soundfile.info(path).duration for path in files)
    reference = todo["one by one"]()
    frames = sum(map(len, reference))
    wrong = {name: mismatches(way(), reference) for name, way in todo.items()}
    times = {name: float("inf") for name in todo}
    for _ in range(options.rounds):
        for name, way in todo.items():
            started = time.perf_counter()
            way()
            times[name] = min(times[name], time.perf_counter() - started)
    memory = {name: peak_memory(folder, options.layer, name) for name in todo}
    print(
        f"HuBERT Base, layer {options.layer}, K 500; {len(files)} files of 1-20 s, {seconds:.0f} s in all; "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.processor() or platform.machine()}"
    )
    print(f"| way | tokens that differ, of {frames} | hours an hour | against padded batches | peak memory |")
    print("|---|---|---|---|---|")
    for name in todo:
        ratio = times["padded batches"] / times[name]
        print(
            f"| {name} | {wrong[name]} | {seconds / times[name]:.1f} | {ratio:.2f} x | {memory[name] / 2**20:.0f} MiB |"
        )
    if options.json:
        rows = {n: {"wrong": wrong[n], "seconds": times[n], "peak_bytes": memory[n]} for n in todo}
        head = {"layer": options.layer, "audio_seconds": seconds, "frames": frames, "torch": torch.__version__}
        options.json.write_text(json.dumps({**head, "ways": rows}, indent=2) + "\n")


def high_water_mark() -> int:
    """Bytes. Not ru_maxrss, which a process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def mismatches(tokens: list[list[int]], reference: list[list[int]]) -> int:
    """Frames whose codes differ; a missing or extra frame counts as one."""
    return sum(
        sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
        for one, other in zip(tokens, reference, strict=True)
    )


if __name__ == "__main__":
    main()
