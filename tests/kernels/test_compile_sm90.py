"""What the GPU kernels become for an H100 or H200: no spills, within shared memory, Hopper's matrix
instructions.

`python -m tests.kernels.test_compile_sm90` prints the table of NOTES.md.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

from spintok_kernels.assign import tiles  # noqa: E402
from spintok_kernels.assign import triton as kernels  # noqa: E402

from tests.kernels.sm90 import Machine, compile_sm90  # noqa: E402

if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump").exists():
    pytest.skip("this Triton has no cuobjdump", allow_module_level=True)


def _nearest_half(depth: int, l2: bool, **changes: int) -> Machine:
    padded, tiling = tiles.tile_sizes(depth)
    tiling |= changes
    options = {name: tiling.pop(name) for name in ("num_warps", "num_stages")}
    pointers = dict.fromkeys(("bias_ptr", "row_ptr", "book_ptr", "margins_ptr"), "*fp32")
    pointers |= dict.fromkeys(("ids_ptr", "work_ptr", "counter_ptr"), "*i32")
    return compile_sm90(
        kernels.nearest_half_kernel,
        {"z_ptr": "*fp16", "c_ptr": "*fp16", "n": "i32", "tiles": "i32"} | pointers,
        {"D": depth, "DP": padded, "TILE_BITS": 7, "L2": l2, "EXACT": True, "MARGINS": False} | tiling,
        unaligned={"work_ptr", "counter_ptr", "ids_ptr", "margins_ptr", "row_ptr"},
        **options,
    )


def _nearest_split(depth: int, l2: bool, **changes: int) -> Machine:
    padded, _ = tiles.tile_sizes(depth)
    tiling = tiles.SPLIT_TILES | {"BD": min(32, padded)} | changes
    options = {name: tiling.pop(name) for name in ("num_warps", "num_stages")}
    names = ("z_ptr", "mean_ptr", "c_ptr", "bias_ptr", "row_ptr", "book_ptr", "margins_ptr")
    pointers = dict.fromkeys(names, "*fp32")
    pointers |= dict.fromkeys(("ids_ptr", "from_ptr", "count_ptr", "work_ptr", "counter_ptr"), "*i32")
    return compile_sm90(
        kernels.nearest_split_kernel,
        pointers | {"n": "i32", "tiles": "i32"},
        {"D": depth, "DP": padded, "L2": l2, "ALL": False, "MARGINS": False} | tiling,
        unaligned={"work_ptr", "counter_ptr", "ids_ptr", "margins_ptr", "row_ptr"},
        **options,
    )


def _prepare(depth: int, book: bool) -> Machine:
    padded, _ = tiles.tile_sizes(depth)
    wide = triton.next_power_of_2(padded)
    names = ("x_ptr", "mean_ptr", "top_ptr", "full_ptr", "bias_ptr", "stats_ptr")
    return compile_sm90(
        kernels.prepare_kernel,
        dict.fromkeys(names, "*fp32") | {"half_ptr": "*fp16", "valid": "i32", "rows": "i32"},
        {"D": depth, "WIDE": wide, "DP": padded, "BLOCK": max(1, 8192 // wide), "L2": True, "BOOK": book},
    )


def _by_definition(everything: bool) -> Machine:
    pointers = dict.fromkeys(("z_ptr", "ct_ptr", "margins_ptr"), "*fp32")
    pointers |= dict.fromkeys(("ids_ptr", "from_ptr", "count_ptr"), "*i32")
    return compile_sm90(
        kernels.by_definition_kernel,
        pointers | {"n": "i32", "k": "i32"},
        {"D": 256, "BK": 512, "L2": True, "ALL": everything, "MARGINS": True},
        num_warps=8,
    )


def _scores() -> Machine:
    pointers = {"z_ptr": "*fp32", "c_ptr": "*fp32", "ids_ptr": "*i32", "scores_ptr": "*fp32", "n": "i32"}
    constants = {"D": 768, "BLOCK": 32, "BD": 64, "L2": True}
    return compile_sm90(kernels.scores_kernel, pointers, constants)


DOTS: dict[str, Callable[[], Machine]] = {
    "nearest_half D=39 l2": lambda: _nearest_half(39, True),
    "nearest_half D=256 dot": lambda: _nearest_half(256, False),
    "nearest_half D=256 l2": lambda: _nearest_half(256, True),
    "nearest_half D=768 dot": lambda: _nearest_half(768, False),
    "nearest_half D=768 l2": lambda: _nearest_half(768, True),
    "nearest_split D=256 dot": lambda: _nearest_split(256, False),
    "nearest_split D=768 l2": lambda: _nearest_split(768, True),
}
OTHERS: dict[str, Callable[[], Machine]] = {
    "prepare D=256 rows": lambda: _prepare(256, False),
    "prepare D=768 codebook": lambda: _prepare(768, True),
    "by_definition all rows": lambda: _by_definition(True),
    "by_definition worklist": lambda: _by_definition(False),
    "scores D=768 l2": _scores,
}


@pytest.mark.parametrize("name", DOTS)
def test_matrix_kernels(name: str) -> None:
    machine = DOTS[name]()
    assert machine.problems() == []
    assert machine.count("HGMMA") > 0
    # The older instruction, at half the rate.
    assert machine.count("HMMA") == 0


@pytest.mark.parametrize("name", OTHERS)
def test_other_kernels(name: str) -> None:
    machine = OTHERS[name]()
    assert machine.problems() == []


def _table() -> Iterator[str]:
    yield "|kernel (sm_90, Triton " + triton.__version__ + ")|registers|stack|shared KB|HGMMA|async copies|"
    yield "|-|-|-|-|-|-|"
    for name, build in (DOTS | OTHERS).items():
        m = build()
        shared = f"{m.shared_bytes / 1024:.0f}"
        yield f"|{name}|{m.registers}|{m.stack_bytes}|{shared}|{m.count('HGMMA')}|{m.count('LDGSTS')}|"


if __name__ == "__main__":
    for line in _table():
        print(line, flush=True)
