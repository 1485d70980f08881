"""Random damage to files: bytes for binary files, values and structure for text files."""

import random
import re

__all__ = ["mutate"]

_NUMBER = re.compile(rb"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])")
_STRING = re.compile(rb'"[^"\n]*"')
_VALUES = (
    b"0", b"-1", b"1e999", b"-1e999", b"NaN", b"Infinity", b"99999999999999999999999999", b"9223372036854775808",
    b"2000000000", b"0.5", b"null", b"true", b'"text"', b"[]", b"{}", b"[[[[1]]]]", b'{"a": {"b": [1, null]}}',
    b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b'"' + b"x" * 100_000 + b'"', b'""',
)  # fmt: skip
_TEXT = (
    "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x00", "\ud800", "\ufeff", "\r\n", "\r", "\n", "\t", "|", '"',
    "../", "/", "..", "[/x]", "\x1b[31m", "a" * 70_000,
)  # fmt: skip


def mutate(data: bytes, rng: random.Random, *, text: bool) -> bytes:
    """``data`` with one to three random changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choice(_TEXT_CHANGES if text and rng.random() < 0.75 else _BYTE_CHANGES)
        data = change(data, rng)
    return data


def _place(data: bytes, rng: random.Random) -> int:
    """A position, often within the first kilobyte, where headers are."""
    return rng.randrange(min(len(data), 1024) if rng.random() < 0.5 else len(data)) if data else 0


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    place = _place(data, rng)
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    place, size = _place(data, rng), rng.choice((1, 2, 4, 8, 64, 1000))
    fill = rng.choice((b"\x00", b"\xff", bytes([rng.randrange(256)]))) * size
    return data[:place] + fill[: len(data) - place] + data[place + size :]


def _delete(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + data[place + rng.choice((1, 4, 100, 5000)) :]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _insert(data: bytes, rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + rng.randbytes(rng.choice((1, 4, 100))) + data[place:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    stop = start + rng.choice((1, 50, 5000))
    return data[:stop] + data[start:stop] + data[stop:]


def _value(data: bytes, rng: random.Random) -> bytes:
    """Another value in place of a number or a string."""
    found = list((_NUMBER if rng.random() < 0.6 else _STRING).finditer(data))
    if not found:
        return _overwrite(data, rng)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(_VALUES) + data[match.end() :]


def _character(data: bytes, rng: random.Random) -> bytes:
    """An awkward character somewhere."""
    place = _place(data, rng)
    return data[:place] + rng.choice(_TEXT).encode("utf-8", "surrogatepass") + data[place:]


def _line(data: bytes, rng: random.Random) -> bytes:
    """A line repeated, dropped, or moved to the end."""
    lines = data.split(b"\n")
    index = rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            lines.insert(index, lines[index])
        case 1:
            del lines[index]
        case _:
            lines.append(lines.pop(index))
    return b"\n".join(lines)


_BYTE_CHANGES = (_flip, _overwrite, _delete, _truncate, _insert, _repeat)
_TEXT_CHANGES = (_value, _value, _value, _character, _line)
