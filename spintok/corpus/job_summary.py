"""What a job did."""

from dataclasses import dataclass, field

__all__ = ["Failure", "JobSummary"]


@dataclass(frozen=True)
class Failure:
    """One utterance that could not be encoded, and why."""

    key: str
    file_name: str
    error: str


@dataclass
class JobSummary:
    """What a job did.

    Attributes:
        total: utterances of this rank; ``encoded + resumed + len(failures)``.
        encoded: the number of utterances that this run encoded.
        resumed: found in shards and journals of earlier runs.
        failures: those that could not be encoded.
        audio_seconds: seconds of audio encoded.
        wall_seconds: duration of the run.
    """

    total: int = 0
    encoded: int = 0
    resumed: int = 0
    failures: list[Failure] = field(default_factory=list)
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0

    @property
    def audit(self) -> str:
        """Utterances in and out, as a sentence; ``run_job`` has checked that they agree."""
        out = self.encoded + self.resumed
        return f"{self.total} files in = {out} files out + {len(self.failures)} failed"
