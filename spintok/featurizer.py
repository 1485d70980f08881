"""The one path from recordings to features, for tokens, K-means, feature export and evaluation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import asdict, fields
from functools import partial
from itertools import chain
from os import PathLike
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from spintok.chunking import Window, chunks
from spintok.data.audio import Recording, Resampler, by_soxr, record
from spintok.frames import SAMPLE_RATE, FrameGrid
from spintok.models.base import FeatureExtractor
from spintok.models.precision import full_precision
from spintok.models.reduced import Precision
from spintok.models.statistics import WaveformStatistics
from spintok.serialization import fingerprint

__all__ = ["FeatureBatch", "Featurizer", "Part"]


class FeatureBatch(NamedTuple):
    """Features of recordings that were encoded together, or of one chunk of a long recording.

    Attributes:
        indices: the places of the B recordings in the sequence that was given.
        layers: for each layer asked for, the features (T_i, D) of each recording. Chunks follow each other in order.
        samples: the samples at 16 kHz read of each recording so far; all of them once its last chunk has come.
    """

    indices: list[int]
    layers: list[list[Tensor]]
    samples: list[int]

    @property
    def features(self) -> list[Tensor]:
        """The features of the first layer asked for."""
        return self.layers[0]


class Part(NamedTuple):
    """The next stretch of a long recording.

    Attributes:
        layers: its features (T, D) of each layer asked for; T is 0 once the recording was heard for its statistics.
        samples: the number of samples at 16 kHz read so far.
        state: makes the bytes with which ``iter_parts`` goes on behind this part, in another process too.
    """

    layers: list[Tensor]
    samples: int
    state: Callable[[], bytes]


class Featurizer(nn.Module):
    """An encoder, and the window in which it reads long recordings.

    Args:
        encoder: turns waveforms into features.
        layer: the layer to read, 0 ... ``encoder.num_layers``; the last one by default.
        name: a name for messages and output files.
        window: the size of the chunks of long recordings; by default 20 s are kept and the encoder's
            ``context_frames`` are read on either side.

    Raises:
        ValueError: the encoder has no such layer.
    """

    def __init__(
        self,
        encoder: FeatureExtractor,
        *,
        layer: int | None = None,
        name: str = "unnamed",
        window: Window | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer = encoder.num_layers if layer is None else layer
        self.name = name
        self.resample: Resampler = by_soxr
        """How audio of other rates becomes 16 kHz."""
        self.precision: Precision = "float32"
        """In which the encoder computes; another one is that of a ``spintok.reduced.ReducedTokenizer``."""
        self.window = window or Window(context=encoder.context_frames)
        self.check_layers([self.layer])
        self.eval()

    @property
    def sample_rate(self) -> int:
        """Samples per second that the encoder reads; audio of other rates is resampled."""
        return SAMPLE_RATE

    @property
    def grid(self) -> FrameGrid:
        """Where the encoder's frames lie in the audio."""
        return self.encoder.grid

    @property
    def max_samples(self) -> int:
        """The longest recording that is encoded in one piece."""
        return self.window.samples(self.grid)

    @property
    def frame_rate(self) -> int:
        """Frames per second."""
        return self.grid.rate

    @property
    def frame_size(self) -> int:
        """Samples from one frame to the next."""
        return self.grid.hop

    @property
    def device(self) -> torch.device:
        """The device on which the encoder computes."""
        return next(chain(self.parameters(), self.buffers())).device

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raise ``ValueError`` unless the encoder has all ``layers``."""
        last = self.encoder.num_layers
        for layer in layers:
            if not 0 <= layer <= last:
                if not self.encoder.has_layers:
                    raise ValueError(f"MFCC have no layers: their features have the number 0, got layer {layer}")
                raise ValueError(
                    f"{self.name!r} has layers 0 ... {last} of its encoder, got layer {layer}; "
                    "a tokenizer may keep its encoder only up to the layer that its codebooks read"
                )

    def encoder_fingerprint(self, layer: int) -> str:
        """SHA-256 of all that decides the features of a layer: the encoder up to that layer, and the window.

        Raises ``ValueError`` if there is no such layer.
        """
        self.check_layers([layer])
        encoder = self.encoder.truncated(layer)
        return fingerprint({"encoder": encoder.identity(), "window": asdict(self.window)}, encoder)

    def record(self, path: str | PathLike[str]) -> Recording:
        """Open an audio file for ``iter_features``. It is kept in memory if it fits into one window.

        Raises ``AudioError`` if the file cannot be read.
        """
        return record(path, self.max_samples, self.resample)

    @torch.inference_mode()
    def iter_features(
        self, recordings: Sequence[Recording], layers: Sequence[int] | None = None, batch_seconds: float = 200.0
    ) -> Iterator[FeatureBatch]:
        """Features of each recording, in any order: short recordings in one piece, then long ones chunk by chunk.

        On a GPU, recordings of similar length share a padded batch of at most ``batch_seconds``, which is halved when
        its memory runs out. On a CPU, where batches only add padding, each is encoded alone, as many at a time as torch
        has threads. The features are the same bit for bit either way (``spintok.models.products``).

        Args:
            recordings: what ``record`` returned.
            layers: the layers to return, from one pass; ``self.layer`` by default.
            batch_seconds: 0 encodes every recording alone on a GPU too.

        Raises:
            AudioError: a long recording turns out to be damaged.
            ValueError: the encoder has no such layer.
        """
        layers = [self.layer] if layers is None else layers
        self.check_layers(layers)
        waveforms = {i: r.waveform for i, r in enumerate(recordings) if r.waveform is not None}
        groups = list(self._groups({i: len(waveform) for i, waveform in waveforms.items()}, batch_seconds))
        several = self.device.type == "cpu" and self.encoder.runs_in_threads and len(groups) > 1
        if several and torch.get_num_threads() > 1:
            yield from self._in_threads(groups, waveforms, layers)
        else:
            for group in groups:
                yield from self._iter_batches(group, waveforms, layers)
        for i, recording in enumerate(recordings):
            if recording.waveform is None:
                for part in self.iter_parts(recording, layers):
                    if len(part.layers[0]):
                        yield FeatureBatch([i], [[features] for features in part.layers], [part.samples])

    def _in_threads(
        self, groups: Sequence[list[int]], waveforms: Mapping[int, Tensor], layers: Sequence[int]
    ) -> Iterator[FeatureBatch]:
        """The batches of all groups, several at a time, as they are done: threads in one recording wait for others."""
        threads = torch.get_num_threads()

        @torch.inference_mode()
        def encode(group: list[int]) -> list[FeatureBatch]:
            return list(self._iter_batches(group, waveforms, layers))

        pool = ThreadPoolExecutor(min(threads, len(groups)), initializer=torch.set_num_threads, initargs=(1,))
        running: set[Future[list[FeatureBatch]]] = set()
        try:
            # In this thread too, which meanwhile computes codes: threads of its parallel loops would wait by spinning.
            torch.set_num_threads(1)
            for group in groups:
                running.add(pool.submit(encode, group))
                # Some wait, so that threads go on while the caller does something else.
                if len(running) >= 4 * threads:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for one in done:
                        yield from one.result()
            for one in as_completed(running):
                yield from one.result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)

    def _iter_batches(
        self, group: list[int], waveforms: Mapping[int, Tensor], layers: Sequence[int]
    ) -> Iterator[FeatureBatch]:
        """The batch of a group of recordings, or of each half of it if the device has too little memory for both."""
        samples = [len(waveforms[i]) for i in group]
        padded = pad_sequence([waveforms[i] for i in group], batch_first=True)
        try:
            states, counts = self._hidden_states(padded, torch.tensor(samples), layers)
        except torch.OutOfMemoryError:
            if len(group) == 1:
                raise
            states = None
        # Not in the handler: there the error keeps what the attempt has allocated.
        if states is None:
            middle = len(group) // 2
            for half in (group[:middle], group[middle:]):
                yield from self._iter_batches(half, waveforms, layers)
            return
        frames = counts.tolist()
        found = [[state[row, :count] for row, count in enumerate(frames)] for state in states]
        yield FeatureBatch(group, found, samples)

    @torch.inference_mode()
    def iter_parts(
        self, recording: Recording, layers: Sequence[int] | None = None, state: bytes | None = None
    ) -> Iterator[Part]:
        """The features of a long recording chunk by chunk, as ``iter_features`` gives them.

        The recording is read twice: first for its statistics, after which an empty part follows, then to be encoded.
        With the ``state`` of a part, it is read once, and encoded from the end of that part on.

        Raises:
            AudioError: the recording turns out to be damaged.
            ValueError: the encoder has no such layer, or the state is damaged.
        """
        layers = [self.layer] if layers is None else layers
        self.check_layers(layers)
        if state is None:
            with full_precision(self.device):
                statistics = self.encoder.statistics(recording.blocks())
            done, samples = 0, 0
            empty = torch.zeros(0, self.encoder.num_features, device=self.device)
            yield Part([empty] * len(layers), 0, lambda: _state_bytes(0, statistics))
        else:
            done, statistics = _read_state(state, self.device)
            samples = 0

        def counted() -> Iterator[Tensor]:
            nonlocal samples
            for block in recording.blocks():
                samples += len(block)
                yield block

        frames = 0
        for chunk in chunks(counted(), self.window, self.grid):
            frames += chunk.keep
            if frames <= done:
                continue
            lengths = torch.tensor([len(chunk.waveform)])
            states, _ = self._hidden_states(chunk.waveform[None], lengths, layers, statistics)
            kept = slice(chunk.skip, chunk.skip + chunk.keep)
            yield Part([found[0, kept] for found in states], samples, partial(_state_bytes, frames, statistics))

    def _hidden_states(
        self, waveforms: Tensor, lengths: Tensor, layers: Sequence[int], statistics: WaveformStatistics | None = None
    ) -> tuple[list[Tensor], Tensor]:
        device = self.device
        with full_precision(device):
            return self.encoder.hidden_states(
                waveforms.to(device), lengths.to(device), layers=layers, statistics=statistics
            )

    def _groups(self, lengths: Mapping[int, int], batch_seconds: float) -> Iterable[list[int]]:
        """Indices that share a batch, longest first."""
        order = sorted(lengths, key=lambda i: -lengths[i])
        if self.device.type == "cpu":
            yield from ([i] for i in order)
            return
        group: list[int] = []
        for i in order:
            if group and lengths[group[0]] * (len(group) + 1) > batch_seconds * SAMPLE_RATE:
                yield group
                group = []
            group.append(i)
        if group:
            yield group


def _state_bytes(frames: int, statistics: WaveformStatistics | None) -> bytes:
    """How many frames of a recording are done, and the statistics of all of it."""
    tensors = {"frames": torch.tensor(frames)}
    if statistics is not None:
        tensors |= {field.name: getattr(statistics, field.name).contiguous() for field in fields(statistics)}
    return save(tensors)


def _read_state(state: bytes, device: torch.device) -> tuple[int, WaveformStatistics | None]:
    """The inverse of ``_state_bytes``. Raises ``ValueError``."""
    try:
        tensors = load(state)
        frames = int(tensors.pop("frames"))
        return frames, WaveformStatistics(**{n: t.to(device) for n, t in tensors.items()}) if tensors else None
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"the state of a recording is damaged: {error}") from None
