"""The machine code of the assignment kernels: no spills, shared memory within limits, tensor-core instructions.

`python -m tests.kernels.test_compile_assign` prints the table of NOTES.md.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

from spintok_kernels.assign.triton import codebook, finish, nearest, tiles, wide  # noqa: E402
from spintok_kernels.assign.triton.tiles import Tile  # noqa: E402

from tests.kernels.machine_code import Machine, compile_kernel  # noqa: E402

if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump").exists():
    pytest.skip("this Triton has no cuobjdump", allow_module_level=True)

POINTERS = dict.fromkeys(("z_ptr", "mean_ptr", "bias_ptr", "book_ptr", "lanes_ptr", "limit_ptr"), "*fp32")
POINTERS |= dict.fromkeys(("ids_ptr", "list_ptr", "counts_ptr"), "*i32") | {"scratch_ptr": "*fp16"}
SIZES = dict.fromkeys(("n", "groups", "splits"), "i32")


def _nearest(tile: Tile, depth: int, l2: bool = False, split: bool = False, capability: int = 90) -> Machine:
    cut = tiles.chunks(depth)
    return compile_kernel(
        nearest.nearest_kernel,
        POINTERS | SIZES | {"c_ptr": "*fp16", "codebook_ptr": "*fp32", "k": "i32", "tiles": "i32"},
        {
            "D": depth,
            "NC": cut.number,
            "CW": cut.width,
            "BN": tile.rows,
            "BK": tile.codes,
            "SPLIT": split,
            "BITS": 8,
            "L2": l2,
            "DETAILS": False,
            "STAGES": tile.stages,
            "SCRATCH": tile.scratch,
            "FUSED": tile.fused,
            "WIDE": triton.next_power_of_2(depth),
        },
        unaligned={"ids_ptr"},
        capability=capability,
        **tile.options,
    )


def _wide(tile: Tile, depth: int, l2: bool = False, split: bool = False, capability: int = 90) -> Machine:
    reference = f"tensordesc<fp16[{tile.codes},{tile.columns}]>" if tile.tma else "*fp16"
    return compile_kernel(
        wide.nearest_wide_kernel,
        POINTERS | SIZES | {"c_ref": reference},
        {
            "D": depth,
            "DP": tiles.chunks(depth).padded,
            "BD": tile.columns,
            "BN": tile.rows,
            "BK": tile.codes,
            "SPLIT": split,
            "BITS": 8,
            "L2": l2,
            "DETAILS": False,
            "STAGES": tile.stages,
            "TMA": tile.tma,
        },
        unaligned={"ids_ptr"},
        capability=capability,
        **tile.options,
    )


def _finish(depth: int, l2: bool = False, split: bool = False, details: bool = False, capability: int = 90) -> Machine:
    pointers = dict.fromkeys(("c_ptr", "scores_ptr", "margins_ptr"), "*fp32") | POINTERS
    for unused in ("mean_ptr", "bias_ptr", "scratch_ptr"):
        del pointers[unused]
    return compile_kernel(
        finish.finish_kernel,
        pointers | dict.fromkeys(("n", "k", "tiles", "items", "splits"), "i32"),
        {
            "D": depth,
            "WIDE": triton.next_power_of_2(depth),
            "BN": 128,
            "SUB": tiles.SUB,
            "SPLIT": split,
            "SP": tiles.MAX_SPLITS,
            "BITS": 8,
            "L2": l2,
            "DETAILS": details,
        },
        unaligned={"ids_ptr", "scores_ptr", "margins_ptr"},
        capability=capability,
        num_warps=1,
    )


def _prepare(depth: int) -> Machine:
    wide = triton.next_power_of_2(depth)
    names = ("c_ptr", "mean_ptr", "top_ptr", "bias_ptr", "part_ptr")
    return compile_kernel(
        codebook.prepare_kernel,
        dict.fromkeys(names, "*fp32") | {"half_ptr": "*fp16", "k": "i32", "rows": "i32"},
        {"D": depth, "DP": depth, "WIDE": wide, "BLOCK": max(1, 4096 // wide), "L2": True},
    )


Build = Callable[[], Machine]
# Two programs on a multiprocessor: at most 128 registers of 256 threads, and half the shared memory.
SHARED: dict[str, Build] = {
    "nearest D=256 dot": partial(_nearest, tiles.NARROW, 256),
    "nearest D=256 l2": partial(_nearest, tiles.NARROW, 256, l2=True),
    "nearest D=256 split": partial(_nearest, tiles.NARROW, 256, split=True),
    "nearest D=128 dot": partial(_nearest, tiles.NARROW_128, 128),
}
ALONE: dict[str, Build] = {
    "wide D=768 dot": partial(_wide, tiles.WIDE, 768),
    "wide D=768 l2": partial(_wide, tiles.WIDE_L2, 768, l2=True),
    "wide D=1024 split": partial(_wide, tiles.WIDE, 1024, split=True),
}
SMALL: dict[str, Build] = {
    "nearest fused D=256": partial(_nearest, tiles.FUSED, 256),
    "nearest fused D=39 l2": partial(_nearest, tiles.FUSED, 39, l2=True),
}
OTHERS: dict[str, Build] = {
    "finish D=256": partial(_finish, 256),
    "finish D=256 split": partial(_finish, 256, split=True),
    "finish D=1024 l2": partial(_finish, 1024, l2=True),
    "finish D=768 details": partial(_finish, 768, details=True),
    "prepare D=256": partial(_prepare, 256),
    "prepare D=768": partial(_prepare, 768),
}
OTHER_GPUS: dict[str, Build] = {
    f"{name} sm_{capability}": partial(build, capability=capability)
    for capability in (80, 100)
    for name, build in {
        "nearest D=256 l2": partial(_nearest, tiles.OTHER_NARROW, 256, l2=True),
        "wide D=768 dot": partial(_wide, tiles.OTHER_WIDE, 768),
    }.items()
}


@pytest.mark.parametrize("name", SHARED)
def test_two_programs_share_a_multiprocessor(name: str) -> None:
    machine = SHARED[name]()
    assert machine.problems() == []
    assert machine.uses_tensor_cores
    assert "mma.sync" not in machine.ptx
    assert machine.registers <= 128
    # Each block also reserves 1 KB of the 228.
    assert machine.shared_bytes <= (228 // 2 - 1) * 1024


@pytest.mark.parametrize("name", ALONE)
def test_wide_kernels(name: str) -> None:
    machine = ALONE[name]()
    assert machine.problems() == []
    assert machine.uses_tensor_cores
    assert "mma.sync" not in machine.ptx
    # Codewords arrive by bulk copies.
    assert "cp.async.bulk.tensor" in machine.ptx


@pytest.mark.parametrize("name", SMALL)
def test_fused_kernels(name: str) -> None:
    # Tiles of 16 rows are too small for Hopper's instruction.
    machine = SMALL[name]()
    assert machine.problems() == []
    assert "mma.sync" in machine.ptx


@pytest.mark.parametrize("name", OTHERS)
def test_other_kernels(name: str) -> None:
    assert OTHERS[name]().problems() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_GPUS)
def test_other_gpus(name: str) -> None:
    machine = OTHER_GPUS[name]()
    assert machine.problems() == []
    assert machine.uses_tensor_cores


def _table() -> Iterator[str]:
    yield "|kernel (Triton " + triton.__version__ + ")|registers|stack|shared KB|tensor-core instructions|bulk copies|"
    yield "|-|-|-|-|-|-|"
    for name, build in (SHARED | ALONE | SMALL | OTHERS | OTHER_GPUS).items():
        m = build()
        instructions = m.matrix_instructions or m.count("HMMA")
        yield f"|{name}|{m.registers}|{m.stack_bytes}|{m.shared_bytes / 1024:.0f}|{instructions}|{m.count('UTMALDG')}|"


if __name__ == "__main__":
    for line in _table():
        print(line, flush=True)
