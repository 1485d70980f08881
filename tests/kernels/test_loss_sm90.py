"""Every Triton kernel of Sinkhorn and the loss compiled for sm_90: no spills, shared memory in limits."""

import pytest

triton = pytest.importorskip("triton")

from spintok_kernels.swapped_prediction import triton as kernels  # noqa: E402

from tests.kernels.machine_code import compile_kernel  # noqa: E402

SIZES = {"n": "i32", "scale": "fp32"}


def columns(k: int) -> tuple[dict[str, str], dict[str, int]]:
    """K as the launch specialises it: a multiple of 16 allows wide loads, which need other registers."""
    return ({}, {"k": k}) if k % 16 == 0 else ({"k": "i32"}, {})


@pytest.mark.parametrize("scores", ["*fp16", "*fp32"])
@pytest.mark.parametrize("k", [50, 500, 2048, 4095, 4096, 8191, 8192])
@pytest.mark.parametrize("name", ["column_logsumexp", "column_totals"])
def test_sinkhorn_passes(name: str, k: int, scores: str) -> None:
    kp, rows, warps = kernels.pass_tile(k)
    potentials = {} if name == "column_logsumexp" else {"u": "*fp32"}
    run_time, fixed = columns(k)
    machine = compile_kernel(
        getattr(kernels, f"{name}_kernel"),
        {"scores": scores, **potentials, "parts": "*fp32", **run_time, **SIZES},
        {"KP": kp, "BN": rows, **fixed},
        num_warps=warps,
    )
    assert machine.problems() == []


@pytest.mark.parametrize("scores", ["*fp16", "*fp32"])
@pytest.mark.parametrize("k", [50, 500, 2048, 4095, 4096, 8191, 8192])
def test_last_pass(k: int, scores: str) -> None:
    kp, rows, warps, tile = kernels.swap_tile(k)
    run_time, fixed = columns(k)
    machine = compile_kernel(
        kernels.swap_kernel,
        {
            "scores": scores,
            "u": "*fp32",
            "losses": "*fp32",
            "agreements": "*i32",
            "counts": "*i32",
            **run_time,
            **SIZES,
            "inverse": "fp32",
        },
        {"KP": kp, "BN": rows, "TILE": tile, "GRAD": True, "METRICS": True, **fixed},
        num_warps=warps,
    )
    assert machine.problems() == []
