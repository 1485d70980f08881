"""Decoding: seconds of speech in a second, whole and as a stream, beside pyworld's synthesis of the same parameters.

    spintok bench decode SPEECH [--decoder dc-spin-10m-en-500-kathleen] [--tokenizer dc-spin-10m-en] [--rounds 5]

SPEECH is a recording, a folder or a manifest, whose tokens are decoded. Each round takes all ways in turn; the time of
a way is the minimum over the rounds. Decoding contains the network and the synthesis, which also have lines of their
own. Streams must give the samples of the whole up to rounding.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import spintok
from spintok.data.manifest import scan
from spintok.decoder import Decoder, load_decoder
from spintok.decoder.acoustics import (
    APERIODICITY,
    CEPSTRUM,
    LOG_F0,
    STEP,
    VOICING,
    aperiodicity_basis,
    envelope_basis,
)
from spintok.decoder.synthesis import synthesize
from spintok.frames import SAMPLE_RATE, num_samples

PIECES = (4, 25)
"""Frames pushed at once into a stream."""
TOLERANCE = 1e-4
"""The largest difference, as a share of full scale, that rounding may make between a stream and the whole."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--decoder", default="dc-spin-10m-en-500-kathleen")
    parser.add_argument("--tokenizer", default="dc-spin-10m-en")
    parser.add_argument("--limit", type=int, default=20, help="recordings to take")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    decoder, tokenizer = load_decoder(options.decoder), spintok.load(options.tokenizer)
    decoder.check(tokenizer.fingerprint, decoder.source.codebook)
    paths = [utterance.path for utterance in scan(options.speech)[: options.limit]]
    codes = [tokenizer.encode(path, codebook=decoder.source.codebook).codes.copy() for path in paths]
    codes = [one for one in codes if len(one)]
    parameters = [parameters_of(decoder, one) for one in codes]
    lengths = [num_samples(len(one), decoder.source.grid) for one in codes]
    ways: dict[str, Callable[[int], object]] = {
        "decode": lambda i: decoder.decode(codes[i]),
        **{f"stream, {frames} frames at once": streaming(decoder, codes, frames) for frames in PIECES},
        "the network": lambda i: parameters_of(decoder, codes[i]),
        "the synthesis": lambda i: synthesize(parameters[i], lengths[i]),
        "encode": lambda i: tokenizer.encode(paths[i], codebook=decoder.source.codebook),
    }
    for frames in PIECES:
        check(decoder, codes, ways[f"stream, {frames} frames at once"])
    if (world := pyworld_synthesis(parameters)) is not None:
        ways["pyworld's synthesis"] = world
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(options.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            for i in range(len(codes)):
                way(i)
            best[name] = min(best[name], time.perf_counter() - started)
    seconds = sum(lengths) / SAMPLE_RATE
    print(f"{decoder.name}: {len(codes)} recordings, {seconds:.1f} s, {torch.get_num_threads()} threads\n")
    print(f"{'':28}{'times real time':>16}{'of the time of decode':>23}")
    for name, spent in best.items():
        print(f"{name:28}{seconds / spent:16.1f}{spent / best['decode']:23.2f}")


@torch.inference_mode()
def parameters_of(decoder: Decoder, codes: np.ndarray) -> Tensor:
    """The acoustic parameters of codes (T,), in the decoder's first voice."""
    network = decoder.network
    return network.parameters_of(network(torch.from_numpy(codes).long()[None], torch.zeros(1, dtype=torch.long)))


def streaming(decoder: Decoder, codes: Sequence[np.ndarray], frames: int) -> Callable[[int], Tensor]:
    """Decode a recording by its number, ``frames`` codes at once."""

    def way(i: int) -> Tensor:
        stream = decoder.stream()
        pieces = [stream.push(codes[i][first : first + frames]) for first in range(0, len(codes[i]), frames)]
        return torch.cat([*pieces, stream.close()])

    return way


def check(decoder: Decoder, codes: Sequence[np.ndarray], way: Callable[[int], object]) -> None:
    """Stop unless a stream gives the samples of the whole."""
    for i, one in enumerate(codes):
        whole, found = decoder.decode(one), way(i)
        assert isinstance(found, Tensor)
        if found.shape != whole.shape or not (found - whole).abs().max() <= TOLERANCE:
            raise SystemExit("no figures: a stream differs from the whole")


def pyworld_synthesis(parameters: Sequence[Tensor]) -> Callable[[int], object] | None:
    """pyworld's synthesis from the same parameters, by the number of the recording; None if it is not installed."""
    try:
        import pyworld
    except ImportError:
        return None
    inputs = []
    low, rise = aperiodicity_basis()
    for one in parameters:
        f0 = torch.where(one[:, VOICING] > 0.5, one[:, LOG_F0].exp(), 0).double().numpy()
        power = (2 * (one[:, :CEPSTRUM] @ envelope_basis().real)).exp().double().numpy()
        decibels = low + one[:, APERIODICITY, None].clamp(-60, 0) * rise
        inputs.append((f0, power, (10 ** (decibels / 20)).double().numpy()))
    return lambda i: pyworld.synthesize(*inputs[i], SAMPLE_RATE, 1000 * STEP / SAMPLE_RATE)


if __name__ == "__main__":
    main()
