"""Which utterances are the channels or the turns of which dialogue."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from spintok.data.json_lines import json_objects
from spintok.export.errors import ExportError
from spintok.export.sequences.turn_taking import Speaker

__all__ = ["Dialogue", "Script", "keys_of", "read_dialogues"]


class Script(NamedTuple):
    """A dialogue to be made of turns that were recorded one by one.

    Attributes:
        key: the key of the dialogue.
        turns: who speaks, "user" or "assistant", and the key of the tokens, in order.
        back_channels: keys of short utterances of the user.
    """

    key: str
    turns: tuple[tuple[Speaker, str], ...]
    back_channels: tuple[str, ...] = ()


class Dialogue(NamedTuple):
    """A dialogue of two channels.

    Attributes:
        key: the key of the dialogue.
        user: the key of the user's tokens.
        assistant: the key of the assistant's tokens.
    """

    key: str
    user: str
    assistant: str


def read_dialogues(path: Path) -> list[Dialogue | Script]:
    """The dialogues of a file of JSON lines.

    A line is ``{"id": ..., "user": KEY, "assistant": KEY}`` for two channels that were recorded together, or
    ``{"id": ..., "turns": [["user", KEY], ["assistant", KEY], ...], "back_channels": [KEY, ...]}`` for turns.

    Raises ``ExportError``.
    """
    found: list[Dialogue | Script] = []
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, record in json_objects(lines):
                if "turns" in record:
                    found.append(_script(record, number))
                    continue
                fields = [str(record.get(name) or "") for name in ("id", "user", "assistant")]
                if not all(fields):
                    raise ValueError(f"{number}: expected the fields id, user and assistant")
                found.append(Dialogue(*fields))
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ExportError(f"{path}:{error}") from None
    keys = {dialogue.key for dialogue in found}
    if len(keys) < len(found) or not found:
        raise ExportError(f"{path}: {'two dialogues have one id' if found else 'there are no dialogues'}")
    return found


def _script(record: Mapping[str, Any], number: int) -> Script:
    """The dialogue of a line with turns. Raises ``ValueError``."""
    key, turns, back_channels = record.get("id"), record["turns"], record.get("back_channels", [])
    pairs = isinstance(turns, list) and all(isinstance(turn, list) and len(turn) == 2 for turn in turns)
    if not key or not turns or not pairs or not isinstance(back_channels, list):
        raise ValueError(f'{number}: expected an id, turns as [["user", KEY], ...] and back_channels as [KEY, ...]')
    if strangers := [speaker for speaker, _ in turns if speaker not in ("user", "assistant")]:
        raise ValueError(f"{number}: a turn is of the user or the assistant, not of {str(strangers[0])[:40]!r}")
    return Script(str(key), tuple((speaker, str(of)) for speaker, of in turns), tuple(map(str, back_channels)))


def keys_of(dialogue: Dialogue | Script) -> list[str]:
    """The keys of the tokens that a dialogue needs."""
    if isinstance(dialogue, Script):
        return [*(key for _, key in dialogue.turns), *dialogue.back_channels]
    return [dialogue.user, dialogue.assistant]
