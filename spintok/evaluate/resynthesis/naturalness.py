"""How natural speech sounds: DNSMOS of speechmos, which predicts the ratings of listeners from 1 to 5.

Reddy, Gopal and Cutler 2022, "DNSMOS P.835: a non-intrusive perceptual objective speech quality metric to evaluate
noise suppressors".
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.resynthesis.packages import load
from spintok.frames import SAMPLE_RATE

__all__ = ["Naturalness", "Quality"]


class Quality(NamedTuple):
    """Predicted mean opinion scores: of everything, of the speech, and of what is behind it."""

    overall: float
    signal: float
    background: float


class Naturalness:
    """DNSMOS P.835, on one thread, so that the sums have one order on every machine.

    Raises:
        MissingPackageError: speechmos or a package that it imports is not installed.
    """

    def __init__(self) -> None:
        purpose = "DNSMOS"
        for module in ("librosa", "requests"):
            load(module, purpose)
        runtime = load("onnxruntime", purpose)
        dnsmos = load("speechmos.dnsmos", purpose)
        models = Path(dnsmos.__file__).parent / "dnsmos_models"
        paths = [str(models / name) for name in ("sig_bak_ovr.onnx", "model_v8.onnx")]
        self._model = dnsmos.DNSMOS(*paths)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._model.onnx_sess, self._model.p808_onnx_sess = (
            runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in paths
        )

    def quality(self, waveform: NDArray[np.float32]) -> Quality:
        """The scores of a waveform (S,) at 16 kHz, S > 0; shorter ones are repeated to 9 s, and samples are clipped."""
        if not len(waveform):
            raise ValueError("DNSMOS needs at least one sample")
        found = self._model(np.clip(waveform, -1, 1), SAMPLE_RATE, False)
        return Quality(float(found["ovrl_mos"]), float(found["sig_mos"]), float(found["bak_mos"]))
