"""The description of a folder that many workers fill: the first worker writes it, the others must agree with it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spintok.corpus.cluster.leases import FOLDER
from spintok.corpus.cluster.store import FolderStore, Store
from spintok.corpus.errors import CorpusError
from spintok.corpus.folder import (
    MARKERS,
    README_MARK,
    WORK,
    check_same,
    describe,
    holds,
    merged,
    parse_description,
    refuse_other_kind,
)
from spintok.corpus.job_options import JobOptions
from spintok.corpus.listing import arranged, list_bytes, list_name
from spintok.corpus.parts import refuse_duplicates, shard_count
from spintok.corpus.shard_record import record_path
from spintok.corpus.shard_writer import ShardWriter
from spintok.data.manifest import Utterance

__all__ = ["describe_store"]


def describe_store(
    store: Store, writer: ShardWriter[Any], utterances: Sequence[Utterance], options: JobOptions
) -> list[Sequence[Utterance]]:
    """Check that a store fits the job, describe it, and return the utterances of each shard.

    Raises:
        CorpusError: it holds something else, or its list has grown while workers are at the shorter one.
    """
    refuse_duplicates(writer, utterances)
    if isinstance(store, FolderStore):
        refuse_other_kind(store.folder, writer.stem)
    marker = MARKERS[writer.stem][0]
    found = _found(store, writer.stem)
    if found is None:
        foreign = next((name for name in store.sizes() if holds(name, writer.stem)), None)
        if foreign is not None:
            raise CorpusError(f"{store.name}: holds {foreign} without a {marker}; name another output folder")
        description, parts = describe(writer, utterances, options, None)
        store.write(list_name(description), list_bytes(utterances))
        if not store.exclusive:
            store.write(marker, _bytes(description))
        elif not store.create(marker, _bytes(description)):
            # Another worker was first.
            found = _found(store, writer.stem)
    if found is not None:
        utterances = arranged(store.name, utterances, found, store.read(list_name(found)))
        description, parts = describe(writer, utterances, options, found)
        check_same(store.name, writer, found, description)
        _grow(store, writer, found, merged(found, description), utterances)
    card = writer.dataset_card(README_MARK)
    if card is not None and store.read("README.md") is None:
        store.write("README.md", card.encode())
    return parts


def _bytes(description: Mapping[str, Any]) -> bytes:
    return (json.dumps(description, indent=2) + "\n").encode()


def _found(store: Store, stem: str) -> dict[str, Any] | None:
    marker = MARKERS[stem][0]
    content = store.read(marker)
    return None if content is None else parse_description(content, f"{store.name}/{marker}", stem)


def _grow(
    store: Store,
    writer: ShardWriter[Any],
    found: dict[str, Any],
    description: dict[str, Any],
    utterances: Sequence[Utterance],
) -> None:
    """Replace the description by that of a longer list; the last shard of the shorter one may lack some of it."""
    if found == description:
        return
    if found["utterance_list"] != description["utterance_list"]:
        if store.sizes(FOLDER):
            raise CorpusError(
                f"{store.name}: workers are busy with the list before it grew; wait for them, or delete "
                f"{store.name}/{WORK} if none is running"
            )
        if (count := shard_count(found)) > 0:
            last = writer.path(Path(), count - 1)
            store.reopen([file.name for file in writer.files(last)], record_path(last).name)
        store.write(list_name(description), list_bytes(utterances))
    store.write(MARKERS[writer.stem][0], _bytes(description))
    if list_name(found) != list_name(description):
        store.delete(list_name(found))
