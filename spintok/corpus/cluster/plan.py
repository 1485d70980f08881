"""What a corpus will take here: hours, bytes and money, from some of it that is encoded and timed."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from spintok.corpus.errors import CorpusError
from spintok.corpus.parts import stated_seconds
from spintok.corpus.shard_writer import ShardWriter
from spintok.data.audio import AudioError
from spintok.data.manifest import Utterance
from spintok.featurizer import Featurizer
from spintok.frames import SAMPLE_RATE
from spintok.progress import Progress, no_progress

__all__ = ["Plan", "Row", "measure"]

R = TypeVar("R")

_LENGTHS = 1000
"""Files whose lengths are looked up; those of a longer list are estimated from them."""


@dataclass(frozen=True)
class Row:
    """What an amount of audio takes.

    Attributes:
        hours: hours of audio.
        worker_hours: hours of one worker like this one.
        gigabytes: size of the shards, in units of 10^9 bytes.
        cost: the cost in the currency of the price.
    """

    hours: float
    worker_hours: float
    gigabytes: float
    cost: float


@dataclass(frozen=True)
class Plan:
    """A measurement and what it means for a corpus.

    Attributes:
        files: the number of files in the list.
        hours: hours of audio in the list; estimated from some files if it is long.
        sample: seconds of audio that were encoded.
        reading: seconds that one thread took to read them.
        encoding: seconds that the model took.
        size: bytes of the shard that they made.
        threads: that read audio.
        overlapped: whether audio is read while the model runs elsewhere, on a GPU.
    """

    files: int
    hours: float
    sample: float
    reading: float
    encoding: float
    size: int
    threads: int
    overlapped: bool

    @property
    def speed(self) -> float:
        """Seconds of audio a second: on a CPU reading and the model share it, on a GPU the slower one counts."""
        reading = self.reading / self.threads
        return self.sample / (max(reading, self.encoding) if self.overlapped else self.reading + self.encoding)

    @property
    def bottleneck(self) -> str:
        """What takes longer: reading, which more threads may help, or the model."""
        reading = self.reading / self.threads if self.overlapped else self.reading
        return "reading audio" if reading > self.encoding else "the model"

    def row(self, hours: float, price: float) -> Row:
        """What ``hours`` of such audio take on workers like this one, at a price an hour of a worker."""
        worker_hours = hours / self.speed
        return Row(hours, worker_hours, hours * 3600 * self.size / self.sample / 1e9, worker_hours * price)


def measure(
    writer: ShardWriter[R],
    tokenizer: Featurizer,
    utterances: Sequence[Utterance],
    threads: int,
    seconds: float = 60.0,
    progress: Progress = no_progress,
    seed: int = 0,
) -> Plan:
    """Encode a random sample for some seconds and time it.

    Args:
        writer: the writer of the planned shards.
        tokenizer: the tokenizer, on the device that is to be used.
        utterances: the list.
        threads: that will read audio.
        seconds: how long to measure; a short list takes less.
        progress: called as the measurement goes on.
        seed: chooses the sample.

    Raises:
        CorpusError: none of the sampled files can be read.
    """
    order = random.Random(seed).sample(utterances, len(utterances))
    lengths = [stated_seconds(utterance) for utterance in order[:_LENGTHS]]
    hours = sum(lengths) / len(lengths) * len(utterances) / 3600
    sample = reading = encoding = 0.0
    records: list[R] = []
    for place, utterance in enumerate(order):
        started = time.monotonic()
        try:
            recording = tokenizer.record(utterance.path)
        except AudioError:
            continue
        read = time.monotonic()
        ((_, record, samples),) = writer.encode({utterance: recording}, lambda utterance, samples: None)
        done = time.monotonic()
        if place == 0 and len(order) > 1:
            # The first one also loads libraries and kernels.
            continue
        records.append(record)
        sample += samples / SAMPLE_RATE
        reading += read - started
        encoding += done - read
        progress("measuring", min(reading + encoding, seconds), seconds)
        if reading + encoding >= seconds:
            break
    if not records:
        raise CorpusError("none of the files that were tried can be read: nothing to plan with")
    with TemporaryDirectory(prefix="spintok-") as scratch:
        shard = writer.path(Path(scratch), 0)
        writer.write(shard, records)
        size = sum(file.stat().st_size for file in writer.files(shard))
    overlapped = tokenizer.device.type != "cpu"
    return Plan(len(utterances), hours, sample, reading, encoding, size, threads, overlapped)
