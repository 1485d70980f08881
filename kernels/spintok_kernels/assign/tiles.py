"""Tile sizes of the GPU kernels: fixed for each shape, never tuned at run time, so results repeat."""

__all__ = ["SPLIT_TILES", "tile_sizes"]

# For a Hopper GPU, from what the compiler makes of them (NOTES.md).
SPLIT_TILES = {"BN": 64, "BK": 32, "num_warps": 4, "num_stages": 2}


def tile_sizes(depth: int) -> tuple[int, dict[str, int]]:
    """D padded, and the tiles of `nearest_half_kernel`: up to 256 columns of z stay in shared memory."""
    if depth <= 256:
        padded = max(16, 1 << (depth - 1).bit_length())
        return padded, {"BN": 128, "BK": 32, "BD": padded, "num_warps": 8, "num_stages": 3}
    return -(-depth // 64) * 64, {"BN": 128, "BK": 128, "BD": 64, "num_warps": 8, "num_stages": 3}
