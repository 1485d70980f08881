"""A small run of the fuzzer; ``python -m tests.fuzz.run`` is the large one."""

from pathlib import Path

import pytest

from tests.fuzz.run import Sample, run_case
from tests.fuzz.targets import TARGETS

CASES = 12


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
def test_damaged_files_are_read_or_refused_with_an_error_of_spintok(target: str, tmp_path: Path) -> None:
    sample = Sample(target, tmp_path / "sample")
    wrong = {case: found for case in range(CASES) if (found := run_case(sample, case, 0, tmp_path / "case"))}
    assert wrong == {}
