"""Fixtures that run Triton kernels in Triton's interpreter, on the CPU."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

__all__ = ["interpreted", "sum_in_order"]


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Return a function that loads a fresh copy of a module whose kernels run in Triton's interpreter.

    Its arguments are the module's name and, for a package, the names of its parts in the order of their imports. After
    the test `sys.modules` is as before, so the same process can compile the real kernels (see `sm90.py`) and run them
    on a GPU. Within the test, the `triton.language` functions that are kernels themselves (`tl.zeros`, `tl.cdiv`) are
    interpreted too: Triton decides that once, at import. The interpreter replaces parts of `triton.language` and does
    not restore all of them; this fixture does.
    """
    pytest.importorskip("triton")
    import numpy as np
    import triton
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    if triton.__version__ < "3.7" and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("the interpreter of Triton < 3.7 cannot loop to a run-time bound with numpy >= 2.4")
    modules = [tl, tl.core, tl.standard, tl.math]
    owners = modules + [item for _, item in inspect.getmembers(tl.core, inspect.isclass)]
    before = [(owner, dict(vars(owner))) for owner in owners]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for owner in modules:
        for name, value in list(vars(owner).items()):
            if isinstance(value, JITFunction):
                setattr(owner, name, InterpretedFunction(value.fn))

    # Triton replaces the language again at each call of a function by a kernel, which takes a third of the time.
    # Once in a launch is enough, for each module that functions are called from.
    ready: set[int] = set()
    launch = InterpretedFunction.run

    def run(self: Any, *arguments: Any, **options: Any) -> None:
        ready.clear()
        launch(self, *arguments, **options)

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        if id(self.fn.__globals__) not in ready:
            interpreter._patch_lang(self.fn)
            ready.add(id(self.fn.__globals__))
        return self.rewrite()(*arguments, **options)

    monkeypatch.setattr(InterpretedFunction, "run", run)
    monkeypatch.setattr(InterpretedFunction, "__call__", call)

    def load(name: str, *parts: str) -> ModuleType:
        for part in (*(f"{name}.{part}" for part in parts), name):
            spec = importlib.util.find_spec(part)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            # The modules that follow import this copy.
            monkeypatch.setitem(sys.modules, part, module)
            spec.loader.exec_module(module)
        return module

    yield load
    for owner, attributes in before:
        for name, value in list(vars(owner).items()):
            if name in attributes and attributes[name] is not value:
                setattr(owner, name, attributes[name])
            # What it adds to a module (its own helpers, by name) its cached kernels go on using.
            elif name not in attributes and inspect.isclass(owner):
                delattr(owner, name)


@pytest.fixture
def sum_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's product, which the interpreter calls, sums rows in an order that depends on their place in the tile.

    A tensor core does not: in the fixed order of a loop, what is left to test is the kernel.
    """
    import numpy as np
    from triton.runtime import interpreter

    def dot(self: object, a: Any, b: Any, d: Any, *options: object) -> Any:
        product = np.einsum("ik,kj->ij", a.data.astype(np.float32), b.data.astype(np.float32), optimize=False)
        return interpreter.TensorHandle(product + d.data, d.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)
