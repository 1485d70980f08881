"""Analysis of speech with WORLD (Morise, Yokomori, Ozawa 2016): the acoustic parameters that a decoder learns."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spintok._files import require
from spintok.decoder.acoustics import APERIODICITY, CEPSTRUM, FFT, LOG_F0, PARAMETERS, STEP, VOICING, cepstrum_of
from spintok.frames import SAMPLE_RATE

__all__ = ["analyze", "load_world"]

_PERIOD = 1000 * STEP / SAMPLE_RATE  # milliseconds
_SILENCE = 1e-16
"""Below every value of a spectrum of 16-bit audio; the logarithm of digital silence is finite."""
_UNKNOWN_F0 = 150.0
"""Hz, of a recording without voiced speech."""


def load_world() -> Any:
    """The library. Raises ``MissingPackageError``."""
    with warnings.catch_warnings():
        # It imports pkg_resources, which tells every user that its own days are numbered.
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")
        return require("pyworld", extra="decoder", purpose="training a decoder")


def analyze(waveform: Tensor, vectors: int) -> NDArray[np.float32]:
    """The acoustic parameters (vectors, PARAMETERS) of a waveform (S,) at 16 kHz; see ``spintok.decoder.acoustics``.

    F0 by DIO and StoneMask, the envelope by CheapTrick, the aperiodicity by D4C. Vector ``i`` lies at sample
    ``STEP * (i + 1)``; beyond the end of the waveform the last one is repeated.
    """
    world = load_world()
    samples = waveform.double().numpy()
    f0, times = world.dio(samples, SAMPLE_RATE, frame_period=_PERIOD)
    f0 = world.stonemask(samples, f0, times, SAMPLE_RATE)
    power = world.cheaptrick(samples, f0, times, SAMPLE_RATE, fft_size=FFT)
    aperiodicity = world.d4c(samples, f0, times, SAMPLE_RATE, fft_size=FFT)
    found = np.empty((len(f0), PARAMETERS))
    found[:, :CEPSTRUM] = cepstrum_of(np.log(np.maximum(power, _SILENCE)) / 2)
    voiced = np.flatnonzero(f0)
    known = np.log(f0[voiced]) if len(voiced) else np.log([_UNKNOWN_F0])
    found[:, LOG_F0] = np.interp(np.arange(len(f0)), voiced if len(voiced) else [0], known)
    found[:, VOICING] = f0 > 0
    found[:, APERIODICITY] = world.code_aperiodicity(aperiodicity, SAMPLE_RATE)[:, 0]
    return found[np.minimum(np.arange(1, vectors + 1), len(f0) - 1)].astype(np.float32)
