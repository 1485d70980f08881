"""Resampling to 16 kHz while audio arrives: the samples do not depend on how it is cut, and the state is small.

A windowed sinc in polyphase form: each output sample is a dot product of its own with the input samples around it, so
it is the same in any company. Files are otherwise resampled by soxr (``spintok.data.audio``), which is faster, but
works in blocks of FFTs and cannot be moved between processes. Source of the method: Crochiere and Rabiner 1983,
"Multirate Digital Signal Processing"; the window is Kaiser's.
"""

from functools import lru_cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

from spintok.frames import SAMPLE_RATE

__all__ = ["StreamResampler"]

# On either side of an output sample, in samples of the lower of both rates: 4 ms at 16 kHz.
_ZEROS = 64
# Up to 7.2 kHz nothing is lost, and from 8 kHz on 100 dB are taken away.
_CUTOFF = 0.95
_BETA = 10.0
# With more phases than this (44.1 kHz has 160), taps are interpolated between so many: the error is -118 dB.
_MOST_PHASES = 1024
# Output samples that are computed at once, which bounds memory.
_BLOCK = 2048


class StreamResampler:
    """Samples at ``rate`` to samples at 16 kHz: ``n`` of them give ``floor(n * 16000 / rate + 1/2)`` in the end.

    Attributes:
        received: input samples so far.
        sent: output samples so far.
        tail: the last input samples that further output needs, at most ``tail_size`` of them.
    """

    def __init__(self, rate: int) -> None:
        common = gcd(rate, SAMPLE_RATE)
        self.rate = rate
        self.up, self.down = SAMPLE_RATE // common, rate // common
        self.reach = -(-_ZEROS * max(rate, SAMPLE_RATE) // SAMPLE_RATE)
        self.tail_size = 2 * self.reach
        self.received = 0
        self.sent = 0
        self.tail = np.zeros(0, dtype=np.float32)

    @property
    def expected(self) -> int:
        """Output samples of the input so far once it has ended."""
        return (2 * self.received * SAMPLE_RATE + self.rate) // (2 * self.rate)

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Output samples (N,) float32 that ``samples`` (S,) float32 complete."""
        if self.rate == SAMPLE_RATE:
            self.received += len(samples)
            self.sent = self.received
            return samples
        heard = np.concatenate([self.tail, samples])
        first = self.received - len(self.tail)
        self.received += len(samples)
        # The last input sample of output n is at n * down // up + reach.
        last = max(0, self.received - self.reach)
        return self._send(heard, first, -(-last * self.up // self.down))

    def finish(self) -> NDArray[np.float32]:
        """The remaining output samples, after the last push. Zeros stand for what would have followed."""
        if self.rate == SAMPLE_RATE:
            return np.zeros(0, dtype=np.float32)
        heard = np.concatenate([self.tail, np.zeros(2 * self.reach + 1, dtype=np.float32)])
        return self._send(heard, self.received - len(self.tail), self.expected)

    def _send(self, heard: NDArray[np.float32], first: int, until: int) -> NDArray[np.float32]:
        """Output samples up to ``until`` from input samples ``heard``, the first of which has the index ``first``."""
        # Zeros stand for what came before the start.
        before = max(0, first - (self.sent * self.down // self.up - self.reach + 1))
        heard = np.concatenate([np.zeros(before, dtype=np.float32), heard])
        first -= before
        table, phases = _taps(self.rate)
        found = []
        while self.sent < until:
            places = np.arange(self.sent, min(until, self.sent + _BLOCK), dtype=np.int64) * self.down
            starts = places // self.up - self.reach + 1 - first
            windows = np.lib.stride_tricks.sliding_window_view(heard, 2 * self.reach)[starts].astype(np.float64)
            phase = places % self.up
            if phases == self.up:
                taps = table[phase]
            else:
                row, part = np.divmod(phase * phases, self.up)
                share = (part / self.up)[:, None]
                taps = table[row] * (1.0 - share) + table[row + 1] * share
            found.append(np.vecdot(windows, taps).astype(np.float32))
            self.sent += len(places)
        needed = self.sent * self.down // self.up - self.reach + 1 - first
        self.tail = heard[max(0, needed) :].copy()
        return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)


@lru_cache(maxsize=4)
def _taps(rate: int) -> tuple[NDArray[np.float64], int]:
    """The taps (phases + 1, 2 * reach) of output samples at fractions of an input sample, and the number of phases."""
    resampler = StreamResampler(rate)
    phases = min(resampler.up, _MOST_PHASES)
    reach = resampler.reach
    distance = np.arange(2 * reach)[None] - reach + 1 - np.arange(phases + 1)[:, None] / phases
    width = _CUTOFF * min(1.0, SAMPLE_RATE / rate)
    window = np.i0(_BETA * np.sqrt(np.clip(1.0 - (distance / reach) ** 2, 0.0, None))) / np.i0(_BETA)
    taps = width * np.sinc(width * distance) * window
    # Each phase passes a constant unchanged.
    return taps / taps.sum(1, keepdims=True), phases
