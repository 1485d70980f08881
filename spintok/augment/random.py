"""The random generator of an utterance: a pure function of seed, epoch and utterance."""

import hashlib

import numpy as np

__all__ = ["utterance_rng"]


def utterance_rng(seed: int, epoch: int, key: str) -> np.random.Generator:
    """Return the generator for the utterance ``key`` in ``epoch``.

    It depends on the arguments only, so an utterance gets the same draws in any process, in any order of the corpus,
    and after a resume.
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/{key}".encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
