"""The tables and the picture of growth, with hours of speech, weights and updates (small_growth.sh).

    python recipes/small_growth.py WORK --plot growth.svg > growth.md

WORK: where the script ran.
"""

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

PARTS = (9, 3, 1)
SIZES = ("4x128", "6x192", "8x256")


@dataclass(frozen=True)
class Point:
    """A run: its folder, hours of speech, weights of its encoder in millions, and what its last check found."""

    name: str
    hours: float
    millions: float
    pnmi: float
    edits: float


def read(folder: Path) -> tuple[list[Point], list[Point]]:
    """The runs by hours, and by size."""
    by_hours = [_point(folder / f"hours-{part}", folder / f"hours-{part}.jsonl") for part in PARTS]
    return by_hours, [_point(folder / f"size-{size}", folder / "hours-1.jsonl") for size in SIZES]


def checks(folder: Path) -> list[dict[str, float]]:
    """What ``spintok train`` found on the development set, in the order of updates."""
    with (folder / "training" / "checks.csv").open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _point(folder: Path, manifest: Path) -> Point:
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    with safe_open(folder / "model.safetensors", framework="numpy") as weights:
        count = sum(weights.get_tensor(name).size for name in weights.keys() if name.startswith("encoder."))  # noqa: SIM118
    last = checks(folder)[-1]
    seconds = sum(row["num_samples"] for row in rows) / 16_000
    return Point(folder.name, seconds / 3600, count / 1e6, last["pnmi"], last["ued_pooled_speaker"])


def table(points: list[Point]) -> list[str]:
    """Markdown."""
    lines = ["| run | hours | parameters, M | PNMI | UED, another voice, % |", "|---|---|---|---|---|"]
    return lines + [f"| `{p.name}` | {p.hours:.1f} | {p.millions:.1f} | {p.pnmi:.3f} | {p.edits:.1f} |" for p in points]


def plot(by_hours: list[Point], by_size: list[Point], updates: list[dict[str, float]], path: Path) -> None:
    """PNMI by hours, by millions of weights and by updates, side by side; needs matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text, and the file is the same each time.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "spintok"}):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, middle, right = figure.subplots(1, 3, sharey=True)
        left.plot([p.hours for p in by_hours], [p.pnmi for p in by_hours], marker="o")
        left.set(xlabel="hours of aligned speech", ylabel="PNMI of 40 phones", xscale="log")
        left.set_xticks([p.hours for p in by_hours], labels=[f"{p.hours:.1f}" for p in by_hours])
        middle.plot([p.millions for p in by_size], [p.pnmi for p in by_size], marker="o")
        middle.set(xlabel="parameters of the encoder, millions", xscale="log")
        middle.set_xticks([p.millions for p in by_size], labels=[f"{p.millions:.1f}" for p in by_size])
        right.plot([row["step"] for row in updates], [row["pnmi"] for row in updates], marker="o")
        right.set(xlabel="updates of phones-long")
        for axes in (left, middle, right):
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plot", type=Path, help="An SVG of the curves.")
    arguments = parser.parse_args()
    by_hours, by_size = read(arguments.folder / "growth")
    if arguments.plot:
        plot(by_hours, by_size, checks(arguments.folder / "growth/phones-long"), arguments.plot)
    print(*table(by_hours), "", *table(by_size), sep="\n")


if __name__ == "__main__":
    main()
