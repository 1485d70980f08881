"""Lengths and masks of padded batches."""

import torch
from torch import Tensor

from spintok.frames import GRID, FrameGrid

__all__ = ["frame_counts", "length_mask", "padding_mask", "window_counts", "zero_padding"]


def window_counts(lengths: Tensor, size: int, step: int) -> Tensor:
    """How many windows of ``size`` every ``step`` fit into each of ``lengths`` (any shape, integers)."""
    return ((lengths - size).div(step, rounding_mode="floor") + 1).clamp(min=0)


def frame_counts(lengths: Tensor, grid: FrameGrid = GRID) -> Tensor:
    """Frames (B,) of utterances of ``lengths`` (B,) samples: ``spintok.frames.num_frames`` of each."""
    return window_counts(lengths, grid.reach, grid.hop)


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Mask (B, size), True in the first ``lengths`` (B,) places of each row."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def padding_mask(lengths: Tensor, size: int) -> Tensor | None:
    """``length_mask``, or None if no row is padded."""
    return None if bool((lengths == size).all()) else length_mask(lengths, size)


def zero_padding(features: Tensor, mask: Tensor | None) -> Tensor:
    """Features (B, T, D) with zeros where ``mask`` (B, T) is False; unchanged if it is None."""
    return features if mask is None else features.masked_fill(~mask[:, :, None], 0.0)
