"""The page of a token folder: what its tokenizer does to speech, in figures and pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from spintok.corpus.token_formats import Record
from spintok.corpus.tokens import read_corpus
from spintok.data.alignments import match, read_alignments
from spintok.report.charts import Table
from spintok.report.evaluation import read_evaluation
from spintok.report.heatmap import HeatMap, heat_map
from spintok.report.page import number, percent, render
from spintok.report.usage import imbalance_chart, run_length_chart, speaker_chart, time_chart, usage_chart
from spintok.stats.counts import Statistics
from spintok.stats.joint_counts import PairCounts
from spintok.stats.label_counts import LabelCounts
from spintok.stats.metrics import dependence

__all__ = ["Survey", "corpus_report", "survey"]

_TOGETHER = 1000


@dataclass(frozen=True)
class Survey:
    """What one pass over a token folder counts.

    Attributes:
        name: of the folder.
        description: its ``tokenizer.json``.
        codebook: whose tokens were counted.
        statistics: of them.
        labels: frames of each phone and code, with alignments.
        pairs: codes of the folder's first two codebooks, where it has two.
    """

    name: str
    description: dict[str, Any]
    codebook: str
    statistics: Statistics
    labels: LabelCounts | None
    pairs: PairCounts | None


def corpus_report(
    folder: Path, *, codebook: str | None = None, alignments: Path | None = None, evaluation: Path | None = None
) -> str:
    """The page of a token folder.

    Args:
        folder: what ``spintok encode`` wrote.
        codebook: whose tokens; the folder's first one by default.
        alignments: phones of its utterances, for the heat map: see ``spintok.data.alignments``.
        evaluation: an ``evaluation.json`` of the same tokenizer, for robustness and the other figures.

    Raises:
        ValueError: the folder, the alignments or the evaluation cannot be used, or do not belong together.
    """
    found = survey(folder, codebook, alignments)
    fingerprint = found.description["fingerprint"]
    measured = None if evaluation is None else read_evaluation(evaluation, fingerprint)
    figures = found.statistics.figures()
    charts = [
        chart
        for chart in (
            usage_chart(found.statistics, figures),
            imbalance_chart(found.statistics, figures),
            run_length_chart(found.statistics, figures),
            time_chart(found.statistics, figures),
            speaker_chart(found.statistics, figures),
        )
        if chart is not None
    ]
    heat = None if found.labels is None else heat_map(found.labels)
    data: dict[str, Any] = {"charts": {chart.name: chart.data for chart in charts}}
    if heat is not None:
        data["heat"] = heat.data
    return render(
        "corpus",
        data,
        title=found.name,
        tokenizer=found.description.get("tokenizer", "unnamed"),
        fingerprint=fingerprint,
        codebook=found.codebook,
        summary=_summary(figures),
        bitrates=_bitrates(figures),
        charts=charts,
        heat=heat,
        labels=None if found.labels is None else found.labels.metrics(),
        robustness=[] if measured is None else measured.robustness(),
        families=[] if measured is None else measured.tables(),
        most=_codes(found.statistics, heat, figures["most_used"]),
        least=_codes(found.statistics, heat, figures["least_used"]),
        figures=_all_figures(figures, found.pairs, list(found.description["codebooks"])),
    )


def survey(folder: Path, codebook: str | None = None, alignments: Path | None = None) -> Survey:
    """Count a token folder; memory does not grow with the corpus, but it does with the alignments."""
    description, records = read_corpus(folder)
    sizes = description["codebooks"]
    name = next(iter(sizes)) if codebook is None else codebook
    if name not in sizes:
        raise ValueError(f"{folder}: has no codebook {name!r}, only {', '.join(sizes)}")
    aligned = None
    if alignments is not None:
        # Which names go together can only be told from all of them.
        aligned = match([record.key for record in read_corpus(folder)[1]], read_alignments(alignments))
    first, second = [*sizes, None][:2]
    statistics = Statistics.empty(sizes[name])
    labels = LabelCounts.empty(sizes[name])
    pairs = None if second is None else PairCounts.empty(sizes[first], sizes[second])
    for batch in _batches(records):
        statistics += Statistics.collect([(record.tokens[name], record.speaker) for record in batch], sizes[name])
        if aligned is not None:
            parts = [LabelCounts.of(r.tokens[name], aligned[r.key].phones) for r in batch if r.key in aligned]
            labels += LabelCounts.summed(parts, sizes[name])
        if pairs is not None:
            a, b = (np.concatenate([record.tokens[book].codes for record in batch]) for book in (first, second))
            pairs += PairCounts.of(a, b, pairs.rows, pairs.columns)
    if not statistics.tokens.any():
        raise ValueError(f"{folder}: holds no tokens, so there is nothing to show")
    where = folder.resolve().name
    return Survey(where, description, name, statistics, None if aligned is None else labels, pairs)


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, _TOGETHER)):
        yield batch


def _summary(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What stands at the top: name, value, unit."""
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
    """Name, formula, value in bit/s as text, and length of the bar."""
    rows = [
        ("frame bitrate", "log₂ K · frame rate", figures["frame_bitrate"]),
        ("token bitrate", "log₂ K · token rate", figures["token_bitrate"]),
        ("entropy bitrate", "entropy · token rate", figures["entropy_bitrate"]),
        ("bigram entropy bitrate", "H(token | token before) · token rate", figures["conditional_entropy_bitrate"]),
    ]
    highest = max(value for *_, value in rows) or 1.0
    return [(name, formula, f"{value:.1f}", value / highest) for name, formula, value in rows]


def _codes(statistics: Statistics, heat: HeatMap | None, codes: list[list[int]]) -> Table:
    main = {} if heat is None else {code: heat.phones[row] for code, row in zip(heat.codes, heat.main, strict=True)}
    total = max(int(statistics.tokens.sum()), 1)
    head = ("code", "tokens", "share", "mean run", *(["main phone"] if heat is not None else []))
    rows = [
        (
            code,
            f"{count:,}",
            percent(count / total),
            f"{statistics.frames[code] / count * 20:.0f} ms" if count else "-",
            *([main.get(code, "-")] if heat is not None else []),
        )
        for code, count in codes
    ]
    return Table.of(head, rows, chips=(0,))


def _all_figures(figures: dict[str, Any], pairs: PairCounts | None, codebooks: list[str]) -> Table:
    """Every figure that is one number, under the name it has in ``stats.json``."""
    rows = [
        (name, number(value, 6) if isinstance(value, float) else f"{value:,}")
        for name, value in figures.items()
        if isinstance(value, int | float)
    ]
    if pairs is not None:
        known = dependence(pairs)
        between = f"{codebooks[0]} and {codebooks[1]}"
        rows.append((f"mutual_information of {between}", f"{number(known['mutual_information'], 4)} bits a frame"))
        rows.append((f"... known of {codebooks[0]}", percent(known["primary_known"])))
        rows.append((f"... known of {codebooks[1]}", percent(known["auxiliary_known"])))
    return Table.of(("figure", "value"), rows)
