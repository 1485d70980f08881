"""A folder of results: JSON, CSV, a page, and plots of time and of the roofline."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .harness import Row
from .machine import Ceilings, Machine

__all__ = ["SCHEMA", "read", "write"]

SCHEMA = 1
"""The version of the JSON files; increased when a field changes its meaning."""

TABLE = {
    "rows_wrong": "rows wrong",
    "worst_error": "largest error",
    "ms": "ms",
    "ms_p20": "p20",
    "ms_p80": "p80",
    "cold_ms": "cold",
    "graph_ms": "in a graph",
    "host_us": "host us",
    "launches": "launches",
    "compile_s": "compile s",
    "peak_mb": "MB",
    "percent_of_roofline": "% of roofline",
    "joules": "J",
}


def write(folder: Path, op: str, rows: Sequence[Row], machine: Machine, limits: Ceilings) -> None:
    """Write `op`.json and `op`.csv into `folder`, then the page of every operation there and the plots of `op`."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "schema": SCHEMA,
        "machine": asdict(machine),
        "ceilings": asdict(limits),
        "rows": [asdict(row) for row in rows],
    }
    (folder / f"{op}.json").write_text(json.dumps(document, indent=1) + "\n")
    with (folder / f"{op}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)] + list(asdict(machine)))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _short(value) for name, value in asdict(row).items()} | asdict(machine))
    documents = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    _plots(folder, op, rows, limits)
    plotted = {path.stem for path in folder.glob("*.png")}
    (folder / "README.md").write_text("\n".join(_page(documents, plotted)) + "\n")


def read(folder: Path) -> list[Row]:
    """Return the rows of every JSON file of a folder. Raises ValueError if there are none, or of another version."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        if document.get("schema") != SCHEMA:
            raise ValueError(f"{path}: made by another version (schema {document.get('schema')}, not {SCHEMA})")
        rows += [Row(**row) for row in document["rows"]]
    if not rows:
        raise ValueError(f"{folder}: no results there")
    return rows


def _page(documents: dict[str, Any], plotted: set[str]) -> list[str]:
    lines = [
        "# Kernel benchmarks",
        "",
        "Made by `spintok bench kernels`; the JSON and CSV files have all figures. Every result is compared with the",
        "truth before it is timed. Times are medians of interleaved calls with warm caches, with their 20 % and 80 %",
        "quantiles; `cold` is the median after other data filled the caches, `in a graph` excludes the host. `ratio`",
        "is the median of the first provider over that of this one.",
        "",
    ]
    for op, document in documents.items():
        machine, limits = document["machine"], document["ceilings"]
        products = ", ".join(f"{value / 1e12:.3g} TFLOP/s {name}" for name, value in limits["flops"].items())
        lines += [
            f"## {op}",
            "",
            f"{machine['device']}, {machine['threads']} threads, Python {machine['python']}, torch {machine['torch']}, "
            f"Triton {machine['triton']}, commit {machine['commit']}, {machine['date']}. Ceilings: {products}; "
            f"{limits['bytes'] / 1e9:.3g} GB/s.",
            "",
        ]
        for mode, shape in dict.fromkeys((row["mode"], row["shape"]) for row in document["rows"]):
            ours = [row for row in document["rows"] if (row["mode"], row["shape"]) == (mode, shape)]
            lines += [f"### {mode}, {shape}", "", *_table(ours), ""]
            lines += [*(f"- {row['provider']}: {row['note']}" for row in ours if row["note"])]
            throttled = [row["provider"] for row in ours if row["throttled"]]
            lines += [f"- throttled, so not comparable: {', '.join(throttled)}"] if throttled else []
            lines += [""]
        if op in plotted:
            lines += [f"![{op}: time]({op}.png)", "", f"![{op}: roofline]({op}-roofline.png)", ""]
    return lines


def _table(rows: list[dict[str, Any]]) -> list[str]:
    timed = [row for row in rows if row["ms"] is not None]
    if not timed:
        return []
    shown = [name for name in TABLE if any(row[name] is not None for row in timed)]
    lines = ["|provider|" + "|".join(TABLE[name] for name in shown) + "|ratio|", "|-" * (len(shown) + 2) + "|"]
    for row in timed:
        cells = [row["provider"]]
        for name in shown:
            value = "" if row[name] is None else str(_short(row[name]))
            cells.append(f"{value} of {row['rows_checked']}" if name == "rows_wrong" and value else value)
        lines.append("|" + "|".join(cells) + f"|{timed[0]['ms'] / row['ms']:.2f}|")
    return lines


def _plots(folder: Path, op: str, rows: Sequence[Row], limits: Ceilings) -> None:
    """Plot time against the first size, one panel for each of the others, and the roofline; needs matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print(f"no plots of {op}: pip install matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    timed = [row for row in rows if row.ms is not None and row.tflops is not None]
    if not timed:
        return
    panels = sorted({(row.mode, row.shape.partition(" ")[2]) for row in timed})
    columns = min(4, len(panels))
    height = -(-len(panels) // columns)
    figure, axes = plt.subplots(height, columns, figsize=(4 * columns, 3 * height), squeeze=False)
    for axis, (mode, rest) in zip(axes.flat, panels, strict=False):
        chosen = [row for row in timed if (row.mode, row.shape.partition(" ")[2]) == (mode, rest)]
        for provider in dict.fromkeys(row.provider for row in chosen):
            points = sorted((_first(row), row.ms) for row in chosen if row.provider == provider)
            axis.loglog(*zip(*points, strict=True), marker="o", label=provider)
        axis.set_title(f"{mode}, {rest}", fontsize=9)
        axis.set_xlabel(chosen[0].shape.partition("=")[0])
        axis.set_ylabel("ms")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    axes.flat[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / f"{op}.png", dpi=110)
    plt.close(figure)

    figure, axis = plt.subplots(figsize=(7, 4.5))
    intensities = [row.flops_a_byte for row in timed]
    low, high = min(intensities) / 4, max(intensities) * 4
    for precision, flops in limits.flops.items():
        ridge = flops / limits.bytes
        axis.loglog([low, max(low, ridge), max(high, ridge)], [low * limits.bytes / 1e12, flops / 1e12, flops / 1e12])
        axis.annotate(precision, (max(high, ridge), flops / 1e12), fontsize=7, ha="right", va="bottom")
    for provider in dict.fromkeys(row.provider for row in timed):
        chosen = [row for row in timed if row.provider == provider]
        axis.plot([row.flops_a_byte for row in chosen], [row.tflops for row in chosen], "o", ms=4, label=provider)
    axis.set_xlabel("operations a byte")
    axis.set_ylabel("TFLOP/s")
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / f"{op}-roofline.png", dpi=110)
    plt.close(figure)


def _first(row: Row) -> int:
    return int(re.findall(r"=(\d+)", row.shape)[0])


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else value
