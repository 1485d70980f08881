"""How a job is divided among shards, threads and processes."""

from dataclasses import dataclass

__all__ = ["JobOptions"]


@dataclass(frozen=True)
class JobOptions:
    """How the work is divided.

    Attributes:
        shard_size: utterances per shard.
        shard_seconds: cut the list by seconds of audio instead; a longer recording is a shard alone.
        workers: threads that read audio.
        rank, ranks: this process writes every shard whose number is ``rank`` modulo ``ranks``.
        overwrite: delete the shards of an earlier job and start again.
        shared: take shards by leases, beside any number of other workers.
        lease_seconds: a worker that is silent for so long is taken for dead.
    """

    shard_size: int = 1000
    workers: int = 2
    rank: int = 0
    ranks: int = 1
    overwrite: bool = False
    shard_seconds: float | None = None
    shared: bool = False
    lease_seconds: float = 120.0

    def __post_init__(self) -> None:
        for name in ("shard_size", "workers", "ranks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.shard_seconds is not None and not self.shard_seconds > 0:
            raise ValueError(f"shard_seconds must be above 0, got {self.shard_seconds}")
        if not self.lease_seconds > 0:
            raise ValueError(f"lease_seconds must be above 0, got {self.lease_seconds}")
        if self.shared and self.ranks > 1:
            raise ValueError("shared workers take what is free: leave rank and ranks out")
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank must lie in [0, {self.ranks}), got {self.rank}")
        if self.overwrite and (self.ranks > 1 or self.shared):
            who = "shared workers" if self.shared else "ranks"
            raise ValueError(f"{who} cannot overwrite, or one would delete another's shards; delete the folder first")

    @property
    def part(self) -> str:
        """The suffix of the names of this rank's own files."""
        return "" if self.ranks == 1 else f"-{self.rank:05d}-of-{self.ranks:05d}"
