"""The ops as torch sees them: schema, fake tensors, torch.compile, no recompiling for another N."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from spintok_kernels import assign, prepare
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.inputs import make

CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.mark.parametrize("layout", ["torch", None])
@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_opcheck_assign(metric: str, layout: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if layout:
        monkeypatch.setenv("SPINTOK_ASSIGN_CPU", layout)
    z, codebook = make("unit", 33, 20, 8)
    book = prepare(codebook, metric)
    ops = torch.ops.spintok
    torch.library.opcheck(ops.prepare_codebook.default, (codebook, metric, book.layout), test_utils=CHECKS[:3])
    for op in (ops.assign, ops.assign_scores):
        torch.library.opcheck(op.default, (z, book.tensors, metric, book.layout), test_utils=CHECKS)


def test_compiled_without_breaks_and_once_for_every_length() -> None:
    _, codebook = make("unit", 1, 20, 8)
    compilations = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        compilations.append(graph)
        return graph.forward

    prepared = prepare(codebook)

    def tokens(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ids, scores, margins = assign(z * 2, codebook, return_scores=True)
        return ids + 1, scores + margins, assign(z, prepared) - 1

    torch._dynamo.reset()
    compiled = torch.compile(tokens, fullgraph=True, dynamic=True, backend=backend)
    for n in (5, 17, 64, 100, 333):
        z, _ = make("unit", n, 20, 8, seed=n)
        for mine, eager in zip(compiled(z), tokens(z), strict=True):
            assert torch.equal(mine, eager)
    assert len(compilations) == 1


def test_modes_see_the_op() -> None:
    # Outside of them, a call on a prepared codebook does not go through torch.
    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    names: list[str] = []
    z, codebook = make("unit", 5, 20, 8)
    prepared = prepare(codebook)
    alone = assign(z, prepared, return_scores=True)
    with Seen():
        found = assign(z, prepared, return_scores=True)
    assert any("spintok.assign_scores" in name for name in names)
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


def test_shapes_without_data() -> None:
    with FakeTensorMode():
        z = torch.empty(7, 4)
        found = assign(z, [torch.empty(3, 4), torch.empty(9, 4)], return_scores=True)
        assert [(x.shape, x.dtype) for x in found] == [
            ((2, 7), torch.int32),
            ((2, 7), torch.float32),
            ((2, 7), torch.float32),
        ]


def test_gradients_do_not_flow() -> None:
    z = torch.ones(3, 4, requires_grad=True)
    found = assign(z, torch.eye(4, requires_grad=True), return_scores=True)
    assert not any(x.requires_grad for x in found)


def test_a_cpu_machine_imports_no_triton() -> None:
    program = "import sys, spintok_kernels as k, torch; k.assign(torch.eye(3), torch.eye(3)); k.backends()"
    check = "; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program + check], check=True, timeout=120)
