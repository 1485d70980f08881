"""How a job is divided among shards, threads and processes."""

from dataclasses import dataclass

__all__ = ["JobOptions"]


@dataclass(frozen=True)
class JobOptions:
    """How the work is divided.

    Attributes:
        shard_size: utterances per shard.
        workers: threads that read audio.
        rank, ranks: this process writes every shard whose number is ``rank`` modulo ``ranks``.
        overwrite: delete the shards of an earlier job and start again.
    """

    shard_size: int = 1000
    workers: int = 2
    rank: int = 0
    ranks: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        if min(self.shard_size, self.workers, self.ranks) < 1:
            raise ValueError("shard_size, workers and ranks must be at least 1")
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank must lie in [0, {self.ranks}), got {self.rank}")
        if self.overwrite and self.ranks > 1:
            raise ValueError("ranks cannot overwrite, or one would delete another's shards; delete the folder first")

    @property
    def part(self) -> str:
        """The suffix of the names of this rank's own files."""
        return "" if self.ranks == 1 else f"-{self.rank:05d}-of-{self.ranks:05d}"
