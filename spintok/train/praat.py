"""Speaker perturbation with Praat: the yardstick of ``spintok.train.perturb``, with the same contract.

Praat's "Change gender" moves formants and pitch; the equalizer is ours. Praat runs in a process of its own because
on rare input it never returns: then the process is ended and ``TimeoutError`` raised. praat-parselmouth is GPL-3
and an optional extra.
"""

import importlib.util
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from spintok.train.equalizer import equalize
from spintok.train.perturb import Perturbation, check_batch
from spintok.train.praat_child import ANSWER, REQUEST

__all__ = ["Praat"]


class Praat:
    """A running Praat; use it as a context manager, or ``close`` it."""

    def __init__(self, timeout: float = 60.0) -> None:
        """``timeout``: seconds that Praat may take for one utterance. ``ValueError`` without praat-parselmouth."""
        if importlib.util.find_spec("parselmouth") is None:
            raise ValueError("perturbation with Praat needs praat-parselmouth: pip install 'spintok[praat]'")
        self._timeout = timeout
        self._child: subprocess.Popen[bytes] | None = None

    def perturb(self, waveforms: Tensor, lengths: Tensor, parameters: Sequence[Perturbation]) -> Tensor:
        """As ``spintok.train.perturb.perturb``, on the CPU. An utterance without voice is only equalized.

        ``TimeoutError`` when Praat does not return in time, ``ValueError`` with Praat's words when it refuses.
        """
        check_batch(waveforms, lengths, len(parameters))
        moved = torch.zeros_like(waveforms)
        for row, parameter in enumerate(parameters):
            length = int(lengths[row])
            samples = waveforms[row, :length].numpy()
            moved[row, :length] = torch.from_numpy(self._change_gender(samples, parameter))
        if moved.numel() == 0:
            return moved
        gains = torch.tensor([parameter.gains for parameter in parameters])
        qs = torch.tensor([parameter.qs for parameter in parameters])
        valid = torch.arange(waveforms.shape[1]) < lengths[:, None]
        return equalize(moved, gains, qs).clamp_(-1.0, 1.0).masked_fill_(~valid, 0.0)

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def __enter__(self) -> "Praat":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _change_gender(
        self, samples: "np.ndarray[tuple[int], np.dtype[np.float32]]", parameter: Perturbation
    ) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
        if self._child is None:
            command = [sys.executable, "-m", "spintok.train.praat_child"]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child = self._child
        assert child.stdin is not None
        header = REQUEST.pack(len(samples), parameter.formant, parameter.median, parameter.spread)
        child.stdin.write(header + samples.astype("<f4").tobytes())
        child.stdin.flush()
        deadline = time.monotonic() + self._timeout
        count = ANSWER.unpack(self._read(ANSWER.size, deadline, len(samples)))[0]
        if count < 0:
            raise ValueError(f"Praat refused an utterance: {self._read(-count, deadline, len(samples)).decode()}")
        return np.frombuffer(self._read(4 * count, deadline, len(samples)), dtype="<f4")

    def _read(self, size: int, deadline: float, samples: int) -> bytearray:
        assert self._child is not None
        stream = self._child.stdout
        assert stream is not None
        received = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while len(received) < size:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.close()
                    raise TimeoutError(
                        f"Praat did not return within {self._timeout:g} s from {samples} samples; "
                        "leave this utterance out or use the built-in perturbation"
                    )
                part = stream.read1(size - len(received))  # type: ignore[attr-defined]
                if not part:
                    self.close()
                    raise RuntimeError("the Praat process ended; its last words are above")
                received += part
        return received
