"""Assignment on the CPU, every core, against the float64 definition."""

import copy
import ctypes
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch
from forks import ended, fork
from hypothesis import given, settings
from hypothesis import strategies as st
from spintok_kernels import Assignment, assign, backends, native, prepare, reference
from spintok_kernels.assign import cpu
from spintok_kernels.native import LEVELS
from torch import Tensor

from tests.kernels.inputs import CASES, make

METRICS = ["dot", "l2"]


def _runnable() -> list[str]:
    library, _ = cpu.ASSIGN.found
    return ["torch"] + (list(LEVELS[: library.spintok_assign_isa() + 1]) if library else [])


@pytest.fixture(params=_runnable())
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(cpu.ASSIGN.variable, request.param)
    return request.param


def check(z: Tensor, codebook: Tensor, metric: str, found: Assignment) -> None:
    """ids equal, scores to float32 rounding, margins to the rounding of float32 sums of D terms."""
    ids, scores, margins = reference.assign(z, codebook, metric)
    assert torch.equal(found.ids, ids)
    torch.testing.assert_close(found.scores, scores.float(), rtol=2e-7, atol=2e-45, equal_nan=True)
    sizes = z.double().norm(dim=1) + codebook.double().norm(dim=1).max()
    # 1e-44: margins below float32's smallest number.
    error = 4 * (z.shape[1] + 8) * 2.0**-24 * sizes.square() + 1e-44
    infinite = margins.float().isinf() | found.margins.isinf()
    assert torch.equal(found.margins.isnan(), margins.isnan())
    assert bool(((found.margins.double() - margins).abs() <= error)[~infinite & margins.isfinite()].all())
    assert bool((found.margins >= 0)[margins.isfinite()].all())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_ids_are_the_definition(core: str, kind: str, shape: tuple[int, int, int], metric: str) -> None:
    z, codebook = make(kind, *shape)
    found = assign(z, codebook, metric=metric, return_scores=True)
    assert isinstance(found, Assignment)
    check(z, codebook, metric, found)
    assert torch.equal(assign(z, codebook, metric=metric), found.ids)


@pytest.mark.parametrize("metric", METRICS)
def test_features_with_outlier_dimensions(core: str, metric: str) -> None:
    z, codebook = make("offset", 60, 150, 768)
    check(z, codebook, metric, assign(z, codebook, metric=metric, return_scores=True))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("kind", "shape"), [("near_ties", (17, 1100, 520)), ("duplicates", (14, 530, 1024))])
def test_more_codewords_and_columns_than_are_in_use_at_once(
    core: str, kind: str, shape: tuple[int, int, int], metric: str
) -> None:
    z, codebook = make(kind, *shape)
    check(z, codebook, metric, assign(z, codebook, metric=metric, return_scores=True))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [1, 40])
def test_many_candidates(core: str, n: int, metric: str) -> None:
    # More nearly equal codewords than are kept for a row: of the best score, and below a better one that comes later.
    z, codebook = make("unit", n, 1300, 24)
    codebook[:] = codebook[0] * (1 + 1e-8 * torch.rand(1300, 1, generator=torch.Generator().manual_seed(0)))
    check(z, codebook, metric, assign(z, codebook, metric=metric, return_scores=True))
    codebook[1200:1203] *= 1.5
    check(z, codebook, metric, assign(z, codebook, metric=metric, return_scores=True))


def test_float32_alone_gets_near_ties_wrong() -> None:
    # Else the tests above would prove little.
    z, codebook = make("near_ties", 203, 70, 64)
    assert not torch.equal((z @ codebook.t()).argmax(1).int(), assign(z, codebook))


@given(
    n=st.integers(1, 40),
    k=st.integers(1, 80),
    d=st.integers(1, 40),
    seed=st.integers(0, 2**20),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_any_split_and_order_give_the_same_ids(n: int, k: int, d: int, seed: int, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["near_ties", "duplicates", "integers"]))
    z, codebook = make(kind, n, k, d, seed)
    whole = assign(z, codebook)
    at = data.draw(st.integers(0, n))
    assert torch.equal(whole, torch.cat([assign(z[:at], codebook), assign(z[at:], codebook)]))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(whole[order], assign(z[order], codebook))
    assert torch.equal(whole, reference.assign(z, codebook)[0])


def test_threads_give_the_same_ids(core: str) -> None:
    z, codebook = make("near_ties", 1500, 300, 64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = assign(z, codebook, return_scores=True)
        torch.set_num_threads(3)
        three = assign(z, codebook, return_scores=True)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["near_ties", "duplicates", "unit"])
