"""The script behind docs/results.md: tables and picture from evaluations."""

import json

import pytest
from scripts import run_script


def evaluation(name: str, size: int, pnmi: float, codebook: str | None = None) -> str:
    phones = {"pnmi": {"value": pnmi, "low": pnmi - 0.01, "high": pnmi + 0.02}}
    metrics = {"stats": {"figures": {"codebook_size": {"value": size}}}, "phones": {"figures": phones}}
    return json.dumps({"settings": {"codebook": codebook}, "tokenizers": [{"name": name, "metrics": metrics}]})


def run(*arguments: object) -> str:
    return run_script("recipes/small_results.py", *arguments)


def test_rows_are_tokenizers_and_their_codebooks(tmp_path) -> None:
    (tmp_path / "a.json").write_text(evaluation("km-100", 100, 0.3))
    (tmp_path / "b.json").write_text(evaluation("km-50", 50, 0.25))
    (tmp_path / "c.json").write_text(evaluation("spin", 200, 0.4, "units-200"))
    rows = [line for line in run(*sorted(tmp_path.glob("*.json"))).splitlines() if line.startswith("| ")]
    assert [row.strip("| ").split(" | ")[:2] for row in rows if "[" in row] == [
        ["km-50", "0.250 [0.240, 0.270]"],
        ["km-100", "0.300 [0.290, 0.320]"],
        ["spin, units-200", "0.400 [0.390, 0.420]"],
    ]


def test_columns_that_nothing_has_are_left_out(tmp_path) -> None:
    (tmp_path / "a.json").write_text(evaluation("km-100", 100, 0.3))
    other = json.loads(evaluation("spin", 100, 0.4))
    metrics = other["tokenizers"][0]["metrics"]
    metrics["phones"]["figures"]["pnmi_10ms"] = {"value": 0.38}
    metrics["robustness"] = {"figures": {"frames_equal_pad_2": {"value": 70.0, "low": 60.0, "high": 80.0}}}
    (tmp_path / "b.json").write_text(json.dumps(other))
    shown = run(*sorted(tmp_path.glob("*.json")))
    assert "| tokenizer | PNMI | PNMI, two labels a frame |" in shown
    assert "| km-100 | 0.300 [0.290, 0.320] |  |" in shown
    assert "| spin | 70.0 [60.0, 80.0] |" in shown
    assert "purity" not in shown
    assert "identifies the speaker" not in shown


def test_a_family_of_two_sizes_is_a_line(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "a.json").write_text(evaluation("km-100", 100, 0.3))
    (tmp_path / "b.json").write_text(evaluation("km-50", 50, 0.25))
    (tmp_path / "c.json").write_text(evaluation("single-100", 100, 0.4))
    run(*sorted(tmp_path.glob("*.json")), "--plot", tmp_path / "p.svg")
    picture = (tmp_path / "p.svg").read_text()
    assert ">km<" in picture
    assert "single" not in picture
