"""What streaming costs: codes against latency, the time of a push, how many streams this machine carries, and memory.

    spintok bench stream dc-spin-10m-en speech.jsonl
    spintok bench stream mine/ dev.jsonl --alignments phones.jsonl --plot latency.svg

Agreement is the share of codes that equal those of whole recordings. With alignments there is PNMI, with and without
silence, and with rapidfuzz the unit edit distance in another voice. A push is a chunk. A machine carries n streams if
the 99th percentile of the time to push a chunk to all of them at once, which is the worst case, is below the chunk's
length.
"""

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import spintok
from spintok.data.audio import read
from spintok.data.labels.alignment_files import read_alignments
from spintok.data.labels.alignments import Interval, match
from spintok.data.manifest import Utterance, scan
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.options import Dataset
from spintok.evaluate.perturbations import Condition, Perturbed, apply
from spintok.evaluate.phones import PhoneScore
from spintok.evaluate.robustness import ued
from spintok.frames import SAMPLE_RATE
from spintok.streaming.policy import parse_latency
from spintok.tokens import Tokens, deduplicate

LATENCIES = ("80ms", "160ms", "320ms", "640ms", "1280ms")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="a name or folder")
    parser.add_argument("speech", type=Path, help="a folder or manifest")
    parser.add_argument("--alignments", type=Path, help="phones of the speech, for PNMI")
    parser.add_argument("--latencies", nargs="+", default=LATENCIES)
    parser.add_argument("--utterances", type=int, default=100, help="how many to compare, spread over the list; 0: all")
    parser.add_argument("--voices", type=int, default=60, help="how many of them to compare in another voice")
    parser.add_argument("--pushes", type=int, default=200, help="how many to time for each latency")
    parser.add_argument("--sessions", type=int, nargs="*", default=[1, 10, 25, 50], help="streams at once; none: skip")
    parser.add_argument("--session-latency", default="320ms")
    parser.add_argument("--workers", type=int, help="threads; one for each core by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--plot", type=Path, help="draw the curve of agreement there, as svg or png")
    options = parser.parse_args(arguments)
    tokenizer = spintok.load(options.tokenizer, device=options.device)
    latencies = [parse_latency(text) for text in options.latencies]
    utterances = scan(options.speech)
    count = min(options.utterances, len(utterances)) or len(utterances)
    chosen = utterances[:: len(utterances) // count][:count]
    print(f"{tokenizer.name} on {tokenizer.device}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    found: dict[str, Any] = {
        "quality": quality(tokenizer, chosen, latencies, options.alignments, options.voices, options.workers)
    }
    if options.pushes:
        found["push"] = pushes(tokenizer, chosen, latencies, options.pushes)
    if options.sessions:
        latency = parse_latency(options.session_latency)
        found["sessions"] = sessions(tokenizer, chosen, latency, options.sessions, options.workers, options.pushes)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        plot(tokenizer.name, found["quality"], options.plot)


def quality(
    tokenizer: spintok.Tokenizer,
    utterances: Sequence[Utterance],
    latencies: Sequence[float],
    alignments: Path | None = None,
    voices: int = 60,
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """A row for whole recordings and for each latency.

    ``voices`` utterances, those of ``spintok evaluate --utterances``, are also encoded in another voice, if rapidfuzz
    is installed. ``workers`` threads share the recordings of a latency; one for each core by default.
    """
    phones: dict[str, tuple[Interval, ...]] = {}
    if alignments is not None:
        found = match([utterance.key for utterance in utterances], read_alignments(alignments))
        phones = {key: alignment.phones for key, alignment in found.items() if alignment.phones}
    spoken = Dataset(tuple(utterances), {}, NoiseSources()).sample(voices, 0) if voices else []
    others = in_another_voice(tokenizer, spoken) if importlib.util.find_spec("rapidfuzz") else {}
    rows: list[dict[str, Any]] = []
    whole: NDArray[np.int32] | None = None
    for latency in [None, *latencies]:
        at = tokenizer.at(latency)
        tokens = dict(zip([u.key for u in utterances], encode(at, [u.path for u in utterances], workers), strict=True))
        codes = np.concatenate([one.codes for one in tokens.values()])
        whole = codes if whole is None else whole
        row = {"latency": latency, "frames": len(codes), "agreement": float((codes == whole).mean())}
        if phones:
            values = PhoneScore(tokens, phones, tolerance=None).values()
            row |= {name: values[name] for name in ("pnmi", "pnmi_speech")}
        if others:
            changed = encode(at, [one.waveform for one in others.values()], workers)
            pairs = [
                one.compared(tokens[key].codes, after.codes)
                for (key, one), after in zip(others.items(), changed, strict=True)
            ]
            units = [[deduplicate(codes)[0] for codes in side] for side in zip(*pairs, strict=True)]
            row["ued_pooled_speaker"] = ued(units[0], units[1], list(others)).values()["ued_pooled"]
        rows.append(row)
    names = [name for name in rows[0] if name not in ("latency", "frames")]
    print(f"{rows[0]['frames']} frames of {len(utterances)} utterances, {len(others)} of them in another voice too\n")
    print(f"| latency | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for row in rows:
        label = "whole recordings" if row["latency"] is None else f"{row['latency']:g} s"
        print(f"| {label} | {' | '.join(f'{row[name]:.4f}' for name in names)} |", flush=True)
    return rows


def in_another_voice(tokenizer: spintok.Tokenizer, utterances: Sequence[Utterance]) -> dict[str, Perturbed]:
    """The utterances in another voice, by key, as ``spintok evaluate`` makes them."""
    voice, sources = Condition("speaker"), NoiseSources()
    found = {u.key: apply(voice, read(u.path), u, sources, 0, tokenizer.grid) for u in utterances}
    return {key: one for key, one in found.items() if one is not None}


def encode(tokenizer: spintok.Tokenizer, recordings: Sequence[Any], workers: int | None) -> list[Tokens]:
    """The tokens of files, or of waveforms at 16 kHz. With a latency, threads share the recordings on a CPU."""
    rate = None if isinstance(recordings[0], str | Path) else SAMPLE_RATE
    count = workers or os.cpu_count() or 1
    if tokenizer.latency is None or tokenizer.device.type != "cpu" or count == 1:
        return list(tokenizer.encode(recordings, rate))
    parts = [recordings[i::count] for i in range(min(count, len(recordings)))]
    with ThreadPoolExecutor(len(parts)) as threads:
        found = list(threads.map(lambda part: tokenizer.encode(part, rate), parts))
    return [found[i % count][i // count] for i in range(len(recordings))]


def pushes(
    tokenizer: spintok.Tokenizer, utterances: Sequence[Utterance], latencies: Sequence[float], count: int
) -> list[dict[str, float]]:
    """The time of a push of a chunk to one stream."""
    rows = []
    print("\n| latency | chunk, ms | push p50, ms | p95 | p99 | state, MB |\n|---|---|---|---|---|---|")
    for latency in latencies:
        stream = tokenizer.stream(latency)
        size = stream.engine.policy.chunk * tokenizer.frame_size
        speech = gather(utterances, size * (count + 10))
        times = []
        for start in range(0, len(speech) - size, size):
            began = time.perf_counter()
            stream.push(speech[start : start + size], SAMPLE_RATE)
            times.append(time.perf_counter() - began)
        row = {"latency": latency, "chunk": size / SAMPLE_RATE, **percentiles(times[10:])}
        row["state"] = len(stream.state())
        rows.append(row)
        figures = " | ".join(f"{1000 * row[name]:.1f}" for name in ("chunk", "p50", "p95", "p99"))
        print(f"| {latency:g} s | {figures} | {row['state'] / 1e6:.2f} |")
    return rows


def sessions(
    tokenizer: spintok.Tokenizer,
    utterances: Sequence[Utterance],
    latency: float,
    numbers: Sequence[int],
    workers: int | None,
    rounds: int,
) -> list[dict[str, float]]:
    """The time to push a chunk to all streams of a pool, and the memory of a stream."""
    rows = []
    print(f"\n{latency:g} s\n\n| streams | push to all p50, ms | p95 | p99 | in real time | MB a stream |")
    print("|---|---|---|---|---|---|")
    for number in numbers:
        before = resident()
        with tokenizer.stream_pool(number, latency, workers=workers) as pool:
            streams = [pool.open() for _ in range(number)]
            size = pool.engine.policy.chunk * tokenizer.frame_size
            speech = gather(utterances, size * (rounds // max(1, number // 10) + 10) + number * 1000)
            times = []
            for start in range(0, len(speech) - size - number * 1000, size):
                pieces = {s: speech[start + 1000 * i :][:size] for i, s in enumerate(streams)}
                began = time.perf_counter()
                pool.push(pieces, SAMPLE_RATE)
                times.append(time.perf_counter() - began)
            memory = (resident() - before) / number
        row = {"streams": number, "chunk": size / SAMPLE_RATE, "memory": memory, **percentiles(times[5:])}
        rows.append(row)
        figures = " | ".join(f"{1000 * row[name]:.1f}" for name in ("p50", "p95", "p99"))
        print(f"| {number} | {figures} | {'yes' if row['p99'] < row['chunk'] else 'no'} | {memory / 1e6:.2f} |")
    return rows


def resident() -> int:
    """Bytes of memory that this process holds (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    return {f"p{share}": float(np.percentile(times, share)) for share in (50, 95, 99)}


def gather(utterances: Sequence[Utterance], samples: int) -> np.ndarray:
    """So many samples of speech: the utterances end to end, again and again."""
    parts: list[np.ndarray] = []
    total = 0
    while total < samples:
        for utterance in utterances:
            parts.append(read(utterance.path).numpy())
            total += len(parts[-1])
            if total >= samples:
                break
    return np.concatenate(parts)[:samples]


def plot(name: str, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Agreement, and PNMI if there is one, over the latency."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    timed = [row for row in rows if row["latency"] is not None]
    figure, axis = pyplot.subplots(figsize=(6, 3.5))
    axis.semilogx([row["latency"] for row in timed], [row["agreement"] for row in timed], "o-", label="agreement")
    if "pnmi" in rows[0]:
        axis.semilogx([row["latency"] for row in timed], [row["pnmi"] for row in timed], "s-", label="PNMI")
        axis.axhline(rows[0]["pnmi"], color="C1", linestyle=":", label="PNMI, whole recordings")
    axis.set(xlabel="latency, s", title=name, ylim=(0, 1))
    axis.set_xticks([row["latency"] for row in timed], [f"{row['latency']:g}" for row in timed])
    axis.minorticks_off()
    axis.legend()
    figure.savefig(path, bbox_inches="tight")


if __name__ == "__main__":
    main()
