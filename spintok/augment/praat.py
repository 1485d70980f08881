"""Speaker perturbation with Praat, with the interface of ``spintok.augment.speaker``, for comparison.

Praat's "Change gender" changes formants and pitch; the equalizer is that of ``spintok_kernels``. On rare input Praat
never returns, so it runs in a child process, which is killed on a timeout. praat-parselmouth is GPL-3 and therefore an
optional extra.
"""

import contextlib
import importlib.util
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType

import numpy as np
import torch
from spintok_kernels.perturb import equalize
from torch import Tensor

from spintok.augment.praat_child import ANSWER, REQUEST
from spintok.augment.speaker import Perturbation, check_batch

__all__ = ["Praat"]

COMMAND = (sys.executable, "-m", "spintok.augment.praat_child")


class Praat:
    """A running Praat; use it as a context manager, or ``close`` it."""

    def __init__(self, timeout: float = 60.0) -> None:
        """``timeout`` is in seconds for one utterance. Raises ``ValueError`` if praat-parselmouth is not installed."""
        if importlib.util.find_spec("parselmouth") is None:
            raise ValueError("perturbation with Praat needs praat-parselmouth: pip install 'spintok[praat]'")
        self._timeout = timeout
        self._child: subprocess.Popen[bytes] | None = None

    def perturb(self, waveforms: Tensor, lengths: Tensor, parameters: Sequence[Perturbation]) -> Tensor:
        """Compute ``spintok.augment.speaker.perturb`` on the CPU; an utterance without voice is only equalized.

        Raises ``TimeoutError`` if Praat does not return in time and ``ValueError`` with Praat's message if it fails.
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
        return equalize(moved, gains, qs, lengths).clamp_(-1.0, 1.0)

    def close(self) -> None:
        """End Praat's process; the next ``perturb`` starts another."""
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
            self._child = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child = self._child
        assert child.stdin is not None
        header = REQUEST.pack(len(samples), parameter.formant, parameter.median, parameter.spread)
        # If the child has died, reading fails below, after its error message on standard error.
        with contextlib.suppress(BrokenPipeError):
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
                    raise RuntimeError("the Praat process ended; its error message is above")
                received += part
        return received
