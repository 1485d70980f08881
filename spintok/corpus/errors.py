"""What is wrong with a folder of shards."""

__all__ = ["CorpusError"]


class CorpusError(ValueError):
    """A folder of shards that cannot be used or does not fit the job; the message says what to do."""
