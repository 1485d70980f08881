"""Streams for long: random cuttings in random company, a long recording, and hours whose memory does not grow.

    PYTHONPATH=.:tests python -m tests.streaming.endurance --cuttings 10000
    PYTHONPATH=.:tests python -m tests.streaming.endurance --recording-hours 2 --tokenizer dc-spin-10m-en
    PYTHONPATH=.:tests python -m tests.streaming.endurance --hours 24

Without --tokenizer a small random encoder streams. Exits with 1 when a code differs, or memory or state grow.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch

import spintok
from spintok.data.audio import Recording, as_streams
from spintok.streaming.stream import Stream
from spintok.streaming.tokens import StreamTokens, merge
from spintok.tokenizer import Tokenizer
from tests.streaming.streamers import speech, tokenizer

RATES = (16_000, 16_000, 8_000, 22_050, 44_100, 48_000)
# Samples of speech that is played again and again.
LOOP = 160_000
# Bytes by which the allocator may let the process grow after its first hour.
SLACK = 16 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a name or folder")
    parser.add_argument("--cuttings", type=int, default=0)
    parser.add_argument("--recording-hours", type=float, default=0)
    parser.add_argument("--hours", type=float, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    own = spintok.load(options.tokenizer) if options.tokenizer else tokenizer("streaming")
    rng = np.random.default_rng(options.seed)
    wrong = 0
    if options.cuttings:
        wrong += cuttings(own, options.cuttings, rng)
    if options.recording_hours:
        wrong += recording(own, options.recording_hours, rng)
    if options.hours:
        wrong += endurance(own, options.hours)
    return int(wrong > 0)


def cuttings(own: Tokenizer, number: int, rng: np.random.Generator) -> int:
    """Streams in a pool, cut at random and moved now and then, against ``encode``: the codes that differ."""
    differ = codes = done = 0
    began = time.monotonic()
    while done < number:
        latency, rate = rng.choice([2, 4, 8, 16]) / 50, int(rng.choice(RATES))
        count = min(int(rng.integers(1, 6)), number - done)
        audio = [speech(int(rng.integers(0, 2 * rate)), int(rng.integers(1 << 30))) for _ in range(count)]
        with own.stream_pool(count, latency, workers=int(rng.integers(1, 3))) as pool:
            streams = [pool.open() for _ in audio]
            parts: list[list[StreamTokens]] = [[] for _ in audio]
            places = [0] * count
            while any(place < len(samples) for place, samples in zip(places, audio, strict=True)):
                pieces: dict[Stream, np.ndarray] = {}
                for i in np.flatnonzero(rng.random(count) < 0.7):
                    size = int(rng.choice([1, 7, 160, 1_000, 20_000]))
                    pieces[streams[i]] = audio[i][places[i] : places[i] + size]
                    places[i] += size
                for stream, tokens in pool.push(pieces, rate).items():
                    parts[streams.index(stream)].append(tokens)
                if rng.random() < 0.05:
                    i = int(rng.integers(count))
                    state = streams[i].state()
                    pool.remove(streams[i])
                    streams[i] = pool.open(state)
            for i, stream in enumerate(streams):
                parts[i].append(pool.close(stream))
        for samples, found in zip(audio, parts, strict=True):
            whole = own.encode(samples, rate, latency=latency).codes
            got = merge(found).codes
            codes += len(whole)
            differ += int((got != whole).sum()) if len(got) == len(whole) else len(whole)
        done += count
        if done % 1_000 < count:
            print(f"{done:,} cuttings, {differ} codes differ", flush=True)
    print(f"{done:,} random cuttings, {codes:,} codes, {differ} differ, {time.monotonic() - began:.0f} s", flush=True)
    return differ


def recording(own: Tokenizer, hours: float, rng: np.random.Generator) -> int:
    """One long recording at 48 kHz, cut at random, against ``encode_recordings``."""
    loop = speech(LOOP)
    total = int(hours * 3600 * 48_000)
    pieces = [np.resize(loop, size) for size in rng.integers(1, 500_000, size=total // 250_000 + 1)]
    at = own.at(0.32)
    blocks = Recording(None, lambda: as_streams(map(torch.from_numpy, pieces), 48_000))
    name = at.codebook_names[0]
    whole = at.encode_recordings([blocks], [name])[0][name].codes
    stream = own.stream(0.32)
    codes = []
    for piece in pieces:
        parts = np.array_split(piece, int(rng.integers(1, 30)))
        codes += [stream.push(part, 48_000).codes for part in parts]
    codes.append(stream.close().codes)
    got = np.concatenate(codes)
    differ = int((got != whole).sum()) if len(got) == len(whole) else len(whole)
    print(f"a recording of {len(whole) / 50 / 3600:.2f} h, {len(whole):,} codes, {differ} differ", flush=True)
    return differ


def endurance(own: Tokenizer, hours: float) -> int:
    """A stream of hours at full speed: whether its state, or the process after a tenth of the time, grows."""
    loop = speech(LOOP)
    stream = own.stream(0.64)
    sizes, resident = set(), []
    pushes = int(hours * 3600 * 16_000 / LOOP)
    began = time.monotonic()
    for push in range(pushes):
        stream.push(loop, 16_000)
        if push % max(1, pushes // 20) == 0:
            sizes.add(len(stream.state()))
            resident.append(_resident())
            print(f"{push * LOOP / 16_000 / 3600:.1f} h: {resident[-1] / 1e6:.0f} MB", flush=True)
    grown = max(resident[3:], default=0) - resident[min(2, len(resident) - 1)]
    print(
        f"{hours:g} h in {time.monotonic() - began:.0f} s, {stream.num_frames:,} frames, state of {sizes} bytes, "
        f"memory grew by {grown / 1e6:.1f} MB after the first tenth"
    )
    return int(len(sizes) > 1) + int(grown > SLACK)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    raise SystemExit(main())
