"""The computation that all streams of a tokenizer and a latency share: sessions in, codes of their next frames out.

A session is what one stream has heard. On a CPU sessions share compiled steps, in which each gets the bits that it
gets alone; where nothing is compiled each is computed alone. On a GPU all are computed in batches of a fixed number of
slots. So the codes of a session do not depend on the others, nor on when its samples came.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from spintok.featurizer import Featurizer
from spintok.frames import num_frames, num_samples
from spintok.models.base import FeatureExtractor
from spintok.models.codebook import Codebook
from spintok.models.encoder import Encoder
from spintok.models.precision import full_precision
from spintok.models.steps import EncoderSteps, StepState
from spintok.streaming.policy import Policy
from spintok.streaming.threads import one_thread
from spintok.streaming.windows import WindowSteps

__all__ = ["Engine", "Result", "Session", "is_streaming"]

# Sessions in a batch on a GPU. Its products then fill the machine, and idle slots cost little.
_GPU_SLOTS = 32
# Sessions that share a compiled step on a CPU: its products reach their speed, and what they write stays in the caches.
_CPU_SESSIONS = 16


class Result(NamedTuple):
    """The frames of a step that are final: codes (T,) of each codebook, and features (T, D) of the layers asked for."""

    codes: list[NDArray[np.int32]]
    features: list[Tensor]


def is_streaming(encoder: FeatureExtractor) -> bool:
    """Whether the encoder was trained to stream; others stream by windows."""
    return isinstance(encoder, Encoder) and encoder.config.streaming is not None


class Session:
    """What a stream has heard, and what of it has been encoded.

    Attributes:
        frames: final frames so far.
        samples: the number of samples at 16 kHz so far.
        ended: whether no more samples will come.
        state: the state of an encoder that streams; None for windows.
    """

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.frames = 0
        self.samples = 0
        self.ended = False
        self.state = None if engine.steps is None else engine.steps.start(1)
        # Samples from the first frame that is still needed, in pieces that are joined when a step is due.
        self._parts: list[NDArray[np.float32]] = []
        # Samples may come while a step is computed.
        self._lock = Lock()

    @property
    def history(self) -> int:
        """Frames before ``frames`` whose samples are kept."""
        return min(self.frames, self.engine.history)

    @property
    def waiting(self) -> NDArray[np.float32]:
        """The samples that are kept: of the history, and of frames that are not final yet."""
        with self._lock:
            return self._joined()

    def _joined(self) -> NDArray[np.float32]:
        if len(self._parts) != 1:
            self._parts = [np.concatenate([np.zeros(0, dtype=np.float32), *self._parts])]
        return self._parts[0]

    def add(self, samples: NDArray[np.float32]) -> None:
        """Take samples (S,) at 16 kHz."""
        with self._lock:
            if len(samples):
                self._parts.append(samples)
                self.samples += len(samples)

    def restore(self, frames: int, samples: int, waiting: NDArray[np.float32]) -> None:
        """Go on after so many frames and samples, of which ``waiting`` are kept."""
        self.frames, self.samples, self._parts = frames, samples, [waiting]

    @property
    def due(self) -> int:
        """Valid frames of the next step; 0 if it has to wait for samples, or there is nothing left."""
        heard = num_frames(self.samples, self.engine.grid) - self.frames
        frames = self.engine.policy.frames
        return min(heard, frames) if self.ended or heard >= frames else 0

    def advance(self, state: StepState | None, frames: int) -> None:
        """``frames`` more frames are final."""
        before = self.history
        self.state = state
        self.frames += frames
        with self._lock:
            # A copy, for a view would keep what is dropped.
            self._parts = [self._joined()[(before + frames - self.history) * self.engine.grid.hop :].copy()]


class Engine:
    """Steps of a tokenizer's encoder at one latency, and the codes from some codebooks.

    Args:
        featurizer: a tokenizer; its weights must not change while the engine is used.
        latency: the latency in seconds.
        codebooks: those whose codes are computed.
        fingerprint: gives that of the tokenizer at this latency, when it is first needed.

    Attributes:
        policy: chunk and look-ahead.
        slots: the most sessions that are computed together.
        history: frames before ``Session.frames`` whose samples are needed.

    Raises:
        ValueError: an impossible latency.
    """

    def __init__(
        self, featurizer: Featurizer, latency: float, codebooks: Sequence[Codebook], fingerprint: Callable[[], str]
    ) -> None:
        encoder = featurizer.encoder
        self.featurizer = featurizer
        self.codebooks = codebooks
        streams = is_streaming(encoder)
        self.policy = Policy.of(latency, featurizer.grid, looks_ahead=not streams)
        self.grid = featurizer.grid
        self.device = featurizer.device
        self._fingerprint = fingerprint
        self.steps: EncoderSteps | None = None
        self.slots = 1
        if isinstance(encoder, Encoder) and streams:
            self.steps = EncoderSteps(encoder, featurizer.layer, self.policy.chunk, self.policy.look)
            together = 1 if self.steps.compiled is None else _CPU_SESSIONS
            self.slots = together if self.device.type == "cpu" else _GPU_SLOTS
        self.windows = WindowSteps(encoder, self.policy)
        self.history = 0 if streams else self.windows.history
        with full_precision(self.device):
            self.prepared = [codebook.prepare() for codebook in self.codebooks]

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the tokenizer at this latency, for states that are moved."""
        return self._fingerprint()

    @property
    def most_waiting(self) -> int:
        """The largest number of samples that a session keeps between steps."""
        return (self.history + self.policy.frames) * self.grid.hop + self.grid.reach - 1

    @torch.inference_mode()
    def step(self, sessions: Sequence[Session], layers: Sequence[int] = ()) -> list[Result]:
        """One step of each session, all of which must be ``due``; at most ``slots`` of them."""
        guard = one_thread() if self.device.type == "cpu" else nullcontext()
        with guard, full_precision(self.device):
            if self.steps is None:
                return [self._window(session, layers) for session in sessions]
            if self.steps.compiled is not None:
                return self._together(self.steps, sessions, layers)
            return self._batch(self.steps, sessions, layers)

    def _window(self, session: Session, layers: Sequence[int]) -> Result:
        valid = session.due
        waveform = torch.from_numpy(session.waiting).to(self.device)
        own = [self.featurizer.layer, *layers]
        found = self.windows.features(waveform, valid, session.history, own)
        final = min(self.policy.chunk, valid)
        codes = [codes[:final] for codes in self._codes(found[0])]
        session.advance(None, final)
        return Result(codes, [features[:final] for features in found[1:]])

    def _batch(self, steps: EncoderSteps, sessions: Sequence[Session], layers: Sequence[int]) -> list[Result]:
        valid = [session.due for session in sessions]
        rows = _waveforms(steps, sessions, valid)
        idle = self.slots - len(sessions)
        waveforms = torch.stack(rows + [torch.zeros_like(rows[0])] * idle)
        states = [session.state for session in sessions]
        state = states[0] if self.slots == 1 else _stack([*states, *[steps.start(1)] * idle])
        assert state is not None
        own = [self.featurizer.layer, *layers]
        counts = torch.tensor([*valid, *[0] * idle], device=self.device)
        found, state = steps.step(state, waveforms.to(self.device), counts, own)
        codes = [codes.reshape(self.slots, -1) for codes in self._codes(found[0].flatten(0, 1))]
        results = []
        for row, (session, count) in enumerate(zip(sessions, valid, strict=True)):
            final = min(self.policy.chunk, count)
            session.advance(state if self.slots == 1 else _row(state, row), final)
            own_codes = [one[row, :final] for one in codes]
            results.append(Result(own_codes, [features[row, :final] for features in found[1:]]))
        return results

    def _together(self, steps: EncoderSteps, sessions: Sequence[Session], layers: Sequence[int]) -> list[Result]:
        valid = [session.due for session in sessions]
        states = [session.state for session in sessions if session.state is not None]
        own = [self.featurizer.layer, *layers]
        found = steps.together(states, _waveforms(steps, sessions, valid), valid, own)
        results = []
        for session, count, (features, state) in zip(sessions, valid, found, strict=True):
            final = min(self.policy.chunk, count)
            session.advance(state, final)
            # In a product of one size for all, for torch's depend on it.
            codes = [codes[:final] for codes in self._codes(features[0])]
            results.append(Result(codes, [other[:final] for other in features[1:]]))
        return results

    def _codes(self, features: Tensor) -> list[NDArray[np.int32]]:
        """The codes (N,) of features (N, D) from each codebook."""
        pairs = zip(self.codebooks, self.prepared, strict=True)
        return [codebook.codes(features, prepared).cpu().numpy() for codebook, prepared in pairs]


def _waveforms(steps: EncoderSteps, sessions: Sequence[Session], valid: Sequence[int]) -> list[Tensor]:
    """The samples of each session's next step, padded to its size."""
    size = num_samples(steps.frames)
    rows = [torch.from_numpy(s.waiting[: num_samples(v)]) for s, v in zip(sessions, valid, strict=True)]
    return [F.pad(row, (0, size - len(row))) for row in rows]


def _stack(states: Sequence[StepState | None]) -> StepState:
    tensors = [state.tensors() for state in states if state is not None]
    return StepState.from_tensors(
        {name: torch.cat([t[name] for t in tensors], StepState.batch_axis(name)) for name in tensors[0]}
    )


def _row(state: StepState, row: int) -> StepState:
    """The state of one of the streams; a copy, so that it does not keep the others alive."""
    return StepState.from_tensors(
        {name: tensor.narrow(StepState.batch_axis(name), row, 1).clone() for name, tensor in state.tensors().items()}
    )
