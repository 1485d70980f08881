"""The kernel benchmarks: wrong results are not timed, skipped ones are reported, and reports are complete."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks.kernels import assign, devices, loss, perturb, report
from benchmarks.kernels.__main__ import main
from benchmarks.kernels.compare import compare
from benchmarks.kernels.devices import Cpu
from benchmarks.kernels.harness import Agreement, Case, Provider, Row, Settings, SkipError
from benchmarks.kernels.machine import Ceilings, ceilings, machine
from benchmarks.kernels.measure import LEAST_ROUNDS, measure

LIMITS = Ceilings({"float32": 1e11}, 1e10)
SETTINGS = Settings("cpu", n=(70,), k=(9,), d=(16,), batch=(2,), samples=(1600,), seconds=0.01)


@pytest.fixture(autouse=True)
def _small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read all of the usual buffer before each call would take most of the time."""
    monkeypatch.setattr(devices, "EVICTING", 1 << 16)


def _case(*providers: Provider, flops: float = 1e6) -> Case:
    return Case("assign", "dot", {"N": 1}, flops, 1e3, lambda: list(providers))


def _skip() -> None:
    raise SkipError("not installed")


def test_only_what_agrees_is_timed() -> None:
    calls = []
    good = Provider("good", lambda: lambda: calls.append(1), lambda _: Agreement(1, 5, 1e-3))
    wrong = Provider("wrong", lambda: lambda: 7, lambda found: Agreement(2, 5, 1.0, f"{found} is wrong"))
    large = Provider("large", lambda: lambda: 1, lambda _: Agreement(), 1e18)
    absent = Provider("absent", _skip, lambda _: Agreement())
    found = {row.provider: row for row in measure(_case(good, wrong, large, absent), SETTINGS, Cpu(), LIMITS)}
    assert found["wrong"].note == "WRONG, not timed: 7 is wrong"
    assert (found["wrong"].rows_wrong, found["wrong"].rows_checked) == (2, 5)
    assert found["large"].note.startswith("skipped: needs")
    assert found["absent"].note == "skipped: not installed"
    assert all(found[name].ms is None for name in ("wrong", "large", "absent"))
    row = found["good"]
    assert (row.rows_wrong, row.rows_checked, row.worst_error) == (1, 5, 1e-3)
    assert row.calls >= LEAST_ROUNDS
    # Agreement, memory, compile time, and two calls a round, with cold and with warm caches.
    assert len(calls) == 3 + 2 * row.calls
    assert row.ms_p20 <= row.ms <= row.ms_p80
    assert row.cold_ms > 0
    assert row.compile_s >= 0


def test_rates_come_from_the_median_and_the_precision() -> None:
    limits = Ceilings({"float32": 1e12, "float16": 4e12}, 1e11)
    row = limits.rate(Row("assign", "dot", "N=1", "x", ms=2.0, ms_p20=1.0), 1e9, 1e6, "float16")
    assert row.tflops == pytest.approx(0.5)
    assert row.gb_s == pytest.approx(0.5)
    assert row.flops_a_byte == 1000
    assert row.bound == "compute"
    assert row.percent_of_roofline == pytest.approx(100 * 0.5 / 4)
    memory = limits.rate(Row("assign", "dot", "N=1", "x", ms=2.0, graph_ms=1.0), 1e6, 1e7, "float32")
    assert (memory.bound, memory.percent_of_roofline) == ("memory", pytest.approx(10))


def test_ceilings_are_of_this_machine() -> None:
    measured = ceilings(Cpu())
    assert measured.flops["float32"] > 1e8
    assert measured.bytes > 1e8
    assert measured.best(LIMITS).bytes >= LIMITS.bytes


