"""Load the compiled CPU libraries and choose the instruction set to run."""

import ctypes
import os
import warnings
from collections.abc import Callable
from functools import cache, cached_property
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

__all__ = ["LEVELS", "Core", "NativeLibrary", "share_threads", "torch_team"]

Core = Literal["avx512", "avx2", "portable", "torch"]

# Instruction sets in the order of the C++ enumeration `Isa`.
LEVELS: tuple[Core, ...] = ("portable", "avx2", "avx512")


class NativeLibrary:
    """A compiled library that may be missing, in which case torch runs instead.

    Args:
        name: the library file is ``_NAME_cpu`` and its functions are ``spintok_NAME_...``. The environment variable
            ``SPINTOK_NAME_CPU`` forces one core, for tests and benchmarks.
        abi: the interface version that this package calls.
        declare: sets the argument types of the library's functions.
        portable: whether the portable core is faster than torch.
    """

    def __init__(self, name: str, abi: int, declare: Callable[[ctypes.CDLL], None], *, portable: bool) -> None:
        self.name = name
        self.variable = f"SPINTOK_{name.upper()}_CPU"
        self._abi = abi
        self._declare = declare
        self._portable = portable

    @cached_property
    def found(self) -> tuple[ctypes.CDLL | None, str]:
        """The loaded library, or None and the reason why it is missing."""
        paths = [Path(__file__).with_name(f"_{self.name}_cpu{suffix}") for suffix in EXTENSION_SUFFIXES]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            missing = "the compiled core was not built; install a C++ compiler (g++ or clang++) and reinstall spintok"
            return None, missing
        try:
            library = ctypes.CDLL(str(path))
            abi = getattr(library, f"spintok_{self.name}_abi")()
        except (OSError, AttributeError) as error:
            return None, f"the compiled core cannot be loaded ({error}); reinstall spintok"
        if abi != self._abi:
            return None, f"the compiled core has interface version {abi}, not {self._abi}; reinstall spintok"
        self._declare(library)
        return library, ""

    def functions(self) -> ctypes.CDLL:
        """Return the library. Raises RuntimeError if it is missing."""
        library, why_not = self.found
        if library is None:
            raise RuntimeError(why_not)
        return library

    def choose(self) -> tuple[Core, str]:
        """Return the core that runs on this CPU and the reason. Raises RuntimeError if a forced core cannot run."""
        library, why_not = self.found
        best = None if library is None else LEVELS[getattr(library, f"spintok_{self.name}_isa")()]
        forced = os.environ.get(self.variable)
        if not forced:
            if best is None:
                return "torch", why_not
            if best == "portable" and not self._portable:
                return "torch", "this CPU has neither AVX2 nor AVX-512, where torch's matrix product is faster"
            return best, f"the best of {', '.join(LEVELS)} that this CPU supports"
        if forced not in get_args(Core):
            raise ValueError(f"{self.variable}={forced}: not one of {', '.join(get_args(Core))}")
        if forced != "torch":
            if best is None:
                raise RuntimeError(f"{self.variable}={forced}: {why_not}")
            if LEVELS.index(cast(Core, forced)) > LEVELS.index(best):
                raise RuntimeError(f"{self.variable}={forced}: this CPU does not support it")
        return cast(Core, forced), f"{self.variable} is set"

    def warn_if_missing(self) -> None:
        """Warn once if torch runs only because the library is missing."""
        library, why_not = self.found
        if library is None and not os.environ.get(self.variable):
            _warn(self.name, why_not)


@cache
def _warn(name: str, why_not: str) -> None:
    warnings.warn(f"spintok_kernels runs {name} with torch, at half the speed or less: {why_not}", stacklevel=2)


_sharing: list[Any] = []
_forked = False


def share_threads(use: Any) -> None:
    """Let a library compute on the threads of torch's OpenMP, where torch has one; ``use`` takes ``GOMP_parallel``.

    Forked processes start threads of their own: OpenMP's did not come with them, but GNU's waits for them.
    """
    use.argtypes, use.restype = [ctypes.c_void_p], None
    if not _forked:
        use(torch_team())
        _sharing.append(use)


@cache
def torch_team() -> int | None:
    """The address of ``GOMP_parallel``, which LLVM's and Intel's OpenMP have too."""
    # The module's own libraries are searched: other packages load other copies of OpenMP.
    team = getattr(ctypes.CDLL(torch._C.__file__), "GOMP_parallel", None)
    return ctypes.cast(team, ctypes.c_void_p).value if team else None


def _after_fork() -> None:
    global _forked
    _forked = True
    for use in _sharing:
        use(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
