"""Encoders from other libraries' weights."""

from spintok.importers.weights import CheckpointError

__all__ = ["CheckpointError"]
