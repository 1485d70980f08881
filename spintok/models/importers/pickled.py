"""Parse pickles of scikit-learn's K-means, as pickle and joblib write them, without running anything.

A pickle is a program for a small stack machine. Python's own machine imports modules and calls functions; this one does
neither. It knows an allow-list of instructions, and an allow-list of names that K-means need. A name becomes a
``Call`` that only stores what the pickle says about it; arrays are read as numbers. Anything else is refused.

joblib puts the bytes of an array into the file right behind the instructions that describe the array.
"""

import io
import pickletools
import re
import zlib
from bz2 import BZ2Decompressor
from dataclasses import dataclass, field
from lzma import LZMADecompressor, LZMAError
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spintok.models.importers.weights import CheckpointError

__all__ = ["Call", "read_pickled"]

MOST_BYTES = 1 << 31
"""A K-means of 10,000 centroids of 1,280 numbers has 100 MB; more than 2 GB come from a bomb."""

_MOST_INSTRUCTIONS = 1_000_000
_NAMES = re.compile(
    r"sklearn\.cluster\.(k_means_|_kmeans|_k_means_minibatch) (KMeans|MiniBatchKMeans)"
    r"|sklearn\.utils\.\S+ \w+"
    r"|joblib\.numpy_pickle NumpyArrayWrapper|sklearn\.externals\.joblib\.numpy_pickle NumpyArrayWrapper"
    r"|numpy (ndarray|dtype)"
    r"|numpy\._?core\.(multiarray|numeric) (_reconstruct|scalar|_frombuffer)"
    r"|numpy\.random(\.\S+)? \w+"
    r"|(copyreg|copy_reg) _reconstructor|(builtins|__builtin__) object|_codecs encode"
)
_DTYPE = re.compile(r"[fiub][1248]")


@dataclass(eq=False)
class Call:
    """What a pickle would call: a name, its arguments, and the state that the result would be given.

    Attributes:
        name: "module name".
        args: its arguments.
        state: a dictionary, a tuple, or None.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


def read_pickled(path: Path) -> Any:
    """The object in a pickle or joblib file: numbers, texts, lists, dictionaries, arrays and ``Call``.

    Raises:
        CheckpointError: one line: the file is damaged, too large, or holds what a K-means does not need.
    """
    data = _unpacked(path.read_bytes())
    try:
        return _Machine(io.BytesIO(data)).run()
    except CheckpointError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, EOFError, OverflowError, MemoryError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"it is damaged or not a pickle: {reason}") from None


def _unpacked(data: bytes) -> bytes:
    """The data without joblib's compression."""
    unpack: Any
    if data[:2] == b"\x1f\x8b" or (data[:1] == b"\x78" and len(data) > 1 and int.from_bytes(data[:2], "big") % 31 == 0):
        unpack = zlib.decompressobj(wbits=47)
    elif data[:3] == b"BZh":
        unpack = BZ2Decompressor()
    elif data[:6] == b"\xfd7zXZ\x00" or data[:3] == b"\x5d\x00\x00":
        unpack = LZMADecompressor()
    else:
        return data
    try:
        found: bytes = unpack.decompress(data, MOST_BYTES + 1)
    except (zlib.error, OSError, LZMAError, EOFError) as error:
        raise CheckpointError(f"its compressed data is damaged: {error}") from None
    if len(found) > MOST_BYTES:
        raise CheckpointError(f"it unpacks to more than {MOST_BYTES >> 30} GB, which no K-means has")
    return found


