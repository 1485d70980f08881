"""The microphone as consecutive blocks of samples, through PortAudio (the package sounddevice)."""

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok._files import MissingPackageError, require
from spintok.data.audio import AudioError

__all__ = ["microphone_blocks"]

_BLOCK_SECONDS = 0.02


def microphone_blocks(rate: int, device: str | None = None) -> Iterator[NDArray[np.float32]]:
    """Blocks of 20 ms, (S,) float32, as they are recorded, until the caller stops.

    Args:
        rate: samples per second to record at.
        device: a number or part of a name in ``python -m sounddevice``; the system's default otherwise.

    Raises:
        MissingPackageError: sounddevice or PortAudio is not installed.
        AudioError: there is no such device, or it cannot record at this rate; or samples were lost.
    """
    try:
        sounddevice = require("sounddevice", extra="microphone", purpose="the microphone")
    except MissingPackageError as error:
        if "PortAudio" in str(error):
            raise MissingPackageError(
                "the microphone needs the library PortAudio, which pip does not install: on Debian and Ubuntu "
                "apt install libportaudio2"
            ) from None
        raise
    recorded: queue.SimpleQueue[NDArray[np.float32] | str] = queue.SimpleQueue()

    def take(block: NDArray[np.float32], frames: int, time: Any, status: Any) -> None:
        recorded.put(str(status) if status else block[:, 0].copy())

    chosen = int(device) if device is not None and device.isdecimal() else device
    try:
        stream = sounddevice.InputStream(
            samplerate=rate,
            blocksize=round(rate * _BLOCK_SECONDS),
            device=chosen,
            channels=1,
            dtype="float32",
            callback=take,
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"the microphone cannot be used: {error}; python -m sounddevice lists devices") from None
    with stream:
        while True:
            block = recorded.get()
            if isinstance(block, str):
                raise AudioError(f"the microphone lost samples: {block}")
            yield block
