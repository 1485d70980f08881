"""The page of a token folder: how its tokenizer uses its codewords, as numbers, charts and audio."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spintok.corpus import CorpusCounts, count_corpus, read_corpus
from spintok.data.labels.alignment_files import read_alignments
from spintok.data.labels.alignments import SILENCE_LABELS, Alignment, match
from spintok.report.charts import Table
from spintok.report.evaluation import read_evaluation
from spintok.report.heatmap import HeatMap, heat_map
from spintok.report.page import number, percent, render
from spintok.report.places import MOST_CODES, code_sounds, sample_places
from spintok.report.usage import imbalance_chart, run_length_chart, speaker_chart, time_chart, usage_chart
from spintok.stats import JointCounts, LabelCounts, TokenCounts, dependence, metrics
from spintok.tokens import Tokens

__all__ = ["Survey", "corpus_report", "survey"]


@dataclass(frozen=True)
class Survey:
    """The counts of a token folder.

    Attributes:
        name: the name of the folder.
        corpus: its counts.
        labels: the number of frames with each phone and code; None without alignments.
    """

    name: str
    corpus: CorpusCounts
    labels: LabelCounts | None


def corpus_report(
    folder: Path,
    *,
    codebook: str | None = None,
    alignments: Path | None = None,
    evaluation: Path | None = None,
    listen: bool = False,
) -> str:
    """The page of a token folder.

    Args:
        folder: what ``spintok encode`` wrote.
        codebook: the codebook to show; the folder's first one by default.
        alignments: phones of its utterances, as ``spintok.data.labels.alignment_files`` reads them, for the heat map
            and the codes of silence.
        evaluation: an ``evaluation.json`` of the same tokenizer, for robustness and the other metrics.
        listen: include audio of up to ten places where each code occurs, read from the files that were encoded.

    Raises:
        AudioError: with ``listen``, an audio file is not where it was encoded, or cannot be read.
        ValueError: the folder, the alignments or the evaluation cannot be used, or do not belong together.
    """
    found = survey(folder, codebook, alignments)
    counts = found.corpus.counts
    fingerprint = found.corpus.description["fingerprint"]
    measured = None if evaluation is None else read_evaluation(evaluation, fingerprint)
    silence = None
    if found.labels is not None:
        silence = found.labels.codes_of(SILENCE_LABELS)
    elif measured is not None:
        first = next(iter(found.corpus.description["codebooks"]))
        silence = measured.silence_codes if (measured.codebook or first) == found.corpus.codebook else None
    figures = metrics(counts)
    charts = [
        chart
        for chart in (
            usage_chart(counts, figures),
            imbalance_chart(counts, figures),
            run_length_chart(counts, figures),
            time_chart(counts, figures),
            speaker_chart(counts, figures),
        )
        if chart is not None
    ]
    heat = None if found.labels is None else heat_map(found.labels)
    data: dict[str, Any] = {"charts": {chart.name: chart.data for chart in charts}}
    if heat is not None:
        data["heat"] = heat.data
    if listen:
        data["hear"] = _hear(folder, found.corpus.codebook, counts, heat)
    return render(
        "corpus",
        data,
        title=found.name,
        tokenizers=[(found.corpus.description.get("tokenizer", "unnamed"), fingerprint)],
        codebook=found.corpus.codebook,
        summary=_summary(figures),
        bitrates=_bitrates(figures),
        charts=charts,
        heat=heat,
        silence=silence,
        summary_codes=number(counts.codebook_size),
        silence_share=None if silence is None else metrics(counts, silence)["silence_share"],
        hear=data.get("hear"),
        labels=None if found.labels is None else found.labels.metrics(),
        robustness=[] if measured is None else measured.robustness(),
        evaluated=[] if measured is None else measured.tables(),
        most=_codes(counts, heat, figures["most_used"]),
        least=_codes(counts, heat, figures["least_used"]),
        figures=_all_figures(figures, found.corpus.joint, list(found.corpus.description["codebooks"])),
    )


def survey(folder: Path, codebook: str | None = None, alignments: Path | None = None) -> Survey:
    """Count a token folder; memory grows with the alignments, not with the corpus.

    Raises:
        ValueError: the folder or the alignments cannot be used, or the folder has no tokens.
    """
    aligned: Mapping[str, Alignment] = {}
    if alignments is not None:
        # ``match`` needs all keys at once.
        aligned = match([record.key for record in read_corpus(folder)[1]], read_alignments(alignments))
    labels: list[LabelCounts] = []

    def count_labels(tokens: Mapping[str, Tokens]) -> None:
        size = next(iter(tokens.values())).codebook_size
        parts = [LabelCounts.of(one, aligned[key].phones) for key, one in tokens.items() if key in aligned]
        labels[:] = [LabelCounts.summed([*labels, *parts], size)]

    found = count_corpus(folder, codebook, count_labels)
    if not found.counts.tokens.any():
        raise ValueError(f"{folder}: holds no tokens, so there is nothing to show")
    return Survey(folder.resolve().name, found, labels[0] if alignments is not None else None)


def _hear(folder: Path, codebook: str, counts: TokenCounts, heat: HeatMap | None) -> dict[str, Any]:
    """Audio of the most frequent codes, by code, and the main phone of each."""
    places = sample_places(read_corpus(folder)[1], codebook)
    frequent = sorted(places, key=lambda code: -int(counts.tokens[code]))[:MOST_CODES]
    return {
        "codes": code_sounds({code: places[code] for code in sorted(frequent)}),
        "counts": {code: int(counts.tokens[code]) for code in frequent},
        "phones": {} if heat is None else heat.main_phones,
        "size": counts.codebook_size,
        "left_out": len(places) - len(frequent),
    }


def _summary(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers at the top of the page: name, value, unit."""
    hours = figures["hours"]
    speech = (number(hours), "hours") if hours >= 0.1 else (number(hours * 60), "minutes")
    return [
        ("Speech", *speech),
        (
            "Utterances",
            f"{figures['utterances']:,}",
            f"of {figures['speakers']:,} speakers" if figures["speakers"] else "",
        ),
        ("Tokens", f"{figures['tokens']:,}", "after de-duplication"),
        ("Token rate", f"{figures['token_rate']:.2f}", "a second"),
        ("Active codewords", f"{figures['active_codewords']:,}", f"of {figures['codebook_size']:,}"),
        ("Perplexity", number(figures["perplexity"]), f"{figures['entropy']:.3f} bits a token"),
    ]


