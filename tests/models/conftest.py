"""Fixtures of the model tests."""

from interpreter import interpreted, sum_in_order

__all__ = ["interpreted", "sum_in_order"]
