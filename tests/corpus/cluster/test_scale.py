"""The simulation of many workers, and the benchmark of a few."""

import pytest

from benchmarks.scale import main
from benchmarks.scale_simulation import Cluster, simulate


def test_without_faults_nobody_waits() -> None:
    cluster = Cluster(workers=10, shards=1000, spread=0.0, between_failures=1e12, slow_share=0.0, joining=0.0)
    outcome = simulate(cluster)
    assert outcome.seconds == pytest.approx(outcome.ideal)
    assert (outcome.failures, outcome.taken_over, outcome.twice) == (0, 0, 0)


def test_failures_and_slow_workers_cost_little() -> None:
    outcome = simulate(Cluster(workers=20, shards=1500, between_failures=6 * 3600.0, slow_share=0.1, seed=1))
    assert outcome.failures > 0
    assert outcome.taken_over > 0
    assert outcome.efficiency > 0.9
    # All units are done in spite of the deaths, and the same seed gives the same schedule.
    assert simulate(Cluster(workers=20, shards=1500, between_failures=6 * 3600.0, slow_share=0.1, seed=1)) == outcome


def test_the_command(capsys) -> None:
    assert main(["--simulate", "--workers", "10", "--shards", "200", "--hours", "2000"]) == 0
    assert capsys.readouterr().out.count("efficiency") == 2
