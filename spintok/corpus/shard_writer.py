"""The interface between a job and what its shards hold: tokens or features."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from spintok.corpus.partial import Partial
from spintok.data.audio import Recording
from spintok.data.manifest import Utterance

__all__ = ["ShardWriter"]

R = TypeVar("R")


class ShardWriter(ABC, Generic[R]):
    """Encodes utterances to records ``R``, and reads and writes shards of them.

    Attributes:
        stem: the beginning of the shards' names.
        mismatches: the fields of ``describe`` that must not change within a folder, and for each what a folder with
            another value holds.
        portion_seconds: seconds of audio to pass to ``encode`` at once; 0 for one recording at a time.
        comparable: whether ``equal`` compares records.
    """

    stem: ClassVar[str]
    mismatches: ClassVar[Mapping[str, str]]
    portion_seconds: float = 0.0
    comparable: ClassVar[bool] = False

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What all shards of a folder share."""

    def dataset_card(self, mark: str) -> str | None:
        """A README.md with which ``datasets.load_dataset`` opens the folder, ``mark`` on its second line; or None."""
        return None

    @abstractmethod
    def path(self, folder: Path, index: int) -> Path:
        """The path of shard ``index``."""

    def files(self, shard: Path) -> list[Path]:
        """All files of a shard."""
        return [shard]

    def name(self, utterance: Utterance) -> str:
        """What identifies an utterance in a shard."""
        return utterance.key

    def check(self, utterance: Utterance) -> None:
        """Raise ``ValueError`` when the format cannot hold the utterance's names."""

    @abstractmethod
    def read(self, shard: Path) -> dict[str, R]:
        """The records of a shard by ``name``. Raises ``ShardError``."""

    @abstractmethod
    def encode(
        self, batch: Mapping[Utterance, Recording], progress: Callable[[Utterance, int], None]
    ) -> Iterator[tuple[Utterance, R, int]]:
        """Each recording with its record and its number of samples at 16 kHz, as soon as it is encoded, in any order.

        ``progress`` is called with an utterance and the samples of it that are encoded.

        Raises ``ValueError`` or ``RuntimeError`` when a recording cannot be encoded, and ``OSError`` when the output
        cannot be written.
        """

    @abstractmethod
    def encode_long(
        self, utterance: Utterance, recording: Recording, partial: Partial, progress: Callable[[Utterance, int], None]
    ) -> tuple[R, int]:
        """``encode`` for one recording that is longer than a window: goes on from ``partial``, and keeps it current.

        ``progress`` is first called with the samples that an earlier run had encoded.
        """

    @abstractmethod
    def write(self, shard: Path, records: Sequence[R]) -> None:
        """Write a shard; each of its files appears complete or not at all."""

    @abstractmethod
    def to_entry(self, record: R) -> dict[str, Any]:
        """A record as a JSON value for the journal."""

    @abstractmethod
    def from_entry(self, entry: Mapping[str, Any]) -> R:
        """The inverse of ``to_entry``. Raises ``ValueError``, ``KeyError`` or ``TypeError`` when that fails."""

    def equal(self, stored: R, again: R) -> bool:
        """Whether a record says the same as one that was read from a shard; only where they are ``comparable``."""
        raise NotImplementedError

    def scratch(self, shard: Path) -> AbstractContextManager[None]:
        """Entered while records of a shard are encoded, replayed and written."""
        return nullcontext()

    def discard_scratch(self, shard: Path) -> None:
        """Delete what ``scratch`` left; called when the shard is complete."""

    def shard_done(self, records: Mapping[Utterance, R]) -> None:
        """Called with the records of each shard, in no order, when it is complete."""