def _bitrates(figures: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    """Name, formula, value in bit/s as text, and the length of the bar from 0 to 1."""
    rows = [
        ("frame bitrate", "log₂ K · frame rate", figures["frame_bitrate"]),
        ("token bitrate", "log₂ K · token rate", figures["token_bitrate"]),
        ("entropy bitrate", "entropy · token rate", figures["entropy_bitrate"]),
        ("bigram entropy bitrate", "H(token | token before) · token rate", figures["conditional_entropy_bitrate"]),
    ]
    highest = max(value for *_, value in rows) or 1.0
    return [(name, formula, f"{value:.1f}", value / highest) for name, formula, value in rows]


def _codes(counts: TokenCounts, heat: HeatMap | None, codes: list[list[int]]) -> Table:
    main = {} if heat is None else heat.main_phones
    total = max(int(counts.tokens.sum()), 1)
    head = ("code", "tokens", "share", "mean run", *(["main phone"] if heat is not None else []))
    rows = [
        (
            code,
            f"{count:,}",
            percent(count / total),
            f"{counts.frames[code] / count * 20:.0f} ms" if count else "-",
            *([main.get(code, "-")] if heat is not None else []),
        )
        for code, count in codes
    ]
    return Table.of(head, rows, chips=(0,))


def _all_figures(figures: dict[str, Any], joint: JointCounts | None, codebooks: list[str]) -> Table:
    """Every metric that is a single number, with its name in ``stats.json``."""
    rows = [
        (name, number(value, 6) if isinstance(value, float) else f"{value:,}")
        for name, value in figures.items()
        if isinstance(value, int | float)
    ]
    if joint is not None:
        known = dependence(joint)
        between = f"{codebooks[0]} and {codebooks[1]}"
        rows.append((f"mutual_information of {between}", f"{number(known['mutual_information'], 4)} bits a frame"))
        rows.append((f"... known of {codebooks[0]}", percent(known["primary_known"])))
        rows.append((f"... known of {codebooks[1]}", percent(known["auxiliary_known"])))
    return Table.of(("figure", "value"), rows)
