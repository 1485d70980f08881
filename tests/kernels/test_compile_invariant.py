"""The machine code of linear layers and attention: no spills, shared memory within limits, tensor-core instructions.

`python -m tests.kernels.test_compile_invariant` prints the table of NOTES.md.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

from spintok_kernels.attention import triton as attention  # noqa: E402
from spintok_kernels.linear import triton as linear  # noqa: E402

from tests.kernels.machine_code import Machine, compile_kernel  # noqa: E402

if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump").exists():
    pytest.skip("this Triton has no cuobjdump", allow_module_level=True)


def _linear(tile: linear.Tile, x: str, w: str, k: int = 768, columns: int = 128, capability: int = 90) -> Machine:
    types = {"x_ptr": x, "w_ptr": w, "bias_ptr": "*fp32", "out_ptr": x} | dict.fromkeys(("m", "n", "x_row"), "i32")
    values = {"K": k, "BM": tile.rows, "BN": columns, "BK": tile.depth, "GROUP": 8, "BIAS": True, "GELU": True}
    return compile_kernel(
        linear.linear_kernel, types | {"x_group": "i32"}, values, capability=capability, **tile.options
    )


def _attention(tile: attention.Tile, dtype: str, gated: bool, capability: int = 90) -> Machine:
    types = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), dtype) | {"lengths_ptr": "*i64", "scale": "fp32"}
    types |= dict.fromkeys(("positions_ptr", "gate_ptr"), "*fp32")
    types |= dict.fromkeys(("frames", "heads", "stride_b", "stride_t", "stride_h"), "i32")
    values = {"E": 64, "WIDE": 64, "BM": tile.queries, "BN": tile.keys, "GATED": gated}
    return compile_kernel(attention.attention_kernel, types, values, capability=capability, **tile.options)


Build = Callable[..., Machine]
KERNELS: dict[str, Build] = {
    "linear float32": partial(_linear, linear.FLOAT32, "*fp32", "*fp32"),
    "linear float16": partial(_linear, linear.HALF, "*fp16", "*fp16"),
    "linear float32 by float16": partial(_linear, linear.HALF, "*fp32", "*fp16"),
    "linear K=10": partial(_linear, linear.FLOAT32, "*fp32", "*fp32", k=10),
    "linear N=48": partial(_linear, linear.FLOAT32, "*fp32", "*fp32", k=6144, columns=64),
    "attention float32": partial(_attention, attention.FLOAT32, "*fp32", False),
    "attention float32 gated": partial(_attention, attention.FLOAT32, "*fp32", True),
    "attention float16": partial(_attention, attention.HALF, "*fp16", False),
    "attention float16 gated": partial(_attention, attention.HALF, "*fp16", True),
}


# Of each tile the form with the most registers.
BEFORE_HOPPER = ["linear float32", "linear float32 by float16", "attention float32 gated", "attention float16 gated"]
CASES = [(name, 90) for name in KERNELS] + [(name, 80) for name in BEFORE_HOPPER]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "capability"), CASES)
def test_tensor_cores_and_no_spills(name: str, capability: int) -> None:
    machine = KERNELS[name](capability=capability)
    assert machine.problems() == []
    assert machine.uses_tensor_cores


def _table() -> None:
    print(f"|kernel (Triton {triton.__version__})|GPU|registers|stack|shared KB|tensor-core instructions|", flush=True)
    print("|-|-|-|-|-|-|")
    for name, build in KERNELS.items():
        for capability in (80, 90):
            m = build(capability=capability)
            shared = m.shared_bytes / 1024
            print(
                f"|{name}|sm_{capability}|{m.registers}|{m.stack_bytes}|{shared:.0f}|{m.matrix_instructions}|",
                flush=True,
            )


if __name__ == "__main__":
    _table()
