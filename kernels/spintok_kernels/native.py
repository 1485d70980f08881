"""Compiled CPU cores: C++ libraries beside this package, found once and matched to the machine."""

import ctypes
import os
import warnings
from collections.abc import Callable
from functools import cache, cached_property
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Literal, cast, get_args

__all__ = ["LEVELS", "Core", "NativeLibrary"]

Core = Literal["avx512", "avx2", "portable", "torch"]

# A library's levels, in its own order.
LEVELS: tuple[Core, ...] = ("portable", "avx2", "avx512")


class NativeLibrary:
    """One compiled library, which may be missing, and the choice between it and torch.

    Args:
        name: it is ``_NAME_cpu``, its functions are ``spintok_NAME_...``; the environment variable
            ``SPINTOK_NAME_CPU`` forces a core, for tests and benchmarks.
        abi: the version of its functions that this package calls.
        declare: gives its functions their argument types.
        portable: whether its portable core is faster than torch.
    """

    def __init__(self, name: str, abi: int, declare: Callable[[ctypes.CDLL], None], *, portable: bool) -> None:
        self.name = name
        self.variable = f"SPINTOK_{name.upper()}_CPU"
        self._abi = abi
        self._declare = declare
        self._portable = portable

    @cached_property
    def found(self) -> tuple[ctypes.CDLL | None, str]:
        """The library, or None and why there is none."""
        paths = [Path(__file__).with_name(f"_{self.name}_cpu{suffix}") for suffix in EXTENSION_SUFFIXES]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            missing = "the compiled core was not built; install a C++ compiler (g++ or clang++) and reinstall spintok"
            return None, missing
        try:
            library = ctypes.CDLL(str(path))
            abi = getattr(library, f"spintok_{self.name}_abi")()
        except (OSError, AttributeError) as error:
            return None, f"the compiled core does not load ({error}); reinstall spintok"
        if abi != self._abi:
            return None, f"the compiled core is of another version ({abi}, not {self._abi}); reinstall spintok"
        self._declare(library)
        return library, ""

    def functions(self) -> ctypes.CDLL:
        """The library. RuntimeError if there is none."""
        library, why_not = self.found
        if library is None:
            raise RuntimeError(why_not)
        return library

    def choose(self) -> tuple[Core, str]:
        """The core that runs on this CPU, and why. RuntimeError if a forced one cannot run here."""
        library, why_not = self.found
        best = None if library is None else LEVELS[getattr(library, f"spintok_{self.name}_isa")()]
        forced = os.environ.get(self.variable)
        if not forced:
            if best is None:
                return "torch", why_not
            if best == "portable" and not self._portable:
                return "torch", "this CPU has neither AVX2 nor AVX-512, where torch's matrix product is faster"
            return best, f"the best this CPU can run of {', '.join(LEVELS)}"
        if forced not in get_args(Core):
            raise ValueError(f"{self.variable}={forced}: not one of {', '.join(get_args(Core))}")
        if forced != "torch":
            if best is None:
                raise RuntimeError(f"{self.variable}={forced}: {why_not}")
            if LEVELS.index(cast(Core, forced)) > LEVELS.index(best):
                raise RuntimeError(f"{self.variable}={forced}: this CPU cannot run it")
        return cast(Core, forced), f"{self.variable} is set"

    def warn_if_missing(self) -> None:
        """Say once that torch runs because the library is missing where it could be had."""
        library, why_not = self.found
        if library is None and not os.environ.get(self.variable):
            _warn(self.name, why_not)


@cache
def _warn(name: str, why_not: str) -> None:
    warnings.warn(f"spintok_kernels' {name} runs on torch, at half the speed or less: {why_not}", stacklevel=2)
