"""A Ray of two cores for the tests of a file, which share it as it takes seconds to start."""

import gc
import os
import subprocess
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # On a loaded machine its processes take longer than the half minute for which it waits by default.
    os.environ["RAY_raylet_start_wait_time_s"] = "200"  # noqa: SIM112
    # A Ray of its own, even where one runs already.
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    processes = [found for found in gc.get_objects() if type(found) is subprocess.Popen]
    yield
    ray.shutdown()
    # Ray forgets the processes that it ends, which is a warning unless somebody waits for them.
    for process in processes:
        process.wait(30)
