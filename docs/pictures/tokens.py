"""Draw docs/pictures/tokens.svg: a recording, the encoder, the codebook, and the tokens that the default gives.

    python docs/pictures/tokens.py

The waveform and the tokens are those of the sample recording; a test draws the picture again and compares.
"""

from pathlib import Path

import soundfile

import spintok

ROOT = Path(__file__).resolve().parents[2]
SPEECH = ROOT / "tests/speech/fred_yes.flac"
PICTURE = Path(__file__).with_suffix(".svg")

FRAME = 20
"""Pixels of one frame of 20 ms."""
LEFT, RIGHT, HEIGHT = 136, 12, 346
BAR = 2
"""Pixels of one bar of the waveform."""

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .small { font-size: 11px; fill: #57606a; }
  .code { font: 600 12px ui-monospace, monospace; fill: #ffffff; }
  .wave { fill: #0969da; }
  .vector { fill: #8250df; }
  .box { fill: none; stroke: #57606a; }
  .word { fill: #57606a; }
  .arrow { stroke: #57606a; fill: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small, .word { fill: #9198a1; }
    .wave { fill: #4493f8; }
    .vector { fill: #ab7df8; }
    .box, .arrow { stroke: #9198a1; }
  }
"""
TOKEN_COLOURS = ("#0550ae", "#116329", "#953800", "#6639ba", "#a40e26")
"""Backgrounds of tokens: white numbers are readable on each."""


def draw() -> str:
    """The picture as SVG text."""
    samples, rate = soundfile.read(SPEECH, dtype="int16")
    tokens = spintok.load().encode(SPEECH)
    width = LEFT + FRAME * tokens.num_frames + RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" role="img" '
        'aria-label="A waveform goes through an encoder and a codebook and becomes tokens with durations">',
        f"<style>{STYLE}</style>",
        *_label(52, "waveform", f"{rate // 1000} kHz"),
        *_wave(samples.tolist(), rate, middle=56, height=48),
        *_arrow(116),
        *_label(150, "encoder", "a vector each 20 ms"),
        *_vectors(tokens.num_frames, top=136),
        *_arrow(192),
        *_label(228, "codebook", f"the nearest of {tokens.codebook_size}"),
        *_codebook(width, top=212),
        *_arrow(268),
        *_label(302, "tokens", "a code and its frames"),
        *_tokens(tokens.units.tolist(), tokens.durations.tolist(), top=290),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _label(y: int, name: str, detail: str) -> list[str]:
    return [f'<text x="8" y="{y}">{name}</text>', f'<text class="small" x="8" y="{y + 16}">{detail}</text>']


def _wave(samples: list[int], rate: int, *, middle: int, height: int) -> list[str]:
    """A bar from the lowest to the highest sample of each ``BAR`` pixels."""
    step = rate * BAR // (50 * FRAME)
    peak = max(map(abs, samples))
    bars = []
    for i, start in enumerate(range(0, len(samples) - step, step)):
        part = samples[start : start + step]
        top, bottom = (middle - height * value // peak for value in (max(part), min(part)))
        bars.append(f"M{LEFT + i * BAR} {top}h{BAR - 1}V{bottom + 1}h-{BAR - 1}z")
    return [f'<path class="wave" d="{"".join(bars)}"/>']


def _vectors(frames: int, *, top: int) -> list[str]:
    cells = "".join(f"M{LEFT + i * FRAME + 4} {top + row * 7}h12v5h-12z" for i in range(frames) for row in range(5))
    return [f'<path class="vector" d="{cells}"/>']


def _codebook(width: int, *, top: int) -> list[str]:
    inner = width - LEFT - RIGHT
    dots = "".join(
        f'<circle class="word" cx="{LEFT + 12 + i * (inner - 24) // 49}" cy="{top + 8 + row * 14}" r="2.5"/>'
        for row in range(2)
        for i in range(50)
    )
    return [f'<rect class="box" x="{LEFT}" y="{top}" width="{inner}" height="30" rx="6"/>', dots]


def _tokens(units: list[int], durations: list[int], *, top: int) -> list[str]:
    parts, at = [], 0
    for unit, duration in zip(units, durations, strict=True):
        x, wide = LEFT + at * FRAME, duration * FRAME
        colour = TOKEN_COLOURS[unit % len(TOKEN_COLOURS)]
        middle = x + wide // 2
        parts += [
            f'<rect x="{x + 1}" y="{top}" width="{wide - 2}" height="30" rx="4" fill="{colour}"/>',
            f'<text class="code" x="{middle}" y="{top + 19}" text-anchor="middle">{unit}</text>',
            f'<text class="small" x="{middle}" y="{top + 46}" text-anchor="middle">{duration}</text>',
        ]
        at += duration
    return parts


def _arrow(y: int) -> list[str]:
    return [f'<path class="arrow" d="M60 {y - 10}v14m-5 -5l5 5l5 -5"/>']


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
