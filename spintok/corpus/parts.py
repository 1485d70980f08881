"""A list of utterances cut into the parts that become shards: by number, or by seconds of audio."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from spintok.corpus.errors import CorpusError
from spintok.corpus.job_options import JobOptions
from spintok.corpus.shard_writer import ShardWriter
from spintok.data.audio import AudioError, declared_samples
from spintok.data.manifest import Utterance
from spintok.frames import SAMPLE_RATE

__all__ = ["cut", "refuse_duplicates", "shard_count", "stated_seconds"]


def cut(
    utterances: Sequence[Utterance], options: JobOptions, found: Mapping[str, Any] | None
) -> tuple[list[Sequence[Utterance]], dict[str, Any]]:
    """The utterances of each shard, and the fields of the folder's description that say how the list was cut.

    By seconds, a shard ends with the utterance that completes them, and a recording that is longer is a shard alone.
    The places are kept in the description, so files that are replaced later do not move them.

    Args:
        utterances: the list.
        options: how to cut.
        found: the description of a folder that holds the beginning of the list, if there is one.
    """
    if options.shard_seconds is None:
        starts = list(range(0, len(utterances), options.shard_size))
        fields: dict[str, Any] = {"shard_size": options.shard_size}
    else:
        known = [] if found is None else list(found.get("shard_starts", []))
        starts = _by_seconds(utterances, options.shard_seconds, known, 0 if found is None else found["utterances"])
        fields = {"shard_seconds": options.shard_seconds, "shard_starts": starts}
    ends = [*starts[1:], len(utterances)]
    return [utterances[start:end] for start, end in zip(starts, ends, strict=True)], fields


def shard_count(description: Mapping[str, Any]) -> int:
    """The number of shards of a described folder. Raises ``ValueError`` when the description is damaged."""
    listed, size, starts = (description.get(name) for name in ("utterances", "shard_size", "shard_starts"))
    if isinstance(starts, list):
        return len(starts)
    if not isinstance(listed, int) or not isinstance(size, int) or listed < 0 or size < 1:
        raise ValueError(f"{listed!r} utterances in shards of {size!r}")
    return -(-listed // size)


def refuse_duplicates(writer: ShardWriter[Any], utterances: Sequence[Utterance]) -> None:
    """Raise ``CorpusError`` when two utterances of a list share a key or the name in their shards."""
    for what, names in (
        ("key", Counter(utterance.key for utterance in utterances)),
        ("name", Counter(map(writer.name, utterances))),
    ):
        if len(names) < len(utterances):
            name, count = names.most_common(1)[0]
            raise CorpusError(f"{count} utterances have the {what} {name!r}; each needs its own")


def _by_seconds(utterances: Sequence[Utterance], seconds: float, known: Sequence[int], listed: int) -> list[int]:
    starts = list(known)
    if listed == len(utterances) and starts:
        return starts
    # The last shard of the shorter list may not be full.
    begin = starts.pop() if starts else 0
    with ThreadPoolExecutor(8) as pool:
        lengths = list(pool.map(stated_seconds, utterances[begin:]))
    held = 0.0
    for place, length in enumerate(lengths, start=begin):
        if held == 0.0 or held >= seconds or length >= seconds:
            starts.append(place)
            held = 0.0
        # A long recording fills its shard.
        held += max(length, 1e-9)
    return starts


def stated_seconds(utterance: Utterance) -> float:
    """The duration that the list or the file's header states; 0 for files that encoding will list as failed."""
    if utterance.seconds is not None:
        return utterance.seconds
    try:
        return declared_samples(utterance.path) / SAMPLE_RATE
    except AudioError:
        return 0.0