def test_threads_share_the_codebook_of_one_row(core: str, kind: str, metric: str) -> None:
    z, codebook = make(kind, 12, 4100, 256)
    # Nearly equal codewords in several blocks, and more of them than are kept, in one block and in all.
    codebook[[600, 1900, 4099]] = codebook[3].clone()
    codebook[1000:1010] = codebook[[7]].clone()
    z[1], z[2] = codebook[3], codebook[7]
    z[3], z[4], z[5, 0] = 0, 1e30 * z[4].clone(), float("nan")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        rows = [assign(row[None], codebook, metric=metric, return_scores=True) for row in z]
        torch.set_num_threads(1)
        alone = [assign(row[None], codebook, metric=metric, return_scores=True) for row in z]
    finally:
        torch.set_num_threads(before)
    for found in (rows, alone):
        check(z, codebook, metric, Assignment(*(torch.cat(parts) for parts in zip(*found, strict=True))))


def test_forked_processes_and_threads_give_the_same_ids_after_torch_has_used_its_threads() -> None:
    z, codebook = make("near_ties", 1500, 300, 64)
    before = torch.get_num_threads()

    def same() -> bool:
        with ThreadPoolExecutor(2) as pool:
            found = [assign(z, book), *pool.map(lambda _: assign(z, book), range(4))]
        return all(torch.equal(one, expected) for one in found)

    def forked() -> int:
        # Torch itself would wait forever for the threads that did not come along.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        torch.set_num_threads(3)
        return int(not same())

    try:
        torch.set_num_threads(3)
        torch.randn(1000, 1000).exp().sum()
        book = prepare(codebook)
        expected = assign(z, book)
        assert ended(fork(forked)) == 0
        assert same()
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif("OpenMP" not in torch.__config__.parallel_info(), reason="torch has no OpenMP")
def test_the_threads_are_those_of_torch() -> None:
    z, codebook = make("near_ties", 1500, 300, 64)
    team = native.torch_team()
    assert team is not None
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    used = []

    @kind
    def recorded(work: int, context: int, threads: int, flags: int) -> None:
        used.append(threads)
        kind(team)(work, context, threads, flags)

    before = torch.get_num_threads()
    use = cpu.ASSIGN.functions().spintok_assign_use
    try:
        torch.set_num_threads(3)
        book = prepare(codebook)
        use(ctypes.cast(recorded, ctypes.c_void_p))
        assert torch.equal(assign(z, book), reference.assign(z, codebook)[0])
    finally:
        use(team)
        torch.set_num_threads(before)
    assert used == [3]


