"""A folder of results: one CSV an op, one page and one plot made from them."""

import csv
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from .harness import Ceilings, Machine, Row

__all__ = ["write"]

TABLE = ("provider", "ms_min", "ms_p50", "peak_mb", "tflops", "gb_s", "percent_of_ceiling")


def write(folder: Path, op: str, rows: Sequence[Row], machine: Machine, limits: Ceilings) -> None:
    """Write `op`.csv into `folder`, then the page and the plots of every CSV that lies there."""
    folder.mkdir(parents=True, exist_ok=True)
    extra = {
        **asdict(machine),
        "ceiling_tflops": f"{limits.flops / 1e12:.4g} {limits.matmul_dtype}",
        "ceiling_gb_s": f"{limits.bytes / 1e9:.4g}",
    }
    with (folder / f"{op}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)] + list(extra))
        writer.writeheader()
        for row in rows:
            values = {name: _short(value) for name, value in asdict(row).items()}
            writer.writerow(values | extra)
    tables = {path.stem: _read(path) for path in sorted(folder.glob("*.csv"))}
    (folder / "README.md").write_text("\n".join(_page(tables)) + "\n")
    _plot(folder, op, tables[op])


def _page(tables: dict[str, list[dict[str, str]]]) -> list[str]:
    lines = [
        "# Kernel benchmarks",
        "",
        "Made by `python -m benchmarks.kernels`; the CSV beside it has everything.",
        "",
    ]
    for op, rows in tables.items():
        first = rows[0]
        lines += [
            f"## {op}",
            "",
            f"{first['device']}, {first['threads']} threads, Python {first['python']}, "
            f"torch {first['torch']}, Triton {first['triton']}, commit {first['commit']}, {first['date']}.",
            f"Ceilings in the same run: {first['ceiling_tflops']} TFLOP/s (matrix product), "
            f"{first['ceiling_gb_s']} GB/s (copy).",
            "",
            "Every result was compared with float64 before it was timed. Providers take turns; `ratio` is "
            "the least time of the first provider over this one's.",
            "",
        ]
        for case in dict.fromkeys((row["mode"], row["shape"]) for row in rows):
            ours = [row for row in rows if (row["mode"], row["shape"]) == case]
            timed = [row for row in ours if row["ms_min"]]
            lines += [f"### {case[0]}, {case[1]}", ""]
            if timed:
                lines += ["|" + "|".join(TABLE) + "|ratio|", "|-" * (len(TABLE) + 1) + "|"]
                for row in timed:
                    ratio = float(timed[0]["ms_min"]) / float(row["ms_min"])
                    lines.append("|" + "|".join(row[name] for name in TABLE) + f"|{ratio:.2f}|")
            lines += ["", *(f"- {row['provider']}: {row['note']}" for row in ours if row["note"]), ""]
    return lines


def _plot(folder: Path, op: str, rows: list[dict[str, str]]) -> None:
    """Time against N for each provider, one picture for each K and D; nothing without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print(f"no plot of {op}: pip install matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    timed = [row for row in rows if row["ms_min"]]
    panels = sorted({(row["mode"], re.sub(r"^[NR]=\d+ ", "", row["shape"])) for row in timed})
    if not panels:
        return
    columns = min(4, len(panels))
    height = -(-len(panels) // columns)
    figure, axes = plt.subplots(height, columns, figsize=(4 * columns, 3 * height), squeeze=False)
    for axis, (mode, rest) in zip(axes.flat, panels, strict=False):
        chosen = [row for row in timed if row["mode"] == mode and row["shape"].endswith(rest)]
        for provider in dict.fromkeys(row["provider"] for row in chosen):
            points = sorted(
                (int(row["shape"].split()[0].split("=")[1]), float(row["ms_min"]))
                for row in chosen
                if row["provider"] == provider
            )
            axis.loglog(*zip(*points, strict=True), marker="o", label=provider)
        axis.set_title(f"{mode}, {rest}", fontsize=9)
        axis.set_xlabel("rows")
        axis.set_ylabel("ms")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    axes.flat[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / f"{op}.png", dpi=110)
    plt.close(figure)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else value
