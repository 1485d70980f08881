"""The progress of a job in files and seconds of audio, also within a long file."""

import time
from collections.abc import Mapping
from datetime import timedelta

from spintok.corpus.read_ahead import OpenRecording
from spintok.data.manifest import Utterance
from spintok.frames import SAMPLE_RATE
from spintok.progress import Progress

__all__ = ["JobMeter"]


class JobMeter:
    """Counts what a job has done and reports it."""

    def __init__(self, progress: Progress, total: int) -> None:
        """Report to ``progress``; ``total`` is the number of utterances."""
        self._progress = progress
        self._total = total
        self._started = time.monotonic()
        self._files = 0.0
        self._seconds = 0.0
        # Of long recordings: the share and the seconds reported so far, and the seconds where this run began.
        self._partial: dict[Utterance, tuple[float, float, float]] = {}

    def advance(self, opened: Mapping[Utterance, OpenRecording], utterance: Utterance, samples: int) -> None:
        """Report that so many samples of an utterance are encoded; only long recordings take more than a moment.

        The first report of a recording says where this run begins it.
        """
        recording = opened[utterance].recording
        if recording.waveform is None:
            seconds = samples / SAMPLE_RATE
            share = min(seconds / recording.seconds, 1.0) if recording.seconds else 0.0
            before, reported, begun = self._partial.get(utterance, (0.0, seconds, seconds))
            self._partial[utterance] = share, seconds, begun
            self._add(share - before, seconds - reported)

    def finish(self, utterance: Utterance, seconds: float = 0.0) -> float:
        """Report that an utterance is done, with its duration, or has failed; the seconds that this run encoded."""
        share, reported, begun = self._partial.pop(utterance, (0.0, 0.0, 0.0))
        self._add(1.0 - share, seconds - reported)
        return seconds - begun

    def skip(self, count: int) -> None:
        """Report utterances that an earlier run has encoded."""
        if count:
            self._add(count, 0.0)

    def _add(self, files: float, seconds: float) -> None:
        self._files += files
        self._seconds += seconds
        speed = self._seconds / max(time.monotonic() - self._started, 1e-9)
        # Shares of files add up to whole numbers only approximately.
        note = f"{timedelta(seconds=int(self._seconds))} of audio, {speed:.0f} x real time" if self._seconds else ""
        self._progress("encoding", round(self._files, 6), self._total, note)
