"""How far a long recording's tokens, encoded in windows, agree with those of one full pass.

    python -m benchmarks.windows TOKENIZER SPEECH --minutes 4

Files of SPEECH are put end to end into one recording. Statistics of the whole recording are used in every window, so
the convolutions are the same and only attention sees less. The first row of the table is the tokenizer's own window.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import spintok
from spintok.chunking import Window
from spintok.data.audio import Recording, read
from spintok.data.manifest import scan
from spintok.frames import SAMPLE_RATE

WINDOWS = (Window(1000, 250), Window(1000, 100), Window(1000, 0), Window(500, 250), Window(500, 125), Window(500, 50))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("speech", type=Path)
    parser.add_argument("--minutes", type=float, default=4.0)
    options = parser.parse_args(arguments)
    waveform = gather(options.speech, int(options.minutes * 60 * SAMPLE_RATE))
    tokenizer = spintok.load(options.tokenizer)
    windows = dict.fromkeys([tokenizer.window, *WINDOWS])
    full = encode(tokenizer, waveform, Window(len(waveform), 0))
    print(f"{tokenizer.name}, {len(waveform) / SAMPLE_RATE / 60:.1f} minutes of speech")
    print("| frames kept | context | frames | codes equal to one full pass's |")
    print("|---|---|---|---|")
    for window in windows:
        codes = encode(tokenizer, waveform, window)
        assert len(codes) == len(full)
        print(f"| {window.keep} | {window.context} | {len(codes)} | {(codes == full).double().mean():.2%} |")


def gather(speech: Path, samples: int) -> torch.Tensor:
    """The first ``samples`` samples of the files of a folder or manifest, end to end."""
    parts: list[torch.Tensor] = []
    for utterance in scan(speech):
        parts.append(read(utterance.path))
        if sum(map(len, parts)) >= samples:
            break
    return torch.cat(parts)[:samples]


def encode(tokenizer: spintok.Tokenizer, waveform: torch.Tensor, window: Window) -> torch.Tensor:
    tokenizer.window = window
    held = waveform if len(waveform) <= window.samples() else None
    (found,) = tokenizer.encode_recordings([Recording(held, lambda: iter([waveform]))], tokenizer.codebook_names[:1])
    return torch.from_numpy(found[tokenizer.codebook_names[0]].codes.copy())


if __name__ == "__main__":
    main()
