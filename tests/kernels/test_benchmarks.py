"""The benchmarks' own honesty: what is wrong is not timed, what does not fit is said."""

import csv
from pathlib import Path

import pytest
import torch

from benchmarks.kernels import assign, report
from benchmarks.kernels.harness import Case, Ceilings, Provider, Settings, SkipError, machine, measure

LIMITS = Ceilings("float32", 1e11, 1e10)
SETTINGS = Settings("cpu", n=(70,), k=(9,), d=(16,), seconds=0.01)


def _case(*providers: Provider, flops: float = 1e6) -> Case:
    return Case("assign", "dot", {"N": 1}, flops, 1e3, lambda: list(providers))


def _skip() -> None:
    raise SkipError("not installed")


def test_only_what_agrees_is_timed() -> None:
    calls = []
    good = Provider("good", lambda: lambda: calls.append(1), lambda _: "", 0)
    wrong = Provider("wrong", lambda: lambda: 7, lambda found: f"{found} is wrong", 0)
    large = Provider("large", lambda: lambda: 1, lambda _: "", 1e18)
    rows = {
        row.provider: row
        for row in measure(_case(good, wrong, large, Provider("absent", _skip, str, 0)), SETTINGS, LIMITS)
    }
    assert rows["wrong"].note == "WRONG, not timed: 7 is wrong"
    assert rows["large"].note.startswith("skipped: needs")
    assert rows["absent"].note == "skipped: not installed"
    assert all(rows[name].ms_min is None for name in ("wrong", "large", "absent"))
    # Agreement, memory, then the times.
    assert rows["good"].calls == len(calls) - 2 >= 3
    assert rows["good"].ms_min <= rows["good"].ms_p20 <= rows["good"].ms_p50 <= rows["good"].ms_p80


def test_percent_is_of_the_nearer_ceiling() -> None:
    (row,) = measure(_case(Provider("good", lambda: lambda: 1, lambda _: "", 0)), SETTINGS, LIMITS)
    rated = LIMITS.rate(row)
    assert rated.percent_of_ceiling == pytest.approx(100 * max(row.tflops / 0.1, row.gb_s / 10))


def test_what_takes_too_long_is_said() -> None:
    (row,) = measure(_case(flops=1e15), SETTINGS, LIMITS)
    assert row.note.startswith("skipped: 10000 s")


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_checks_tell_right_from_wrong(metric: str) -> None:
    z, codebook = assign._inputs(70, 9, 16, metric, "cpu")
    checks = assign._Checks(z, codebook, metric)
    ids = assign._ours(z, codebook, metric)()
    assert checks.exact(ids) == checks.within(1e-6)(ids) == ""
    assert "ids differ" in checks.exact((ids + 1) % 9)
    assert "ids differ" in checks.within(1e-3)((ids + 1) % 9)
    assert "ids differ" in checks.exact(torch.full_like(ids, -1))


def test_results_and_page(tmp_path: Path) -> None:
    settings = Settings("cpu", n=(70, 90), k=(9,), d=(16,), seconds=0.01, providers=("spintok", "torch float32"))
    rows = [LIMITS.rate(row) for case in assign.cases(settings) for row in measure(case, settings, LIMITS)]
    report.write(tmp_path, "assign", rows, machine("cpu"), LIMITS)
    with (tmp_path / "assign.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert {row["provider"] for row in written} >= {"torch float32", "spintok exact (torch)"}
    assert not [row["note"] for row in written if row["note"]]
    page = (tmp_path / "README.md").read_text()
    assert "### dot, N=70 K=9 D=16" in page
    assert written[0]["torch"] in page
