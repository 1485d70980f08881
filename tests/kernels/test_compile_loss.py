"""The machine code of the loss kernels: no spills, shared memory within limits, 16 bytes a load.

`python -m tests.kernels.test_compile_loss` prints the table of NOTES.md.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

from spintok_kernels.swapped_prediction import triton as driver  # noqa: E402
from spintok_kernels.swapped_prediction.triton import ends, passes  # noqa: E402

from tests.kernels.machine_code import Machine, compile_kernel  # noqa: E402

if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump").exists():
    pytest.skip("this Triton has no cuobjdump", allow_module_level=True)

SIZES = {"n": "i32", "scale": "fp32"}
NAMES = ["columns", "totals", "swap"]
# At 132 multiprocessors: programs, and the next power of two.
PROGRAMS = 512


def build(name: str, k: int, dtype: str = "*fp16", capability: int = 90) -> Machine:
    """Compile a pass; float16 scores have padded rows, float32 scores have not."""
    width = driver.padded_width(k) if dtype == "*fp16" else k
    kp, rows, warps = driver.pass_tile(k)
    sizes = {"K": k, "LD": width, "KP": kp, "BN": rows}
    pointers = {"scores": dtype, "parts": "*fp32"}
    options = {"num_warps": warps, "capability": capability}
    if name == "columns":
        return compile_kernel(passes.columns_kernel, pointers | SIZES, sizes, **options)
    if name == "totals":
        return compile_kernel(
            passes.totals_kernel, pointers | SIZES | {"u": "*fp32"}, sizes | {"POTENTIAL": True}, **options
        )
    kp, rows, warps, tile = driver.swap_tile(k)
    pointers = {"scores": dtype, "u": "*fp32", "losses": "*fp32", "agreements": "*i32", "counts": "*i32"}
    sizes |= {"KP": kp, "BN": rows, "TILE": tile, "GRAD": True, "METRICS": True}
    options["num_warps"] = warps
    return compile_kernel(passes.swap_kernel, pointers | SIZES | {"inverse": "fp32"}, sizes, **options)


def small(name: str) -> Machine:
    sizes = {"K": 8192, "LD": 8192}
    codes = sizes | {"BK": driver.CODES, "GP": PROGRAMS}
    parts = {"parts": "*fp32", "programs": "i32"}
    match name:
        case "cast":
            pointers = dict.fromkeys(("z1", "z2", "c"), "*fp32") | dict.fromkeys(("zh", "ch"), "*fp16")
            return compile_kernel(ends.cast_kernel, pointers | {"n": "i32"}, sizes | {"D": 256, "BLOCK": driver.BLOCK})
        case "update first" | "update":
            pointers = parts | {"exact": "*fp64", "u": "*fp32"}
            return compile_kernel(passes.update_kernel, pointers, codes | {"FIRST": name == "update first"})
        case "entropy":
            pointers = parts | {"counts": "*i32", "entropies": "*fp64", "n": "i32"}
            return compile_kernel(ends.entropy_kernel, pointers, codes)
        case "final":
            pointers = dict.fromkeys(("losses", "loss_out", "watched", "factor"), "*fp32")
            pointers |= {"agreements": "*i32", "entropies": "*fp64"}
            pointers |= dict.fromkeys(("programs", "blocks", "n"), "i32") | {"temperature": "fp32"}
            return compile_kernel(ends.final_kernel, pointers, {"GP": PROGRAMS, "EP": 256, "METRICS": True})
        case _:
            pointers = dict.fromkeys(("dz", "dc", "z_out", "c_out", "grad", "factor"), "*fp32")
            return compile_kernel(
                ends.scale_kernel, pointers | {"size": "i64", "small": "i32"}, {"BLOCK": driver.BLOCK}
            )


SMALL = ["cast", "update first", "update", "entropy", "final", "scale"]


@pytest.mark.parametrize("k", [50, 500, 8192])
@pytest.mark.parametrize("name", NAMES)
def test_passes(name: str, k: int) -> None:
    machine = build(name, k)
    assert machine.problems() == []
    # Rows are padded so that the scores are read 16 bytes at a time.
    assert "ld.global.v4.b32" in machine.ptx


@pytest.mark.slow
@pytest.mark.parametrize("k", [4095, 8191])
@pytest.mark.parametrize("name", NAMES)
def test_passes_of_other_sizes(name: str, k: int) -> None:
    # The longest rows of either number of warps, with a mask.
    assert build(name, k).problems() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("k", "dtype", "capability"),
    [(500, "*fp16", 80), (8191, "*fp16", 80), (8191, "*fp16", 100), (500, "*fp32", 90), (8191, "*fp32", 90)],
)
@pytest.mark.parametrize("name", NAMES)
def test_passes_of_other_scores_and_gpus(name: str, k: int, dtype: str, capability: int) -> None:
    # Several rows a program, and the longest rows, with a mask.
    assert build(name, k, dtype, capability).problems() == []


@pytest.mark.parametrize("name", SMALL)
def test_other_kernels(name: str) -> None:
    assert small(name).problems() == []


def _table() -> Iterator[str]:
    yield "|kernel (sm_90, Triton " + triton.__version__ + ")|registers|stack|shared KB|loads of 16 bytes|"
    yield "|-|-|-|-|-|"
    machines = [(f"{name} K={k}", build(name, k)) for name in NAMES for k in (50, 500, 2000, 4096, 8192)]
    for name, m in [*machines, *((name, small(name)) for name in SMALL)]:
        yield f"|{name}|{m.registers}|{m.stack_bytes}|{m.shared_bytes / 1024:.0f}|{m.sass.count('LDG.E.128')}|"


if __name__ == "__main__":
    for line in _table():
        print(line, flush=True)
