"""A stream as bytes, in the format of safetensors: nothing in them is run when they are read."""

import json

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from spintok.data.audio import RATES
from spintok.data.resampling import StreamResampler
from spintok.models.steps import StepState
from spintok.streaming.engine import Engine, Session

__all__ = ["Heard", "from_bytes", "read_metadata", "saved_settings", "to_bytes"]

_FORMAT = 1
_COUNTERS = ("frames", "samples", "ended", "waiting", "rate", "received", "sent", "tail", "last_code")


class Heard:
    """All that a stream remembers.

    Attributes:
        session: what was heard at 16 kHz.
        resampler: resamples from the rate of the input; None before the first samples.
        last_code: that of the last final frame; None before the first one.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.session = Session(engine)
        self.resampler: StreamResampler | None = None
        self.last_code: int | None = None


def to_bytes(heard: Heard) -> bytes:
    """See ``Stream.state``."""
    session, resampler = heard.session, heard.resampler
    if session.due:
        raise ValueError("samples wait to be encoded: step the pool before the state is taken")
    waiting = session.waiting
    tail = np.zeros(0, dtype=np.float32) if resampler is None else resampler.tail
    counters = {
        "frames": session.frames,
        "samples": session.samples,
        "ended": int(session.ended),
        "waiting": len(waiting),
        "rate": 0 if resampler is None else resampler.rate,
        "received": 0 if resampler is None else resampler.received,
        "sent": 0 if resampler is None else resampler.sent,
        "tail": len(tail),
        "last_code": -1 if heard.last_code is None else heard.last_code,
    }
    tensors = {
        "counters": torch.tensor([counters[name] for name in _COUNTERS]),
        "waveform": _padded(waiting, heard.engine.most_waiting),
        "tail": _padded(tail, 0 if resampler is None else resampler.tail_size),
    }
    if session.state is not None:
        tensors |= {f"encoder.{name}": tensor.cpu() for name, tensor in session.state.tensors().items()}
    # Contiguous and of their own memory, as safetensors needs them.
    return save({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, _metadata(heard.engine))


def from_bytes(engine: Engine, data: bytes) -> Heard:
    """What ``to_bytes`` wrote.

    Raises:
        ValueError: the bytes are damaged, or of another tokenizer, latency or codebook.
    """
    metadata = read_metadata(data)
    for name, value in _metadata(engine).items():
        if metadata.get(name) != value:
            found = str(metadata.get(name))[:80]
            raise ValueError(f"this is the state of a stream with another {name}: {found}, not {value}")
    heard = Heard(engine)
    try:
        _restore(heard, load(data))
    except SafetensorError as error:
        raise ValueError(f"the state of a stream is damaged: {error}") from None
    except (KeyError, IndexError, RuntimeError) as error:
        raise ValueError(f"the state of a stream is damaged: {error}") from None
    return heard


def read_metadata(data: bytes) -> dict[str, str]:
    """The tokenizer's fingerprint, the latency in seconds and the codebook of a state. Raises ``ValueError``."""
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        if metadata["spintok_stream"] != str(_FORMAT):
            raise KeyError(f"format {metadata['spintok_stream']}")
        return {name: str(metadata[name]) for name in ("spintok_stream", "tokenizer", "latency", "codebook")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"this is not the state of a stream, or of another release: {str(error)[:200]}") from None


def saved_settings(data: bytes, latency: float | None, codebook: str | None) -> tuple[float, str]:
    """Latency and codebook, those of a state where they are None. Raises ``ValueError``."""
    saved = read_metadata(data)
    try:
        own = float(saved["latency"])
    except ValueError:
        raise ValueError(f"the state of a stream is damaged: latency {saved['latency'][:80]}") from None
    return own if latency is None else latency, saved["codebook"] if codebook is None else codebook


def _restore(heard: Heard, tensors: dict[str, Tensor]) -> None:
    session = heard.session
    if tensors["counters"].shape != (len(_COUNTERS),) or tensors["counters"].dtype != torch.int64:
        raise KeyError("counters")
    values = dict(zip(_COUNTERS, tensors["counters"].tolist(), strict=True))
    if min(value for name, value in values.items() if name != "last_code") < 0:
        raise KeyError("a negative counter")
    waiting = _cut(tensors["waveform"], values["waiting"], heard.engine.most_waiting)
    session.restore(values["frames"], values["samples"], waiting)
    session.ended = bool(values["ended"])
    if values["rate"]:
        if values["rate"] not in RATES:
            raise KeyError("rate")
        heard.resampler = StreamResampler(values["rate"])
        heard.resampler.received, heard.resampler.sent = values["received"], values["sent"]
        heard.resampler.tail = _cut(tensors["tail"], values["tail"], heard.resampler.tail_size)
    heard.last_code = None if values["last_code"] < 0 else values["last_code"]
    if session.state is not None:
        fresh = session.state.tensors()
        given = {name: tensors[f"encoder.{name}"] for name in fresh}
        for name, tensor in fresh.items():
            if (given[name].shape, given[name].dtype) != (tensor.shape, tensor.dtype):
                raise KeyError(f"encoder.{name}")
        session.state = StepState.from_tensors({name: tensor.to(heard.engine.device) for name, tensor in given.items()})
    if session.due:
        raise KeyError("samples")


def _metadata(engine: Engine) -> dict[str, str]:
    return {
        "spintok_stream": str(_FORMAT),
        "tokenizer": engine.fingerprint,
        "latency": f"{engine.policy.seconds:g}",
        "codebook": engine.codebooks[0].config.name,
    }


def _padded(samples: "np.ndarray[tuple[int], np.dtype[np.float32]]", size: int) -> Tensor:
    padded = torch.zeros(size)
    padded[: len(samples)] = torch.from_numpy(samples)
    return padded


def _cut(samples: Tensor, length: int, size: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    if samples.shape != (size,) or samples.dtype != torch.float32 or length > size:
        raise KeyError("samples")
    return samples[:length].clone().numpy()
