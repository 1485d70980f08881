"""The result of an evaluation as text: a summary for the terminal, and Markdown tables with all values."""

from collections.abc import Mapping, Sequence
from typing import Any

from spintok.evaluate.metric import slug

__all__ = ["SUMMARY", "markdown", "summary"]

SUMMARY: Mapping[str, Sequence[tuple[str, str, int]]] = {
    "phones": (
        ("pnmi", "PNMI", 3),
        ("pnmi_corrected", "PNMI, bias removed", 3),
        ("pnmi_10ms", "PNMI, two labels a frame", 3),
        ("pnmi_speech", "PNMI without silence", 3),
        ("cnmi", "CNMI", 3),
        ("phone_purity", "phone purity", 3),
        ("phone_cluster_purity", "cluster purity", 3),
        ("phone_recall_vowels", "recall of vowels from their codes", 3),
        ("phone_recall_stops", "... of stops", 3),
        ("phone_recall_fricatives", "... of fricatives", 3),
        ("phone_recall_affricates", "... of affricates", 3),
        ("phone_recall_nasals", "... of nasals", 3),
        ("phone_recall_approximants", "... of approximants", 3),
        ("boundary_r_value", "R-value of boundaries", 3),
    ),
    "abx": (
        ("phone_within_tokens", "ABX error within speakers, %", 1),
        ("phone_across_tokens", "ABX error across speakers, %", 1),
        ("speaker_tokens", "ABX error on speaker, %", 1),
    ),
    "robustness": (
        ("ued_pooled_speaker", "UED another voice, %", 1),
        ("ued_pooled_white_10", "UED white noise 10 dB, %", 1),
        ("ued_pooled_babble_10", "UED babble 10 dB, %", 1),
        ("ued_pooled_noise_10", "UED noise 10 dB, %", 1),
        ("ued_pooled_reverb_0.5", "UED reverb 0.5 s, %", 1),
        ("ued_pooled_room", "UED recorded room, %", 1),
        ("ued_pooled_pitch_2", "UED pitch +2 semitones, %", 1),
        ("ued_pooled_tempo_0.9", "UED tempo 0.9, %", 1),
        ("ued_pooled_opus_12", "UED Opus 12 kbit/s, %", 1),
        ("ued_pooled_gain_-12", "UED -12 dB, %", 1),
        ("ued_pooled_band_4000", "UED low-pass 4 kHz, %", 1),
        ("ued_pooled_shift_160", "UED shift by 10 ms, %", 1),
        ("ued_speech_pooled_speaker", "UED of speech, another voice, %", 1),
        ("frames_equal_pad_2", "equal frames, 2 s of zeros after, %", 1),
        ("frames_equal_pad_-0.5", "equal frames, 0.5 s of zeros before, %", 1),
        ("frames_equal_crop_1", "equal frames, first second cut, %", 1),
        ("frames_equal_dc_0.05", "equal frames, constant of 0.05 added, %", 1),
        ("frames_equal_short_0.8", "equal frames, pieces of 0.8 s, %", 1),
    ),
    "speaker": (
        ("probe_accuracy_tokens", "speaker probe on tokens", 3),
        ("probe_accuracy_features", "speaker probe on features", 3),
        ("probe_chance", "chance", 3),
    ),
    "predictability": (("3gram_bits_per_second", "3-gram bits a second", 1),),
    "probe": (("primary_tokens", "phone probe on tokens, %", 1), ("chance", "chance, %", 1)),
    "resynthesis": (
        ("wer", "WER, %", 1),
        ("cer", "CER, %", 1),
        ("wer_of_recording", "WER of the recordings, %", 1),
        ("wer_against_recording", "WER against what is heard in the recordings, %", 1),
        ("phone_errors", "phone errors, %", 1),
        ("phone_errors_of_recording", "phone errors of the recordings, %", 1),
        ("phone_errors_vowels", "... of vowels, %", 1),
        ("phone_errors_stops", "... of stops, %", 1),
        ("phone_errors_fricatives", "... of fricatives, %", 1),
        ("phone_errors_affricates", "... of affricates, %", 1),
        ("phone_errors_nasals", "... of nasals, %", 1),
        ("phone_errors_approximants", "... of approximants, %", 1),
        ("dnsmos", "DNSMOS", 2),
        ("dnsmos_of_recording", "DNSMOS of the recordings", 2),
        ("f0_rmse", "F0 error, cents", 0),
        ("f0_contour_rmse", "F0 error without register, cents", 0),
        ("voicing_error", "voicing decision error, %", 1),
        ("speaker_to_source", "speaker similarity to the recording", 3),
        ("speaker_to_others", "speaker similarity to other speakers", 3),
        ("speaker_to_target", "speaker similarity to the target voice", 3),
    ),
    "stats": (
        ("token_rate", "tokens a second", 2),
        ("entropy_bitrate", "entropy bitrate, bit/s", 1),
        ("active_codewords", "codewords in use", 0),
        ("perplexity", "perplexity", 1),
        ("silence_share", "share of frames in silence", 3),
    ),
}
"""The values that ``summary`` shows, by metric: key, label, digits after the point."""

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
    if report["skipped"]:
        lines += ["", f"{len(report['skipped'])} utterances were skipped:", ""]
        lines += [f"- {key}: {why}" for key, why in report["skipped"].items()]
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


def summary(report: dict[str, Any]) -> str:
    """The main values as aligned columns, one per tokenizer, with the 95 % interval of each value in brackets."""
    tokenizers, speech = report["tokenizers"], report["speech"]
    rows: list[list[str]] = [["", *(one["name"] for one in tokenizers)]]
    for metric, lines in SUMMARY.items():
        columns = [one["metrics"].get(metric, {"figures": {}})["figures"] for one in tokenizers]
        shown = [*lines, *_by_part(metric, speech)]
        found = [line for line in shown if any(line[0] in column for column in columns)]
        drawn = next((one["metrics"][metric]["drawn"] for one in tokenizers if metric in one["metrics"]), "")
        rows += [[f"{metric} ({drawn})" if drawn else metric]] if found else []
        for key, label, digits in found:
            rows.append([f"  {label}", *(_rounded(column.get(key), digits) for column in columns)])
    # A heading has no cells beside it, so it does not widen the first column.
    widths = [max(len(row[i]) for row in rows if len(row) > max(i, 1)) for i in range(len(tokenizers) + 1)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    head = f"{speech['utterances']} utterances, {speech['aligned']} aligned, {speech['speakers']} speakers"
    left_out = [f"{one['name']}: no {name}, {why}" for one in tokenizers for name, why in one["left_out"].items()]
    return "\n".join([f"{head}; 95 % intervals in brackets", "", *text, *([""] if left_out else []), *left_out]) + "\n"


def _by_part(metric: str, speech: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """The values of single aligners or corpora."""
    if metric == "phones":
        return [(f"pnmi_{slug(name)}", f"PNMI, aligned by {name}", 3) for name in speech["aligners"]]
    if metric == "speaker":
        return [
            line
            for name in speech["sources"]
            for line in (
                (f"probe_accuracy_tokens_{slug(name)}", f"speaker probe on tokens, {name}", 3),
                (f"probe_chance_{slug(name)}", f"chance, {name}", 3),
            )
        ]
    return []


def _rounded(figure: dict[str, float] | None, digits: int) -> str:
    if figure is None:
        return ""
    value, *ends = (f"{figure[end]:.{digits}f}" for end in ("value", "low", "high") if end in figure)
    return f"{value} [{', '.join(ends)}]" if ends else value
