"""Where speech starts and ends in a stream: the turns of a speaker, by Silero's voice activity detector."""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok.frames import SAMPLE_RATE

__all__ = ["TurnDetector", "TurnEvent", "TurnSettings"]

WINDOW = 512
"""Samples that the detector judges at once: 32 ms at 16 kHz."""

CONTEXT = 64
"""Samples before the window that the detector reads as well."""


class TurnEvent(NamedTuple):
    """A turn begins or ends.

    Attributes:
        kind: "speech_start" or "speech_end".
        seconds: where in the stream: the start of the turn, pre-roll included, or the end of its last speech.
        found: where the stream was when this became known; the difference is the delay of the decision.
    """

    kind: Literal["speech_start", "speech_end"]
    seconds: float
    found: float


@dataclass(frozen=True)
class TurnSettings:
    """When a turn opens and closes.

    Attributes:
        threshold: probability of speech from which on a window is speech.
        release: probability below which it is silence again; between the two, what was before goes on.
        min_speech: seconds of speech in a row that open a turn, so that a click does not.
        min_silence: seconds of silence in a row that close it.
        pre_roll: seconds before the first speech that belong to the turn.

    Raises:
        ValueError: a probability is outside 0 ... 1, ``release`` is above ``threshold``, or a time is negative.
    """

    threshold: float = 0.5
    release: float = 0.35
    min_speech: float = 0.096
    min_silence: float = 0.48
    pre_roll: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.release <= self.threshold <= 1:
            raise ValueError(
                f"turns: release and threshold must be 0 <= release <= threshold <= 1, got {self.release} "
                f"and {self.threshold}"
            )
        for name in ("min_speech", "min_silence", "pre_roll"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"turns: {name} must be a time of 0 s or more, got {getattr(self, name)}")


class TurnDetector:
    """Turns of one stream of speech at 16 kHz. Any cutting of the samples into pushes gives the same events.

    Args:
        settings: when a turn opens and closes.

    Raises:
        ImportError: silero-vad or onnxruntime is not installed.
    """

    def __init__(self, settings: TurnSettings | None = None) -> None:
        self.settings = settings or TurnSettings()
        self._session = _session()
        self._memory = np.zeros((2, 1, 128), np.float32)
        self._context = np.zeros(CONTEXT, np.float32)
        self._rest = np.zeros(0, np.float32)
        self._windows = 0
        self._speaking = False
        # The window in which the present run of speech (before a turn) or of silence (in one) began.
        self._since: int | None = None
        self._last_end = 0.0

    @property
    def speaking(self) -> bool:
        """Whether a turn is open."""
        return self._speaking

    def push(self, samples: ArrayLike) -> list[TurnEvent]:
        """The events that become known with these samples, (S,) floats at 16 kHz."""
        self._rest = np.concatenate([self._rest, np.asarray(samples, np.float32)])
        events = []
        while len(self._rest) >= WINDOW:
            window, self._rest = self._rest[:WINDOW], self._rest[WINDOW:]
            event = self._step(self._probability(window))
            if event is not None:
                events.append(event)
        return events

    def close(self) -> list[TurnEvent]:
        """The end of the turn that is open: the stream ends, or somebody else decides that the turn does.

        Speech that goes on opens the next turn.
        """
        if not self._speaking:
            return []
        now = (self._windows * WINDOW + len(self._rest)) / SAMPLE_RATE
        self._last_end = now if self._since is None else _seconds(self._since)
        self._speaking, self._since = False, None
        return [TurnEvent("speech_end", self._last_end, now)]

    def state(self) -> dict[str, Any]:
        """All that a detector in another process needs to go on, as JSON values of a fixed size."""
        return {
            "memory": self._memory.ravel().tolist(),
            "context": self._context.tolist(),
            "rest": self._rest.tolist(),
            "windows": self._windows,
            "speaking": self._speaking,
            "since": self._since,
            "last_end": self._last_end,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``. Raises ``ValueError`` if it is none."""
        try:
            memory = np.asarray(state["memory"], np.float32).reshape(2, 1, 128)
            context, rest = (np.asarray(state[name], np.float32) for name in ("context", "rest"))
            windows, since, end = state["windows"], state["since"], float(state["last_end"])
            speaking = state["speaking"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a state of a turn detector: {error}") from None
        whole = isinstance(windows, int) and windows >= 0 and (since is None or 0 <= int(since) <= windows)
        if not whole or context.shape != (CONTEXT,) or rest.ndim != 1 or len(rest) >= WINDOW:
            raise ValueError("not a state of a turn detector: its parts do not fit each other")
        self._memory, self._context, self._rest = memory, context, rest
        self._windows, self._speaking, self._since, self._last_end = windows, bool(speaking), since, end

    def _probability(self, window: NDArray[np.float32]) -> float:
        inputs = {
            "input": np.concatenate([self._context, window])[None],
            "state": self._memory,
            "sr": np.array(SAMPLE_RATE, np.int64),
        }
        probability, self._memory = self._session.run(None, inputs)
        self._context = window[-CONTEXT:].copy()
        return float(probability[0, 0])

    def _step(self, probability: float) -> TurnEvent | None:
        """Judge the next window."""
        settings, index = self.settings, self._windows
        self._windows += 1
        changed = probability < settings.release if self._speaking else probability >= settings.threshold
        kept = probability >= settings.threshold if self._speaking else probability < settings.release
        if changed and self._since is None:
            self._since = index
        elif kept:
            self._since = None
        if self._since is None:
            return None
        lasted = _seconds(self._windows - self._since)
        if lasted < (settings.min_silence if self._speaking else settings.min_speech):
            return None
        at = _seconds(self._since)
        self._since = None
        self._speaking = not self._speaking
        if self._speaking:
            # A turn never reaches into the one before.
            return TurnEvent("speech_start", max(at - settings.pre_roll, self._last_end), _seconds(self._windows))
        self._last_end = at
        return TurnEvent("speech_end", at, _seconds(self._windows))


def _seconds(windows: int) -> float:
    return windows * WINDOW / SAMPLE_RATE


@cache
def _session() -> Any:
    """The detector's network, run by ONNX Runtime on one thread; it holds no state.

    The file is read from silero-vad's wheel without importing the package, whose import sets the number of torch's
    threads for the whole process.
    """
    found = importlib.util.find_spec("silero_vad")
    if found is None or not found.submodule_search_locations or importlib.util.find_spec("onnxruntime") is None:
        raise ImportError("turns need silero-vad and onnxruntime: pip install 'spintok[turns]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = Path(found.submodule_search_locations[0]) / "data" / "silero_vad.onnx"
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
