"""Read audio ahead in threads, in portions of a few seconds."""

import errno
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from spintok.corpus.errors import CorpusError
from spintok.data.audio import Recording
from spintok.data.locations.addresses import source_of
from spintok.data.locations.base import Source
from spintok.data.locations.remote import RemoteError
from spintok.data.utterance import Utterance
from spintok.featurizer import Featurizer
from spintok.frames import SAMPLE_RATE

__all__ = ["OpenRecording", "ReadAhead"]

_PATIENCE = 16
"""Recordings in a row that a store does not give after which it is taken to be away, rather than they to be bad."""


@dataclass(frozen=True)
class OpenRecording:
    """A recording, and the size and time of its file just before it was read."""

    recording: Recording
    source: Source | None


@dataclass(frozen=True)
class ReadAhead:
    """Reads audio ahead, at most ``depth`` files."""

    tokenizer: Featurizer
    pool: ThreadPoolExecutor
    depth: int

    def portions(
        self, utterances: Sequence[Utterance], seconds: float, fail: Callable[[Utterance, Exception], None]
    ) -> Iterator[dict[Utterance, OpenRecording]]:
        """Recordings in portions of about ``seconds``, and long ones alone.

        ``fail`` is called for each that cannot be read.

        Raises:
            CorpusError: the disk of temporary files is full.
            RemoteError: the store of the audio does not answer any more.
        """
        pending: deque[tuple[Utterance, Future[OpenRecording]]] = deque()
        portion: dict[Utterance, OpenRecording] = {}
        remaining = iter(utterances)
        held = 0.0
        unanswered = 0
        while True:
            while len(pending) < self.depth and (utterance := next(remaining, None)) is not None:
                pending.append((utterance, self.pool.submit(self._open, utterance)))
            if not pending:
                break
            utterance, future = pending.popleft()
            try:
                opened = future.result()
            except Exception as error:
                if getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    raise CorpusError(
                        f"{tempfile.gettempdir()}: no space left for copies of audio that is elsewhere; set TMPDIR"
                    ) from None
                unanswered = unanswered + 1 if isinstance(error.__cause__, RemoteError) else 0
                if unanswered >= _PATIENCE:
                    raise RemoteError(f"{error} (and {unanswered - 1} before it)") from None
                # Whatever a library raises for a damaged file concerns this file only.
                fail(utterance, error)
                continue
            unanswered = 0
            waveform = opened.recording.waveform
            if waveform is None:
                # What came before it must not wait for it, or a kill would lose that too.
                if portion:
                    yield portion
                    portion, held = {}, 0.0
                yield {utterance: opened}
                continue
            portion[utterance] = opened
            held += len(waveform) / SAMPLE_RATE
            if held >= seconds:
                yield portion
                portion, held = {}, 0.0
        if portion:
            yield portion

    def _open(self, utterance: Utterance) -> OpenRecording:
        source = source_of(utterance.path)
        return OpenRecording(self.tokenizer.record(utterance.path), source)