class _Machine:
    """The stack machine."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for count, (code, argument, _) in enumerate(pickletools.genops(self.file)):
            if count > _MOST_INSTRUCTIONS:
                raise CheckpointError("it has more instructions than any K-means")
            if code.name == "STOP":
                (found,) = self.stack
                return found
            self.step(code.name, argument)
        raise ValueError("it has no end")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case (
                "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4" | "FLOAT" | "BINFLOAT"
                | "STRING" | "BINSTRING" | "SHORT_BINSTRING" | "UNICODE" | "SHORT_BINUNICODE" | "BINUNICODE"
                | "BINUNICODE8" | "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8" | "BYTEARRAY8"
            ):  # fmt: skip
                stack.append(argument)
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append({"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list}[name]())
            case "MARK":
                self.marks.append(len(stack))
            case "TUPLE" | "LIST" | "FROZENSET":
                parts = self.marked()
                stack.append(tuple(parts) if name == "TUPLE" else parts)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(name[-1])
                parts, self.stack[-size:] = stack[-size:], []
                if len(parts) != size:
                    raise ValueError("its stack is empty")
                stack.append(tuple(parts))
            case "DICT":
                parts = self.marked()
                stack.append(dict(zip(parts[::2], parts[1::2], strict=True)))
            case "APPEND" | "APPENDS" | "ADDITEMS":
                parts = [stack.pop()] if name == "APPEND" else self.marked()
                target = stack[-1].items if isinstance(stack[-1], Call) else stack[-1]
                target.extend(parts)
            case "SETITEM" | "SETITEMS":
                parts = self.marked() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                if not isinstance(stack[-1], Call):
                    stack[-1].update(zip(parts[::2], parts[1::2], strict=True))
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.marked()
            case "GLOBAL":
                stack.append(_known(argument))
            case "STACK_GLOBAL":
                called, module = stack.pop(), stack.pop()
                stack.append(_known(f"{module} {called}"))
            case "REDUCE" | "NEWOBJ":
                args, called = stack.pop(), stack.pop()
                stack.append(_result(called, args))
            case "BUILD":
                state, target = stack.pop(), stack[-1]
                if not isinstance(target, Call):
                    raise CheckpointError(f"it sets the state of a {type(target).__name__}, which no K-means does")
                self.build(target, state)
            case _:
                raise CheckpointError(f"it has the instruction {name}, which no K-means needs")

    def build(self, target: Call, state: Any) -> None:
        """Give an object its state; arrays are read at once."""
        target.state = state
        if target.name.endswith("NumpyArrayWrapper"):
            self.replace(target, self.array(state))
        elif target.name.endswith("_reconstruct"):
            self.replace(target, _array_of(*state[1:5]))

    def replace(self, target: Call, array: NDArray[Any]) -> None:
        self.stack[-1] = array
        for key, value in self.memo.items():
            if value is target:
                self.memo[key] = array

    def array(self, state: dict[str, Any]) -> NDArray[Any]:
        """The array whose bytes follow in the file. Source of the layout: joblib, ``numpy_pickle.py``."""
        if state.get("numpy_array_alignment_bytes") is not None:
            self.file.read(self.file.read(1)[0])
        dtype, shape = _dtype(state["dtype"]), _shape(state["shape"])
        size = dtype.itemsize * int(np.prod(shape, dtype=object))
        place = self.file.tell()
        if size > self.file.seek(0, io.SEEK_END) - place:
            raise CheckpointError(f"it is incomplete: an array {shape} of {dtype} is longer than the file")
        self.file.seek(place)
        flat = np.frombuffer(self.file.read(size), dtype)
        return flat.reshape(shape, order="F" if state.get("order") == "F" else "C")

    def marked(self) -> list[Any]:
        start = self.marks.pop()
        parts, self.stack[start:] = self.stack[start:], []
        return parts


def _known(name: str) -> Call:
    if not _NAMES.fullmatch(name):
        raise CheckpointError(
            f"it refers to {name[:80].replace(' ', '.')}, which no K-means needs: it is something else, or means harm"
        )
    return Call(name)


def _result(called: Any, args: Any) -> Any:
    if not isinstance(called, Call) or not isinstance(args, tuple):
        raise ValueError("it calls what is no function")
    if called.name == "_codecs encode":
        text, encoding = args
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"bytes in the encoding {str(encoding)[:20]}")
        return text.encode("latin1")
    if called.name.endswith("_frombuffer"):
        data, dtype, shape, order = args
        return _array_of(shape, dtype, order == "F", data)
    if called.name.endswith(" scalar"):
        return _array_of((), args[0], False, args[1])[()]
    if called.name.endswith(" _reconstructor") and args and isinstance(args[0], Call):
        # Protocols 0 and 1 make objects by this function of their class.
        return Call(args[0].name)
    return Call(called.name, args)


def _array_of(shape: Any, dtype: Any, fortran: Any, data: Any) -> NDArray[Any]:
    """An array whose bytes are in the pickle itself."""
    if isinstance(data, str):
        data = data.encode("latin1")
    return np.frombuffer(data, _dtype(dtype)).reshape(_shape(shape), order="F" if fortran else "C")


def _dtype(found: Any) -> np.dtype[Any]:
    """The type of an array of numbers."""
    kind = found.args[0] if isinstance(found, Call) and found.name == "numpy dtype" and found.args else None
    if not isinstance(kind, str) or not _DTYPE.fullmatch(kind):
        raise CheckpointError(f"it holds an array of {str(kind)[:20]}, which are no numbers")
    order: Any = found.state[1] if found.state else "="
    return np.dtype(kind).newbyteorder(order if order in ("<", ">", "=") else "=")


def _shape(found: Any) -> tuple[int, ...]:
    if not isinstance(found, tuple) or len(found) > 8 or not all(type(size) is int and size >= 0 for size in found):
        raise ValueError(f"an array of the shape {str(found)[:80]}")
    return found
