"""``spintok stats``."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spintok.corpus.token_formats import Record
    from spintok.stats.counts import Statistics
    from spintok.stats.joint_counts import PairCounts

__all__ = ["EPILOG", "print_statistics", "stats"]

EPILOG = """Examples:

  spintok stats wav-tokens/                       a folder of tokens

  spintok stats monday/ tuesday/ --json all.json  several folders of one tokenizer, added up

  spintok stats march/ --against april/           how far the tokens have drifted"""


def stats(
    tokens: Annotated[list[Path], typer.Argument(help="Token folders of one tokenizer, or stats.json files.")],
    codebook: Annotated[str | None, typer.Option(help="The codebook to count; the first one by default.")] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Another corpus of the same codebook: also say how far the two lie apart.")
    ] = None,
    silence: Annotated[
        str | None, typer.Option(help="Codes that stand for silence, such as 3,17: their share.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures and counts here; - prints them.")
    ] = None,
) -> None:
    """Rates, bitrates, usage and imbalance of tokens; several folders add up."""
    from spintok._files import atomic
    from spintok.stats.metrics import dependence, drift

    census = _census(tokens, codebook)
    more: dict[str, dict[str, float]] = {}
    if census.pairs is not None:
        more["codebooks"] = dependence(census.pairs)
    if against:
        other = _census(against, codebook)
        if None not in (census.fingerprint, other.fingerprint) and census.fingerprint != other.fingerprint:
            raise ValueError(f"{against[0]}: holds the tokens of another tokenizer than {tokens[0]}; codes differ")
        more["drift"] = drift(census.statistics, other.statistics)
    found = census.statistics.to_json(_codes(silence), more)
    if json is not None and str(json) == "-":
        print(found, end="")
        return
    print_statistics(census.statistics, Console(), _codes(silence), more)
    if json is not None:
        with atomic(json) as temporary:
            temporary.write_text(found, encoding="utf-8")


def _codes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(code) for code in text.split(",")]
    except ValueError:
        raise ValueError(f"--silence takes codes with commas between them, such as 3,17; got {text!r}") from None


@dataclass
class _Census:
    """What the sources hold: of one tokenizer, when it is known, and the pairs of codes of its first two codebooks."""

    statistics: "Statistics"
    fingerprint: str | None = None
    pairs: "PairCounts | None" = None


def _census(sources: list[Path], codebook: str | None) -> _Census:
    parts = [_read(source, codebook) for source in sources]
    for source, part in zip(sources, parts, strict=True):
        if part.fingerprint not in (None, parts[0].fingerprint):
            raise ValueError(f"{source}: holds the tokens of another tokenizer than {sources[0]}; they cannot be added")
    total = parts[0]
    for part in parts[1:]:
        total.statistics += part.statistics
        total.pairs = None if total.pairs is None or part.pairs is None else total.pairs + part.pairs
    return total


def _read(source: Path, codebook: str | None) -> _Census:
    import numpy as np

    from spintok.corpus.tokens import read_corpus
    from spintok.stats.counts import Statistics
    from spintok.stats.joint_counts import PairCounts

    if source.is_file():
        return _Census(Statistics.read(source))
    description, records = read_corpus(source)
    sizes = description["codebooks"]
    name = next(iter(sizes)) if codebook is None else codebook
    if name not in sizes:
        raise ValueError(f"{source}: has no codebook {name!r}, only {', '.join(sizes)}")
    first, second = [*sizes, None][:2]
    pairs = None if second is None else PairCounts.empty(sizes[first], sizes[second])
    statistics = Statistics.empty(sizes[name])
    for batch in _batches(records):
        statistics += Statistics.collect([(record.tokens[name], record.speaker) for record in batch], sizes[name])
        if pairs is not None:
            a, b = (np.concatenate([record.tokens[book].codes for record in batch]) for book in (first, second))
            pairs += PairCounts.of(a, b, pairs.rows, pairs.columns)
    return _Census(statistics, description["fingerprint"], pairs)


def _batches(records: "Iterator[Record]") -> "Iterator[list[Record]]":
    while batch := list(islice(records, 1000)):
        yield batch


def print_statistics(
    statistics: "Statistics",
    console: Console,
    silence: list[int] | None = None,
    more: dict[str, dict[str, float]] | None = None,
) -> None:
    """The figures as a table for people."""
    figures = statistics.figures(silence)
    more = more or {}
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value, unit in (
        ("speech", f"{figures['hours']:.3f}", f"hours in {figures['utterances']} utterances"),
        ("frames", f"{figures['frames']:,}", f"at {figures['frame_rate']:.0f} a second"),
        ("tokens", f"{figures['tokens']:,}", f"at {figures['token_rate']:.2f} a second"),
        ("frame bitrate", f"{figures['frame_bitrate']:.1f}", "bit/s = log2 K x frame rate"),
        ("token bitrate", f"{figures['token_bitrate']:.1f}", "bit/s = log2 K x token rate"),
        ("entropy bitrate", f"{figures['entropy_bitrate']:.1f}", "bit/s = entropy x token rate"),
        ("entropy", f"{figures['entropy']:.3f}", "bits a token"),
        (
            "bigram entropy",
            f"{figures['conditional_entropy']:.3f}",
            f"bits a token after the one before it; {figures['conditional_entropy_bitrate']:.1f} bit/s",
        ),
        ("perplexity", f"{figures['perplexity']:.1f}", f"of {figures['codebook_size']} codewords"),
        ("active codewords", f"{figures['active_codewords']}", f"of {figures['codebook_size']}"),
        ("dead codewords", f"{figures['dead_codewords']}", _few(figures["dead_codeword_ids"])),
        ("tail share", f"{figures['tail_share']:.4f}", "of the rarest 20 % of codewords; 0.2 if even"),
        ("imbalance", f"{figures['imbalance']:.4f}", "1 - entropy / log2 K; 0 if even"),
        ("Gini", f"{figures['gini']:.4f}", "0 if even"),
        ("Zipf slope", f"{figures['zipf_slope']:.3f}", "of log count over log rank; -1 is Zipf's law"),
        (
            "run length",
            f"{figures['run_length_mean']:.2f}",
            f"frames on average; 90 % up to {figures['run_length_p90']}, longest {figures['run_length_max']}",
        ),
        *_rates(figures),
        ("most used", " ".join(f"{code}" for code, _ in figures["most_used"]), ""),
        ("least used", " ".join(f"{code}" for code, _ in figures["least_used"]), ""),
    ):
        table.add_row(name, value, unit)
    if figures["silence_share"] is not None:
        table.add_row("silence", f"{figures['silence_share']:.4f}", "of the frames have a code of silence")
    if "codebooks" in more:
        known = more["codebooks"]
        table.add_row(
            "two codebooks",
            f"{known['mutual_information']:.3f}",
            f"bits a frame in common: {known['primary_known']:.1%} of the first one's entropy, "
            f"{known['auxiliary_known']:.1%} of the second one's",
        )
    if "drift" in more:
        drift = more["drift"]
        table.add_row("token drift", f"{drift['token_drift']:.4f}", "bits, Jensen-Shannon; 0 if alike, 1 if disjoint")
        table.add_row("bigram drift", f"{drift['bigram_drift']:.4f}", "bits, Jensen-Shannon")
        table.add_row("rate change", f"{drift['token_rate_change']:+.2f}", "tokens a second")
    console.print(table, highlight=False)


def _few(codes: list[int]) -> str:
    shown = " ".join(map(str, codes[:10]))
    return f"{shown} ..." if len(codes) > 10 else shown


def _rates(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The token rate of the slowest and the fastest speaker, when speakers are known."""
    rates = figures["token_rate_by_speaker"]
    if not rates:
        return []
    slow, fast = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    span = f"{rates[slow]:.2f} to {rates[fast]:.2f}"
    return [("rate by speaker", span, f"tokens a second: {slow} to {fast}, of {len(rates)} speakers")]
