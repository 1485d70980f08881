"""The tables and the picture of docs/results.md, from what ``spintok evaluate`` wrote.

    python recipes/small_results.py evaluations/*/evaluation.json --plot codewords.svg > tables.md

A file may have several tokenizers. A tokenizer that is in several files has the metrics of all of them.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

Figures = dict[str, dict[str, float]]

QUALITY = {
    "PNMI": ("phones", "pnmi", 3),
    "PNMI, bias removed": ("phones", "pnmi_corrected", 3),
    "PNMI, two labels a frame": ("phones", "pnmi_10ms", 3),
    "PNMI, MFA": ("phones", "pnmi_mfa", 3),
    "PNMI, PocketSphinx": ("phones", "pnmi_pocketsphinx", 3),
    "phone purity": ("phones", "phone_purity", 3),
    "cluster purity": ("phones", "phone_cluster_purity", 3),
    "ABX within, % (tokens)": ("abx", "phone_within_tokens", 1),
    "ABX across, % (tokens)": ("abx", "phone_across_tokens", 1),
    "ABX on speaker, % (tokens)": ("abx", "speaker_tokens", 1),
    "UED, another voice, %": ("robustness", "ued_pooled_speaker", 1),
    "UED of speech, another voice, %": ("robustness", "ued_speech_pooled_speaker", 1),
}
SPEAKERS = {
    "speechocean762": ("speaker", "probe_accuracy_tokens_speechocean762", 3),
    "chance": ("speaker", "probe_chance_speechocean762", 3),
    "LibriSpeech": ("speaker", "probe_accuracy_tokens_librispeech", 3),
    "chance, LibriSpeech": ("speaker", "probe_chance_librispeech", 3),
    "all together": ("speaker", "probe_accuracy_tokens", 3),
}
RATES = {
    "3-gram, bit/s": ("predictability", "3gram_bits_per_second", 0),
    "frame bitrate": ("stats", "frame_bitrate", 0),
    "entropy bitrate": ("stats", "entropy_bitrate", 0),
    "token bitrate": ("stats", "token_bitrate", 0),
    "tokens a second": ("stats", "token_rate", 1),
    "codewords in use": ("stats", "active_codewords", 0),
    "perplexity": ("stats", "perplexity", 0),
    "Gini": ("stats", "gini", 3),
}
CONDITIONS = {
    "another voice": "speaker",
    "white 20 dB": "white_20",
    "white 5 dB": "white_5",
    "babble 10 dB": "babble_10",
    "noise 10 dB": "noise_10",
    "reverb 0.5 s": "reverb_0.5",
    "pitch -2": "pitch_-2",
    "pitch +2": "pitch_2",
    "tempo 0.9": "tempo_0.9",
    "tempo 1.1": "tempo_1.1",
    "Opus 12 kbit/s": "opus_12",
    "gain -12 dB": "gain_-12",
    "band 4 kHz": "band_4000",
    "shift 10 ms": "shift_160",
}


SURROUNDINGS = {
    "2 s of zeros after": "pad_2",
    "0.5 s of zeros before": "pad_-0.5",
    "first second cut": "crop_1",
    "0.05 added": "dc_0.05",
    "-12 dB": "gain_-12",
    "pieces of 0.4 s": "short_0.4",
    "0.8 s": "short_0.8",
    "1.6 s": "short_1.6",
    "3.2 s": "short_3.2",
}


def read(paths: list[Path]) -> dict[str, dict[str, Figures]]:
    """Values by tokenizer, with the codebook if it is not the primary one, and by metric."""
    found: dict[str, dict[str, Figures]] = {}
    for path in paths:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        codebook = evaluation["settings"]["codebook"]
        for tokenizer in evaluation["tokenizers"]:
            name = tokenizer["name"] if codebook in (None, "primary") else f"{tokenizer['name']}, {codebook}"
            metrics = found.setdefault(name, {})
            metrics.update({name: metric["figures"] for name, metric in tokenizer["metrics"].items()})
    return dict(sorted(found.items(), key=lambda item: [_number(part) for part in re.split(r"(\d+)", item[0])]))


def table(found: dict[str, dict[str, Figures]], columns: dict[str, tuple[str, str, int]]) -> list[str]:
    """Markdown; columns that no tokenizer has, and tokenizers without any column, are left out."""
    columns = {
        title: column
        for title, column in columns.items()
        if any(column[1] in metrics.get(column[0], {}) for metrics in found.values())
    }
    if not columns:
        return []
    lines = ["| tokenizer | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, metrics in found.items():
        cells = [_cell(metrics.get(metric, {}).get(figure), digits) for metric, figure, digits in columns.values()]
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _cell(figure: Any, digits: int) -> str:
    if figure is None:
        return ""
    value = figure if isinstance(figure, int | float) else figure["value"]
    text = f"{value:.{digits}f}"
    if isinstance(figure, dict) and "low" in figure:
        text += f" [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
    return text


def _number(part: str) -> tuple[int, int, str]:
    return (1, int(part), "") if part.isdigit() else (0, 0, part)


def plot(found: dict[str, dict[str, Figures]], path: Path) -> None:
    """PNMI by the number of codewords, a line for each family with two sizes or more; needs matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    families: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for name, metrics in found.items():
        if "pnmi" in metrics.get("phones", {}) and "stats" in metrics and ", auxiliary" not in name:
            family = re.sub(r"(-\d+|, units-\d+)$", "", name)
            families.setdefault(family, []).append(
                (metrics["stats"]["codebook_size"]["value"], metrics["phones"]["pnmi"])
            )
    # Text stays text, and the same data give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "spintok"}):
        figure = Figure(figsize=(8.5, 4.5), layout="constrained")
        axes = figure.subplots()
        for family, points in families.items():
            sizes, scores = zip(*sorted(points, key=lambda point: point[0]), strict=True)
            if len(set(sizes)) > 1:
                values = [score["value"] for score in scores]
                spread = [
                    [abs(score["value"] - score.get(end, score["value"])) for score in scores]
                    for end in ("low", "high")
                ]
                axes.errorbar(sizes, values, yerr=spread, marker="o", capsize=2, label=family)
        axes.set(xscale="log", xlabel="codewords", ylabel="PNMI")
        axes.set_xticks([50, 100, 200, 500], labels=["50", "100", "200", "500"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize="small")
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, help="An SVG of PNMI by the number of codewords.")
    arguments = parser.parse_args()
    found = read(arguments.evaluations)
    if arguments.plot:
        plot(found, arguments.plot)
    robustness = {label: ("robustness", f"ued_pooled_{name}", 1) for label, name in CONDITIONS.items()}
    surroundings = {label: ("robustness", f"frames_equal_{name}", 1) for label, name in SURROUNDINGS.items()}
    for title, columns in (
        ("Phones and speakers", QUALITY),
        ("How often a linear probe identifies the speaker", SPEAKERS),
        ("Rates", RATES),
        ("Unit edit distance to the tokens of the undisturbed recording, %", robustness),
        ("Frames that keep their code when the surroundings change, %", surroundings),
    ):
        if lines := table(found, columns):
            print(f"## {title}\n", *lines, "", sep="\n")


if __name__ == "__main__":
    main()
