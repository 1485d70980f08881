"""``spintok evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spintok.cli.options import Device, Offline, Quiet, load_tokenizer
from spintok.cli.progress import progress_display

if TYPE_CHECKING:
    from spintok.data.alignments import Alignment
    from spintok.data.manifest import Utterance
    from spintok.evaluate.perturbations import NoiseSources
    from spintok.tokenizer import Tokenizer

__all__ = ["EPILOG", "evaluate"]

EPILOG = """Examples:

  spintok evaluate my-tokenizer/ --data dev.jsonl --alignments dev_phones.jsonl

  spintok evaluate my-tokenizer/ --data dev.jsonl --metrics robustness --noise noise/

  spintok evaluate new/ --against old/ --data wav/ --alignments textgrids/"""


def evaluate(
    tokenizer: Annotated[str, typer.Argument(help="A name (spintok list) or a folder.")],
    data: Annotated[
        Path, typer.Option(help="The speech: a folder or a manifest. A .jsonl manifest can name the speakers.")
    ],
    alignments: Annotated[
        Path | None,
        typer.Option(help="Phone alignments: a .TextGrid file or a folder of them, .ctm, .tsv at 100 Hz, .jsonl."),
    ] = None,
    words: Annotated[
        Path | None, typer.Option(help="Word alignments for CNMI, in the same formats, if --alignments has none.")
    ] = None,
    against: Annotated[list[str] | None, typer.Option(help="A tokenizer to compare it with; repeatable.")] = None,
    noise: Annotated[
        Path | None, typer.Option(help="A folder of noise files for the condition noise of robustness.")
    ] = None,
    rooms: Annotated[
        Path | None, typer.Option(help="A folder of impulse responses for the condition room of robustness.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="The metrics to compute, separated by commas: stats, phones, abx, robustness, speaker, "
            "predictability, probe, similarity. By default all that the data allow."
        ),
    ] = None,
    codebook: Annotated[str | None, typer.Option(help="The codebook to measure; the primary one by default.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Encoder layers for probe and similarity, such as 6,9,12; all by default.")
    ] = None,
    unit: Annotated[
        Literal["triphone", "phoneme"], typer.Option(help="What ABX compares: phones with their neighbours, or alone.")
    ] = ("triphone"),
    tolerance: Annotated[float, typer.Option(help="Largest distance of a boundary from its match, in seconds.")] = 0.02,
    utterances: Annotated[int, typer.Option(help="Robustness uses at most this many utterances.")] = 200,
    draws: Annotated[int, typer.Option(help="Number of bootstrap draws for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of all random choices; the same seed gives the same results.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write to; NAME-evaluation by default.")
    ] = None,
    device: Device = "auto",
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Measure a tokenizer: phones, ABX, robustness, speakers, predictability, probes, statistics.

    Prints the main values and writes all to evaluation.json and evaluation.md. If it is interrupted, run it again:
    finished metrics are reused.
    """
    from spintok.data.manifest import scan
    from spintok.evaluate.options import Dataset, EvaluationOptions
    from spintok.evaluate.run import evaluate as run
    from spintok.evaluate.table import summary

    listed = scan(data)
    wanted = _metrics(metrics)
    sources = [tokenizer, *(against or [])]
    loaded = _distinct([(source, load_tokenizer(source, device, offline, quiet)) for source in sources])
    if codebook is not None:
        for one in loaded:
            one.size_of(codebook)
    options = EvaluationOptions(
        codebook=codebook,
        layers=_numbers(layers),
        unit=unit,
        tolerance=tolerance,
        robustness_utterances=utterances,
        draws=draws,
        seed=seed,
    )
    dataset = Dataset(tuple(listed), _alignments(listed, alignments, words), _noise_sources(listed, noise, rooms))
    folder = output or Path(f"{loaded[0].name.replace('/', '-')}-evaluation")
    with progress_display(quiet=quiet) as progress:
        report = run(loaded, dataset, options, wanted, output=folder, progress=progress)
    if not quiet:
        print(summary(report))
        print(f"{folder}: all values in evaluation.json, with differences and intervals in evaluation.md")


def _metrics(text: str | None) -> list[str] | None:
    """The names in ``text`` in the order of METRICS."""
    from spintok.evaluate.run import METRICS

    if text is None:
        return None
    known = [metric.name for metric in METRICS]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown metric {name!r}; known: {', '.join(known)}")
    return [name for name in known if name in names]


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(f"--layers takes numbers separated by commas, such as 6,9,12; got {text!r}") from None


def _distinct(loaded: "list[tuple[str, Tokenizer]]") -> "list[Tokenizer]":
    """Rename tokenizers that share a name to the name or folder that was given for them."""
    names = [one.name for _, one in loaded]
    for source, one in loaded:
        if names.count(one.name) > 1:
            one.name = source
    return [one for _, one in loaded]


def _alignments(listed: "list[Utterance]", phones: Path | None, words: Path | None) -> "dict[str, Alignment]":
    from spintok.data.alignments import match, merge, read_alignments

    found: dict[str, Alignment] = {}
    if phones is not None:
        found = read_alignments(phones)
    if words is not None:
        found = merge(found, read_alignments(words, level="words"))
    return match([utterance.key for utterance in listed], found) if found else {}


def _noise_sources(listed: "list[Utterance]", noise: Path | None, rooms: Path | None) -> "NoiseSources":
    from spintok.data.manifest import scan
    from spintok.evaluate.perturbations import NoiseSources

    files = [[] if folder is None else [utterance.path for utterance in scan(folder)] for folder in (noise, rooms)]
    return NoiseSources(listed, *files)
