"""Fixtures of the kernel tests."""

from interpreter import interpreted, sum_in_order

__all__ = ["interpreted", "sum_in_order"]
