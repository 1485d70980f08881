"""The source that a command reads: a path, an address, or a stream; and the folder that is called after it."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from spintok.data.locations.base import Location

__all__ = ["Source", "as_file", "check_output", "default_folder", "is_stream"]

Source: TypeAlias = "Path | Location"


def check_output(source: Source, output: str | None) -> None:
    """Refuse an output that is plainly meant as a second input."""
    if output is None:
        return
    if is_stream(source):
        raise ValueError("tokens of standard input or a pipe go to standard output: leave the output folder out")
    if Path(output).is_file():
        raise ValueError(
            f"{output}: is a file, but the second argument is the folder to write; to encode several files, name "
            "their folder or a manifest"
        )


def default_folder(source: Source, suffix: str) -> Path:
    from spintok.data.manifest import is_list

    # Of an address, the last part.
    path = source.resolve() if isinstance(source, Path) else Path(str(source).rstrip("/"))
    if "{" in path.name:
        raise ValueError("name the output folder: it cannot be called after several files")
    return Path(f"{path.stem if is_list(source) or path.is_file() else path.name}-{suffix}")


def is_stream(source: Source) -> bool:
    """Return whether the source is standard input, a pipe such as ``<(command)``, or a device."""
    if not isinstance(source, Path):
        return False
    return str(source) == "-" or (source.exists() and not source.is_file() and not source.is_dir())


@contextmanager
def as_file(source: Source) -> Iterator[Source]:
    """A file with the audio of the source, as decoders have to seek; a stream is copied to a temporary file."""
    if not (isinstance(source, Path) and is_stream(source)):
        yield source
        return
    with TemporaryDirectory(prefix="spintok-") as scratch:
        copy = Path(scratch, "standard-input")
        with copy.open("wb") as target:
            if str(source) == "-":
                shutil.copyfileobj(sys.stdin.buffer, target)
            else:
                with source.open("rb") as stream:
                    shutil.copyfileobj(stream, target)
        try:
            yield copy
        except ValueError as error:
            # The copy is gone when its name is read.
            name = "standard input" if str(source) == "-" else str(source)
            raise ValueError(str(error).replace(str(copy), name)) from error
