"""Benchmarks of the compiled operations: agreement first, then time, memory, energy and the share of the roofline.

`spintok bench kernels --help`. An operation is a module with `cases(settings)`, listed in `__main__.OPS`.
"""
