"""Side-by-side benchmarks of spintok_kernels: agreement first, then time, memory and percent of the ceiling.

`python -m benchmarks.kernels --help`. An op is a module with `cases(settings)`, listed in `__main__.OPS`.
"""
