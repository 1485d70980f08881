"""The tokens of one recording as lines of JSON, which say what made them: what goes through a pipe.

``encode`` writes one line, ``stream`` a header and then a line for each chunk.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spintok._files import json_line
from spintok.corpus.token_formats import Record, ShardError, TokenLayout, arrays_of, tokens_of
from spintok.corpus.tokens import CorpusError, grid_of, how_computed
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

__all__ = ["TokenLine", "read_token_line", "read_token_lines", "stream_header", "token_line"]

_LAYOUT = 1


@dataclass(frozen=True)
class TokenLine:
    """The tokens of one recording.

    Attributes:
        tokenizer: the name of the tokenizer.
        fingerprint: identifies the tokenizer's configuration and weights.
        tokens: the tokens of each codebook, by its name.
        latency: the latency of the tokens in seconds; None for those of whole recordings.
        precision: the precision of the transformer.
    """

    tokenizer: str
    fingerprint: str
    tokens: Mapping[str, Tokens]
    latency: float | None = None
    precision: str = "float32"


def token_line(tokenizer: Tokenizer, tokens: Mapping[str, Tokens], *, dedup: bool) -> str:
    """The line, without its end: the tokenizer, and ``units`` and ``duration`` of each codebook as in shards.

    Without ``dedup`` it holds a code for each frame and no durations.
    """
    layout = TokenLayout({name: one.codebook_size for name, one in tokens.items()}, dedup, tokenizer.grid)
    first = next(iter(tokens.values()))
    arrays = arrays_of(Record("", "", tokens), layout)
    return json_line(
        {
            "spintok_line": _LAYOUT,
            "tokenizer": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "codebooks": dict(layout.codebooks),
            "frame_rate": tokenizer.frame_rate,
            "receptive_field": tokenizer.grid.reach,
            **how_computed(tokenizer),
            "num_samples": first.num_samples,
            "num_frames": first.num_frames,
            **{name: array.tolist() for name, array in arrays.items()},
        }
    ).rstrip("\n")


def stream_header(tokenizer: Tokenizer, codebook: str) -> str:
    """The line before those of a stream, without its end: what makes the codes that follow."""
    return json_line(
        {
            "spintok_stream": _LAYOUT,
            "tokenizer": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "codebooks": {codebook: tokenizer.size_of(codebook)},
            "frame_rate": tokenizer.frame_rate,
            "receptive_field": tokenizer.grid.reach,
            **how_computed(tokenizer),
        }
    ).rstrip("\n")


def read_token_lines(lines: Iterable[str]) -> TokenLine:
    """The tokens of the line of ``encode``, or of the header and all lines of ``stream``.

    Raises:
        ShardError: these are no such lines, or are of several recordings; the message says why.
    """
    rest = iter(lines)
    first = next(rest, "")
    if '"spintok_stream"' in first:
        return _read_stream([first, *rest])
    if '"continues"' in first:
        raise ShardError("these lines do not say what made the codes: give spintok stream the option --header")
    found = read_token_line(first)
    if next(rest, None) is not None:
        raise ShardError("standard input has several lines, but one .wav is written: encode and decode a folder")
    return found


def _read_stream(lines: Sequence[str]) -> TokenLine:
    try:
        header, *rows = map(json.loads, lines)
        if header["spintok_stream"] != _LAYOUT:
            raise ShardError("the lines are of a newer spintok stream")
        ((name, size),) = header["codebooks"].items()
        latency, precision = float(header["latency"]), str(header.get("precision", "float32"))
        # Lines of events, of --turns, have no codes.
        codes = [code for row in rows for code in row.get("codes", [])]
        tokens = {str(name): Tokens(np.array(codes, dtype=np.int64), int(size), None, grid_of(header))}
        return TokenLine(str(header["tokenizer"]), str(header["fingerprint"]), tokens, latency, precision)
    except ShardError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ShardError(f"not the lines of spintok stream: {_cause(error)}"[:300]) from None


def read_token_line(line: str) -> TokenLine:
    """The inverse of ``token_line``.

    Raises:
        ShardError: this is no such line; the message says why.
    """
    try:
        if not line:
            raise ShardError("no line of tokens: has spintok encode failed?")
        row: Any = json.loads(line)
        if not isinstance(row, dict) or row.get("spintok_line") != _LAYOUT:
            raise ShardError("not a line that spintok encode wrote to standard output")
        sizes = {str(name): int(size) for name, size in row["codebooks"].items()}
        if not sizes:
            raise ShardError("a line of tokens without a codebook")
        dedup = any(name == "duration" or name.endswith("_duration") for name in row)
        layout = TokenLayout(sizes, dedup, grid_of(row))
        tokens = tokens_of(row, layout, row["num_samples"], row["num_frames"])
        latency = None if row.get("latency") is None else float(row["latency"])
        precision = str(row.get("precision", "float32"))
        return TokenLine(str(row["tokenizer"]), str(row["fingerprint"]), tokens, latency, precision)
    except (ShardError, CorpusError):
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ShardError(f"not a line that spintok encode wrote to standard output: {_cause(error)}"[:300]) from None


def _cause(error: Exception) -> str:
    """The messages of errors in JSON speak for themselves."""
    return str(error) if isinstance(error, json.JSONDecodeError) else repr(error)