def test_cases_that_take_too_long_are_reported() -> None:
    (row,) = measure(_case(flops=1e15), SETTINGS, Cpu(), LIMITS)
    assert row.note.startswith("skipped: 10000 s")


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_checks_of_ids(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z, codebook = assign._inputs(70, 9, 16, metric, "cpu")
    checks = assign._Checks(z, codebook, metric)
    ids = assign._ours(z, codebook, metric)()
    assert checks.exact(ids) == Agreement(0, 70, pytest.approx(0, abs=1e-14))
    assert checks.within(1e-6)(ids).problem == ""
    assert checks.exact((ids + 1) % 9).wrong == 70
    assert "70 of 70 ids differ" in checks.within(1e-3)((ids + 1) % 9).problem
    assert checks.exact(torch.full_like(ids, -1)).wrong == 70
    one = ids.clone()
    one[3] = (one[3] + 1) % 9
    assert checks.within(10.0)(one) == Agreement(1, 70, pytest.approx(checks.exact(one).worst), "")
    monkeypatch.setitem(assign.CHECKED_PRODUCTS, "cpu", 0)
    assert assign._Checks(*assign._inputs(700, 9, 16, metric, "cpu"), metric).rows.shape == (512,)


@pytest.mark.parametrize("cases", [assign.cases, loss.cases, perturb.cases])
def test_every_provider_agrees_and_is_timed(cases) -> None:
    settings = Settings("cpu", n=(70,), k=(9,), d=(16,), batch=(2,), samples=(1600,), seconds=0.0)
    # Compiling takes a minute; the compiled form is that of the first provider.
    names = {"torch float32", "torch", "spintok", "Spin"}
    rows = []
    for case in cases(settings):
        kept = [p for p in case.build() if "compile" not in p.name and p.name.startswith(tuple(names))]
        assert any(p.name.startswith("spintok") for p in kept)
        case = Case(case.op, case.mode, case.shape, case.flops, case.bytes, lambda kept=kept: kept)
        rows += measure(case, settings, Cpu(), LIMITS)
    assert [row for row in rows if row.note or row.ms is None] == []
    assert all(row.rows_wrong == 0 for row in rows if row.provider.startswith("spintok") and row.op == "assign")


def test_a_perturbation_that_is_wrong_shows() -> None:
    case = next(perturb.cases(SETTINGS))
    provider = case.build()[0]
    with provider.context():
        right = provider.setup()()
    assert provider.check(right).problem == ""
    right[1, 5] += 1
    assert provider.check(right).problem.startswith("1 of 2 utterances differ")


def _results(folder: Path, *rows: Row) -> None:
    for op in dict.fromkeys(row.op for row in rows):
        report.write(folder, op, [row for row in rows if row.op == op], machine("cpu"), LIMITS)


def test_results_and_page(tmp_path: Path) -> None:
    rows = [
        Row(
            *("assign", "dot", f"N={n} K=9 D=16", provider),
            ms=ms,
            ms_p20=ms,
            ms_p80=ms,
            cold_ms=ms,
            rows_wrong=0,
            rows_checked=n,
        )
        for n in (70, 90)
        for provider, ms in (("torch float32", 2.0), ("spintok", 1.0))
    ]
    rows = [LIMITS.rate(row, 1e6, 1e5, "float32") for row in rows]
    throttled = Row("assign", "dot", "N=90 K=9 D=16", "hot", ms=1.0, ms_p20=1.0, ms_p80=1.0, throttled="0x4")
    _results(tmp_path, *rows, LIMITS.rate(throttled, 1e6, 1e5, "float32"), Row("assign", "l2", "N=7", "x", note="why"))
    assert report.read(tmp_path)[:4] == rows
    page = (tmp_path / "README.md").read_text()
    assert "### dot, N=70 K=9 D=16" in page
    assert "|provider|rows wrong|" in page
    assert "|spintok|0 of 70|1|1|1|" in page
    assert "|2.00|" in page
    assert "- x: why" in page
    assert "throttled, so not comparable: hot" in page
    plots = ("assign.png", "assign-roofline.png") if find_spec("matplotlib") else ()
    for name in ("assign.csv", *plots):
        assert (tmp_path / name).stat().st_size > 0
    document = json.loads((tmp_path / "assign.json").read_text())
    assert document["machine"]["torch"] == torch.__version__
    (tmp_path / "assign.json").write_text(json.dumps(document | {"schema": 0}))
    with pytest.raises(ValueError, match="schema 0"):
        report.read(tmp_path)
    with pytest.raises(ValueError, match="no results"):
        report.read(tmp_path / "nowhere")


def test_regressions_are_named() -> None:
    def row(provider: str, ms: float, spread: float = 0.0) -> Row:
        return Row("assign", "dot", "N=1", provider, ms=ms, ms_p20=ms * (1 - spread), ms_p80=ms * (1 + spread))

    old = [row("slower", 1.0), row("same", 1.0), row("noisy", 1.0, 0.2), row("faster", 1.0), row("gone", 1.0)]
    new = [row("slower", 1.2), row("same", 1.04), row("noisy", 1.2), row("faster", 0.5), row("new", 1.0)]
    changes = compare(new, old)
    assert [change.row.provider for change in changes if change.regression] == ["slower"]
    assert {change.row.provider for change in changes} == {"slower", "same", "noisy", "faster"}
    assert str(next(c for c in changes if c.row.provider == "slower")).startswith("SLOWER x1.20")
    assert str(changes[-1]).startswith("faster x0.50")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Measuring them takes seconds.
    monkeypatch.setattr("benchmarks.kernels.__main__.ceilings", lambda _: LIMITS)

    def run(*more: str) -> int:
        shape = ["assign", "--device", "cpu", "--n", "20", "--k", "5", "--d", "8", "--seconds", "0"]
        return main([*shape, "--providers", "spintok", "--out", str(tmp_path / "new"), *more])

    run()
    (first,) = [row for row in report.read(tmp_path / "new") if row.provider == "spintok (torch)" and row.mode == "l2"]
    assert (first.rows_wrong, first.rows_checked, first.shape) == (0, 20, "N=20 K=5 D=8")
    _results(tmp_path / "old", Row(*first.key, ms=1e-6, ms_p20=1e-6, ms_p80=1e-6))
    assert run("--against", str(tmp_path / "old")) == 1
    assert "SLOWER" in capsys.readouterr().out
    for wrong in (["--against", str(tmp_path / "none")], ["--n", "0"]):
        with pytest.raises(SystemExit, match="2"):
            run(*wrong)
    assert run("--once") == 0


def test_ncu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="2"):
        main(["assign", "--ncu", "--device", "cpu", "--out", str(tmp_path / "out")])
    assert "comes with the CUDA toolkit" in capsys.readouterr().err
    command = tmp_path / "ncu"
    command.write_text('#!/bin/sh\necho "$@" > "${0%/*}/arguments"\n')
    command.chmod(0o755)
    assert main(["assign", "--ncu", "--device", "cpu", "--n", "30", "--out", str(tmp_path / "out")]) == 0
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.startswith("--set full --target-processes all")
    assert f"--export {tmp_path / 'out' / 'kernels.ncu-rep'}" in arguments
    assert arguments.split("spintok.benchmarks.kernels ")[1].startswith("assign --device cpu --n 30")
    assert arguments.rstrip().endswith("--once")
    assert os.access(command, os.X_OK)