@pytest.mark.parametrize("metric", METRICS)
def test_several_codebooks(core: str, metric: str) -> None:
    z, first = make("unit", 40, 70, 32)
    _, second = make("unit", 40, 9, 32, seed=1)
    both = assign(z, [first, second], metric=metric, return_scores=True)
    assert both.ids.shape == both.scores.shape == both.margins.shape == (2, 40)
    for i, codebook in enumerate((first, second)):
        check(z, codebook, metric, Assignment(*(part[i] for part in both)))
    assert torch.equal(assign(z, (first,), metric=metric), both.ids[:1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_are_reported(core: str, metric: str, bad: float) -> None:
    z, codebook = make("unit", 30, 40, 24)
    z[7, 3] = z[29, 0] = bad
    found = assign(z, codebook, metric=metric, return_scores=True)
    assert (found.ids == -1).nonzero().flatten().tolist() == [7, 29]
    check(z, codebook, metric, found)


@pytest.mark.parametrize("metric", METRICS)
def test_zero_rows_and_subnormal_numbers(core: str, metric: str) -> None:
    z, codebook = make("unit", 30, 40, 24)
    z[3:9] = 0
    z[9:12] *= 1e-42
    assert torch.set_flush_denormal(True)
    try:
        found = assign(z, codebook, metric=metric) if core != "torch" else None
    finally:
        torch.set_flush_denormal(False)
    ids = reference.assign(z, codebook, metric)[0]
    assert torch.equal(ids, assign(z, codebook, metric=metric))
    assert found is None or torch.equal(ids, found)


def test_sums_beyond_float32(core: str) -> None:
    z, codebook = make("unit", 20, 33, 16)
    z *= 3e38
    z[0] = torch.finfo(torch.float32).max
    codebook *= 1e30
    for metric in METRICS:
        assert torch.equal(assign(z, codebook, metric=metric), reference.assign(z, codebook, metric)[0])


def test_no_rows(core: str) -> None:
    assert assign(torch.empty(0, 8), torch.ones(3, 8)).shape == (0,)
    found = assign(torch.empty(0, 8), [torch.ones(3, 8)] * 2, return_scores=True)
    assert found.ids.shape == found.margins.shape == (2, 0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [0, 1, 2, 5, 30])
def test_a_prepared_codebook_is_a_snapshot(core: str, n: int, metric: str) -> None:
    z, codebook = make("near_ties", n, 150, 37)
    before = codebook.clone()
    prepared = prepare(codebook, metric)
    codebook.fill_(1e30)
    assert prepared.layout == core
    assert torch.equal(prepared.codebook, before)
    found = assign(z, prepared, return_scores=True)
    check(z, before, metric, found)
    assert torch.equal(assign(z, prepared, metric=metric), found.ids)
    for one, alone in zip(found, assign(z, before, metric=metric, return_scores=True), strict=True):
        assert torch.equal(one, alone)
    mixed = assign(z, [prepared, before], metric=metric)
    assert torch.equal(mixed, torch.stack([found.ids, found.ids]))
    # A copy has its own memory, also after the pointers of the first were used.
    for another in (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        assert another.tensors[0].data_ptr() != prepared.tensors[0].data_ptr()
        assert torch.equal(assign(z, another), found.ids)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["near_ties", "duplicates", "integers", "offset", "tiny", "huge"])
def test_single_rows(core: str, kind: str, metric: str) -> None:
    # One row takes another path through the compiled core.
    z, codebook = make(kind, 40, 130, 37)
    z[3], z[4, 2] = 0, torch.nan
    prepared = prepare(codebook, metric)
    for row in z[:, None]:
        check(row, codebook, metric, assign(row.contiguous(), prepared, return_scores=True))


def test_prepared_codebooks_are_checked(core: str) -> None:
    prepared = prepare(OK, "l2")
    for z, options, message in (
        (OK, {"metric": "dot"}, "metric: 'dot', but the codebook was prepared for 'l2'"),
        (torch.ones(4, 7), {}, "codebooks: has D = 8, z has 7"),
        (OK.double(), {}, "z: float32"),
        (OK.to("meta"), {}, "z: no implementation for device meta"),
    ):
        with pytest.raises(ValueError, match=message):
            assign(z, prepared, **options)
    for codebook, metric, message in (
        (torch.ones(0, 8), "dot", "codebook: no codewords"),
        (torch.full((4, 8), math.nan), "l2", "codebook: a codeword is not finite"),
        (OK, "cosine", "metric: 'cosine'"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(codebook, metric)


OK = torch.ones(4, 8)


@pytest.mark.parametrize(
    ("z", "codebooks", "options", "message"),
    [
        (torch.ones(8), OK, {}, "z: two dimensions"),
        (torch.ones(4, 0), torch.ones(4, 0), {}, "z: two dimensions"),
        (OK.double(), OK, {}, "z: float32"),
        (OK.half(), OK.half(), {}, "z: float32"),
        (torch.ones(8, 4).t(), OK, {}, "z: is not contiguous"),
        (OK.to("meta"), OK, {}, "z: no implementation for device meta"),
        (OK, OK.to("meta"), {}, "codebooks: no implementation for device meta"),
        (OK, torch.ones(4, 7), {}, "codebooks: has D = 7, z has 8"),
        (OK, torch.ones(0, 8), {}, "codebooks: no codewords"),
        (OK, [], {}, "codebooks: the sequence is empty"),
        (OK, [OK, OK.int()], {}, r"codebooks\[1\]: float32"),
        (OK, [OK, 3], {}, r"codebooks\[1\]: a tensor"),
        (OK, torch.full((4, 8), math.nan), {}, "codebook: a codeword is not finite"),
        (OK, torch.full((4, 8), math.inf), {"metric": "l2"}, "codebook: a codeword is not finite"),
        (OK, OK, {"metric": "cosine"}, "metric: 'cosine'"),
    ],
)
def test_bad_input(core: str, z: Tensor, codebooks: Tensor, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign(z, codebooks, **options)


def test_backends_name_what_runs(core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> tuple[str, str]:
        return next((b.implementation, b.reason) for b in backends() if (b.op, b.device) == ("assign", "cpu"))

    assert shown() == (core, "SPINTOK_ASSIGN_CPU is set")
    monkeypatch.setenv(cpu.ASSIGN.variable, "sse")
    with pytest.raises(ValueError, match="not one of"):
        backends()
    monkeypatch.delenv(cpu.ASSIGN.variable)
    assert shown()[0] in _runnable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_core_that_is_missing_or_broken_is_said_once(tmp_path: Path) -> None:
    # The package as installed without a compiler, and with a library that does not load.
    packages = [tmp_path / name / "spintok_kernels" for name in ("missing", "broken")]
    for package in packages:
        shutil.copytree(Path(native.__file__).parent, package, ignore=shutil.ignore_patterns("_assign_cpu*"))
    (packages[1] / f"_assign_cpu{EXTENSION_SUFFIXES[0]}").write_bytes(b"not a library")
    # One process imports torch, and its forks the packages.
    program = """
import os, sys, warnings
import torch

def check():
    from spintok_kernels import assign, backends
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ids = [assign(torch.eye(3), torch.eye(3)).tolist() for _ in range(2)]
    assert ids == [[0, 1, 2]] * 2
    assert len(caught) == 1 and "reinstall spintok" in str(caught[0].message), caught
    assert backends()[0].implementation == "torch" and "reinstall spintok" in backends()[0].reason
    assert "triton" not in sys.modules

for folder in sys.argv[1:]:
    child = os.fork()
    if not child:
        sys.path.insert(0, folder)
        check()
        sys.exit()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    folders = [str(package.parent) for package in packages]
    subprocess.run([sys.executable, "-c", program, *folders], check=True, timeout=120)
