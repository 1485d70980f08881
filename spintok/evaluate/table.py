"""The result of an evaluation as Markdown tables."""

from typing import Any

__all__ = ["markdown"]

_HIDDEN = frozenset({"utterances", "frames", "codebook_size", "frame_rate"})


def markdown(report: dict[str, Any]) -> str:
    """One table per metric: a row per value, a column per tokenizer, and the differences from the first one."""
    tokenizers = report["tokenizers"]
    speech = report["speech"]
    lines = [
        f"# Evaluation of {', '.join(one['name'] for one in tokenizers)}",
        "",
        f"{speech['utterances']} utterances, {speech['aligned']} of them aligned, {speech['speakers']} speakers; seed "
        f"{report['settings']['seed']}. 95 % bootstrap intervals are in brackets. Differences are paired, the "
        "other tokenizer minus the first; those whose interval excludes 0 are bold.",
    ]
    metrics = dict.fromkeys(metric for one in tokenizers for metric in one["metrics"])
    for metric in metrics:
        columns = [one["metrics"].get(metric) for one in tokenizers]
        drawn = next((column["drawn"] for column in columns if column and column["drawn"]), "")
        lines += ["", f"## {metric}" + (f" ({drawn})" if drawn else ""), ""]
        heads = [one["name"] for one in tokenizers] + [
            f"{one['name']} - {tokenizers[0]['name']}" for one in tokenizers[1:]
        ]
        lines += ["| figure | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        for name in dict.fromkeys(name for column in columns if column for name in column["figures"]):
            if name in _HIDDEN:
                continue
            cells = [_figure(column["figures"].get(name) if column else None) for column in columns]
            for one in tokenizers[1:]:
                apart = report["differences"][one["name"]].get(metric, {}).get(name)
                cells.append(_figure(apart, signed=True))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for other, alike in report.get("similarity", {}).items():
        lines += [
            "",
            f"Features of {tokenizers[0]['name']} and {other}: CKA {alike['cka']:.3f}, SVCCA {alike['svcca']:.3f} "
            f"over {alike['frames']} frames.",
        ]
    for one in tokenizers:
        lines += [""] if one["left_out"] else []
        lines += [f"- {one['name']}: {metric} left out: {why}" for metric, why in one["left_out"].items()]
    return "\n".join(lines) + "\n"


def _figure(figure: dict[str, float] | None, signed: bool = False) -> str:
    if figure is None:
        return ""
    value = _number(figure["value"], signed)
    if "low" not in figure:
        return value
    text = f"{value} [{_number(figure['low'], signed)}, {_number(figure['high'], signed)}]"
    return f"**{text}**" if signed and not figure["low"] <= 0 <= figure["high"] else text


def _number(value: float, signed: bool) -> str:
    sign = "+" if signed else ""
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):{sign}d}"
    if abs(value) >= 100:
        return f"{value:{sign}.1f}"
    return f"{value:{sign}.2f}" if abs(value) >= 10 else f"{value:{sign}.4f}"
