"""Praat in a child process that can be killed if it hangs; started by ``spintok.augment.praat``.

It reads requests from standard input and writes answers to standard output until the input ends. Both have a header and
float32 samples. The header of a request is (samples, formant ratio, median ratio, range ratio); that of an answer is
the number of samples or, after an error, minus the length of the message that follows.
"""

import struct
import sys
from typing import Any, BinaryIO, TypeAlias

import numpy as np

__all__ = ["ANSWER", "REQUEST", "change_gender", "serve"]

REQUEST = struct.Struct("<qddd")
ANSWER = struct.Struct("<q")
SAMPLE_RATE = 16_000
FLOOR, CEILING = 60.0, 600.0  # hertz, of the first pass, before the speaker's range is known
LOWEST = 40.0  # hertz, of the new pitch

Samples: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def change_gender(samples: Samples, formant: float, median: float, spread: float) -> Samples:
    """Praat's "Change gender" with the pitch range estimated from the file; the input if nothing is voiced.

    Praat can loop forever if the new pitch reaches zero. The range ratio is therefore lowered until the lowest new
    pitch is ``LOWEST``, or half the new median if the new median is below twice ``LOWEST``.
    """
    import parselmouth
    from parselmouth.praat import call, run

    # Praat needs three periods of the lowest pitch.
    if len(samples) < 3 * SAMPLE_RATE / FLOOR:
        return samples
    sound = parselmouth.Sound(samples, SAMPLE_RATE)
    wide = sound.to_pitch(pitch_floor=FLOOR, pitch_ceiling=CEILING).selected_array["frequency"]
    if not (wide > 0).any():
        return samples
    low, high = np.quantile(wide[wide > 0], [0.25, 0.75])
    floor = max(0.75 * low, 3.5 * SAMPLE_RATE / len(samples))
    pitch = sound.to_pitch(pitch_floor=floor, pitch_ceiling=max(1.5 * high, 2 * floor))
    track = pitch.selected_array["frequency"]
    if not (track > 0).any():
        return samples
    old_median = float(np.median(track[track > 0]))
    new_median = median * old_median
    depth = new_median - median * float(track[track > 0].min())
    room = new_median - min(LOWEST, new_median / 2)
    if depth * spread > room:
        spread = room / depth
    # Praat fills unvoiced parts at random; with a seed, the result depends on the arguments only.
    run("random_initializeWithSeedUnsafelyButPredictably (1)")
    changed = call([sound, pitch], "Change gender", formant, new_median, spread, 1.0).values[0]
    fitted = np.zeros_like(samples)
    fitted[: len(changed)] = changed[: len(samples)]
    return fitted


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the input ends."""
    while header := requests.read(REQUEST.size):
        count, formant, median, spread = REQUEST.unpack(header)
        samples = np.frombuffer(requests.read(4 * count), dtype="<f4").astype(np.float64)
        try:
            changed = change_gender(samples, formant, median, spread)
        except Exception as error:
            message = str(error).encode()
            answers.write(ANSWER.pack(-len(message)) + message)
        else:
            answers.write(ANSWER.pack(count) + changed.astype("<f4").tobytes())
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
