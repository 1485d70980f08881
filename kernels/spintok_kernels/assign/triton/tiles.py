"""Tile sizes of the assignment kernels: fixed for each shape and never tuned at run time, so that results repeat."""

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "FUSED",
    "MAX_SPLITS",
    "NARROW",
    "NARROW_128",
    "OTHER_NARROW",
    "OTHER_WIDE",
    "ROWS_PADDED",
    "SLAB",
    "SUB",
    "WIDE",
    "WIDE_L2",
    "Chunks",
    "Tile",
    "chunks",
    "group_bits",
    "tile_for",
]

MAX_SPLITS = 16
SLAB = 1 << 18
"""Rows of a launch: it bounds the workspace, and 32 bits hold every offset (2^18 x 1024 numbers)."""
ROWS_PADDED = 256
"""The rounded codebook has a multiple of this number of rows, so that every tile is whole."""
SUB = 8
"""Programs of `finish_kernel` for a tile of rows."""


@dataclass(frozen=True)
class Tile:
    """The shape of one variant of the main pass."""

    rows: int
    codes: int
    stages: int
    scratch: bool = False
    """Rows pass through global memory, so that tensor cores read them from shared memory."""
    fused: bool = False
    """The open rows are finished in the same launch."""
    streamed: bool = False
    """Both sides are streamed in pieces of `columns`: `nearest_wide_kernel`."""
    columns: int = 0
    tma: bool = False
    per_processor: int = 1
    """Programs that share a multiprocessor."""
    options: dict[str, int] = field(default_factory=dict)


# Chosen for Hopper from what the compiler makes of them (NOTES.md); not yet compared on a GPU. At most 128 registers
# let two programs share a multiprocessor, so that one computes while the other merges scores.
NARROW = Tile(128, 32, 3, scratch=True, per_processor=2, options={"num_warps": 8, "maxnreg": 128})
NARROW_128 = Tile(128, 64, 3, scratch=True, per_processor=2, options={"num_warps": 8, "maxnreg": 128})
FUSED = Tile(16, 64, 3, fused=True, per_processor=3, options={"num_warps": 4})
WIDE = Tile(128, 256, 4, scratch=True, streamed=True, columns=64, tma=True, options={"num_warps": 8})
WIDE_L2 = Tile(128, 128, 5, scratch=True, streamed=True, columns=64, tma=True, options={"num_warps": 8})
# For other GPUs: without a limit of registers, with which they would spill, and without TMA before Hopper.
OTHER_NARROW = Tile(128, 32, 3, scratch=True, options={"num_warps": 8})
OTHER_WIDE = Tile(128, 128, 3, scratch=True, streamed=True, columns=64, options={"num_warps": 8})


class Chunks(NamedTuple):
    """How a row is cut: `number` chunks of `width` columns are `padded` columns."""

    width: int
    number: int

    @property
    def padded(self) -> int:
        return self.width * self.number


def chunks(depth: int) -> Chunks:
    """Cut a row of `depth` columns; up to 256 columns the padded width is a power of two."""
    if depth <= 32:
        return Chunks(max(16, 1 << (depth - 1).bit_length()), 1)
    if 128 < depth <= 256:
        # With chunks of 64 the kernel spills at 128 registers.
        return Chunks(32, 8)
    return Chunks(64, -(-depth // 64))


def group_bits(k: int) -> int:
    """Return the bits that hold the number of a group of 32 codes: 8 up to K 8192, so that one kernel serves all K."""
    return max(8, (-(-k // 32) - 1).bit_length())


def tile_for(n: int, k: int, depth: int, *, processors: int, hopper: bool, details: bool, l2: bool) -> Tile:
    """Choose the variant for a shape."""
    if depth > 256:
        return (WIDE_L2 if l2 else WIDE) if hopper else OTHER_WIDE
    # One launch costs less than two as long as the tiles of 16 rows fit the GPU about three times over.
    if n <= 3 * FUSED.rows * processors and k * depth <= 300_000 and not details:
        return FUSED
    if not hopper:
        return OTHER_NARROW
    return NARROW if depth > 128 else NARROW_128
