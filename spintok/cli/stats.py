"""``spintok stats``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from spintok.stats import Statistics

__all__ = ["EPILOG", "print_statistics", "stats"]

EPILOG = """Example:

  spintok stats wav-tokens/"""


def stats(
    tokens: Annotated[list[Path], typer.Argument(help="Token folders of one tokenizer, or stats.json files.")],
    codebook: Annotated[str | None, typer.Option(help="The codebook to count; the first one by default.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures and counts here; - prints them.")
    ] = None,
) -> None:
    """Rates, bitrates, usage and imbalance of tokens; several folders add up."""
    found = _statistics(tokens, codebook)
    if json is not None and str(json) == "-":
        print(found.to_json(), end="")
        return
    print_statistics(found, Console())
    if json is not None:
        json.write_text(found.to_json(), encoding="utf-8")


def _statistics(sources: list[Path], codebook: str | None) -> "Statistics":
    from spintok.corpus import read_corpus
    from spintok.stats import Statistics

    total: Statistics | None = None
    fingerprint: str | None = None
    for source in sources:
        if source.is_file():
            found = Statistics.read(source)
        else:
            description, records = read_corpus(source)
            if fingerprint not in (None, description["fingerprint"]):
                raise ValueError(
                    f"{source}: holds the tokens of another tokenizer than {sources[0]}; they cannot be added"
                )
            fingerprint = description["fingerprint"]
            sizes = description["codebooks"]
            name = next(iter(sizes)) if codebook is None else codebook
            if name not in sizes:
                raise ValueError(f"{source}: has no codebook {name!r}, only {', '.join(sizes)}")
            found = Statistics.empty(sizes[name])
            for record in records:
                found += Statistics.of(record.tokens[name])
        total = found if total is None else total + found
    assert total is not None
    return total


def print_statistics(statistics: "Statistics", console: Console) -> None:
    """The figures as a table for people."""
    figures = statistics.figures()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value, unit in (
        ("speech", f"{figures['hours']:.3f}", f"hours in {figures['utterances']} utterances"),
        ("frames", f"{figures['frames']:,}", f"at {figures['frame_rate']:.0f} a second"),
        ("tokens", f"{figures['tokens']:,}", f"at {figures['token_rate']:.2f} a second"),
        ("frame bitrate", f"{figures['frame_bitrate']:.1f}", "bit/s = log2 K x frame rate"),
        ("token bitrate", f"{figures['token_bitrate']:.1f}", "bit/s = log2 K x token rate"),
        ("entropy bitrate", f"{figures['entropy_bitrate']:.1f}", "bit/s = entropy x token rate"),
        ("entropy", f"{figures['entropy']:.3f}", "bits a token"),
        ("perplexity", f"{figures['perplexity']:.1f}", f"of {figures['codebook_size']} codewords"),
        ("active codewords", f"{figures['active_codewords']}", f"of {figures['codebook_size']}"),
        ("tail share", f"{figures['tail_share']:.4f}", "of the rarest 20 % of codewords; 0.2 if even"),
        ("imbalance", f"{figures['imbalance']:.4f}", "1 - entropy / log2 K; 0 if even"),
        ("Gini", f"{figures['gini']:.4f}", "0 if even"),
        (
            "run length",
            f"{figures['run_length_mean']:.2f}",
            f"frames on average; 90 % up to {figures['run_length_p90']}, longest {figures['run_length_max']}",
        ),
        ("most used", " ".join(f"{code}" for code, _ in figures["most_used"]), ""),
        ("least used", " ".join(f"{code}" for code, _ in figures["least_used"]), ""),
    ):
        table.add_row(name, value, unit)
    console.print(table, highlight=False)
