"""Full float32 precision, whatever the caller has asked torch for."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

__all__ = ["full_precision"]


class _Switches:
    """Torch's precision settings of float32 products and convolutions, which are global to the process.

    The first block that needs full precision stores and changes them, and the last one to leave restores them: blocks
    in several threads overlap.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.blocks = 0
        self.before: list[str] = []

    @staticmethod
    def all() -> list[Any]:
        # Without types: torch adds these attributes when it is imported.
        cudnn: Any = torch.backends.cudnn
        mkldnn: Any = torch.backends.mkldnn
        return [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]

    def enter(self) -> None:
        with self.lock:
            if self.blocks == 0:
                self.before = [switch.fp32_precision for switch in self.all()]
                for switch in self.all():
                    switch.fp32_precision = "ieee"
            self.blocks += 1

    def leave(self) -> None:
        with self.lock:
            self.blocks -= 1
            if self.blocks == 0:
                for switch, value in zip(self.all(), self.before, strict=True):
                    switch.fp32_precision = value


_SWITCHES = _Switches()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute on ``device`` without autocast, TF32 or reduced matmul precision.

    Other threads see full precision too while a block runs. The settings of before are restored after the last block.
    """
    _SWITCHES.enter()
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _SWITCHES.leave()
