"""``spintok stats``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spintok.cli.output import printable

if TYPE_CHECKING:
    from spintok.stats import JointCounts, TokenCounts

__all__ = ["EPILOG", "print_statistics", "stats"]

EPILOG = """Examples:

  spintok stats wav-tokens/                       statistics of a token folder

  spintok stats monday/ tuesday/ --json all.json  several folders of one tokenizer, added up

  spintok stats march/ --against april/           how far the tokens have drifted

  spintok stats wav-tokens/ --silence 3,17        the share of frames with codes of silence"""


def stats(
    tokens: Annotated[list[Path], typer.Argument(help="Token folders of one tokenizer, or stats.json files.")],
    codebook: Annotated[str | None, typer.Option(help="The codebook to count (default: the first one).")] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="A second corpus of the same codebook: also print how far its code distribution differs."),
    ] = None,
    silence: Annotated[
        str | None,
        typer.Option(metavar="CODES", help="The codes that stand for silence, such as 3,17: also print their share."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the statistics and counts to this file as JSON; - prints only that."),
    ] = None,
) -> None:
    """Print rates, bitrates, entropy, codebook usage and imbalance of tokens; several folders are added up."""
    from spintok._files import check_target, write_text
    from spintok.stats import dependence, drift, to_json

    if json is not None and str(json) != "-":
        check_target(json)
    found = _count(tokens, codebook)
    more: dict[str, dict[str, float]] = {}
    if found.joint is not None:
        more["codebooks"] = dependence(found.joint)
    if against:
        other = _count(against, codebook)
        if None not in (found.fingerprint, other.fingerprint) and found.fingerprint != other.fingerprint:
            raise ValueError(f"{against[0]}: holds the tokens of another tokenizer than {tokens[0]}; codes differ")
        more["drift"] = drift(found.counts, other.counts)
    text = to_json(found.counts, _codes(silence), more)
    if json is not None and str(json) == "-":
        print(text, end="")
        return
    print_statistics(found.counts, Console(), _codes(silence), more)
    if json is not None:
        write_text(json, text)


def _codes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(code) for code in text.split(",")]
    except ValueError:
        raise ValueError(f"--silence takes codes separated by commas, such as 3,17; got {text!r}") from None


@dataclass
class _Counts:
    """Counts of one tokenizer's tokens; the fingerprint and the joint counts of two codebooks where they are known."""

    counts: "TokenCounts"
    fingerprint: str | None = None
    joint: "JointCounts | None" = None


def _count(sources: list[Path], codebook: str | None) -> _Counts:
    parts = [_read(source, codebook) for source in sources]
    for source, part in zip(sources, parts, strict=True):
        if part.fingerprint not in (None, parts[0].fingerprint):
            raise ValueError(f"{source}: holds the tokens of another tokenizer than {sources[0]}; they cannot be added")
    total = parts[0]
    for part in parts[1:]:
        total.counts += part.counts
        total.joint = None if total.joint is None or part.joint is None else total.joint + part.joint
    return total


def _read(source: Path, codebook: str | None) -> _Counts:
    from spintok.corpus import count_corpus
    from spintok.stats import read_counts

    if source.is_file():
        return _Counts(read_counts(source))
    found = count_corpus(source, codebook)
    return _Counts(found.counts, found.description["fingerprint"], found.joint)


def print_statistics(
    counts: "TokenCounts",
    console: Console,
    silence: list[int] | None = None,
    more: dict[str, dict[str, float]] | None = None,
) -> None:
    """Print the metrics of ``counts`` as a table."""
    from spintok.stats import metrics

    figures = metrics(counts, silence)
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
            f"bits a token, given the one before it; {figures['conditional_entropy_bitrate']:.1f} bit/s",
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
        # Speakers have any name: no markup.
        table.add_row(name, value, Text(printable(unit)))
    if figures["silence_share"] is not None:
        table.add_row("silence", f"{figures['silence_share']:.4f}", "of the frames have a silence code")
    if "codebooks" in more:
        known = more["codebooks"]
        table.add_row(
            "two codebooks",
            f"{known['mutual_information']:.3f}",
            f"bits a frame shared: {known['primary_known']:.1%} of the first one's entropy, "
            f"{known['auxiliary_known']:.1%} of the second one's",
        )
    if "drift" in more:
        drift = more["drift"]
        table.add_row("token drift", f"{drift['token_drift']:.4f}", "bits, Jensen-Shannon; 0 if equal, 1 if disjoint")
        table.add_row("bigram drift", f"{drift['bigram_drift']:.4f}", "bits, Jensen-Shannon")
        table.add_row("rate change", f"{drift['token_rate_change']:+.2f}", "tokens a second")
    console.print(table, highlight=False)


def _few(codes: list[int]) -> str:
    shown = " ".join(map(str, codes[:10]))
    return f"{shown} ..." if len(codes) > 10 else shown


def _rates(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the row with the token rates of the slowest and the fastest speaker, if speakers are known."""
    rates = figures["token_rate_by_speaker"]
    if not rates:
        return []
    slow, fast = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    span = f"{rates[slow]:.2f} to {rates[fast]:.2f}"
    return [("rate by speaker", span, f"tokens a second: {slow} to {fast}, of {len(rates)} speakers")]
