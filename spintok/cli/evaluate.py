"""``spintok evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from spintok.cli.options import Device, Offline, Quiet, load_tokenizer
from spintok.cli.progress import progress_display

if TYPE_CHECKING:
    from spintok.data.alignments import Alignment
    from spintok.data.manifest import Utterance
    from spintok.evaluate.options import Metric
    from spintok.tokenizer import Tokenizer

__all__ = ["EPILOG", "evaluate"]

EPILOG = """Examples:

  spintok evaluate my-tokenizer/ --data dev.jsonl --alignments dev_phones.jsonl

  spintok evaluate my-tokenizer/ --data dev.jsonl --metrics robustness --noise noise/

  spintok evaluate new/ --against old/ --data wav/ --alignments textgrids/"""


def evaluate(
    tokenizer: Annotated[str, typer.Argument(help="A name (spintok list) or a folder.")],
    data: Annotated[Path, typer.Option(help="Speech: a folder or a manifest; a .jsonl may name speakers.")],
    alignments: Annotated[
        Path | None, typer.Option(help="Phones: TextGrid files or a folder of them, .ctm, .tsv at 100 Hz, .jsonl.")
    ] = None,
    words: Annotated[Path | None, typer.Option(help="Words, for CNMI, where --alignments has none: the same.")] = None,
    against: Annotated[list[str] | None, typer.Option(help="Another tokenizer to put beside it; repeatable.")] = None,
    noise: Annotated[Path | None, typer.Option(help="A folder of noise files, for robustness.")] = None,
    rooms: Annotated[Path | None, typer.Option(help="A folder of impulse responses, for robustness.")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Those wanted, with commas between: stats, phones, abx, robustness, speaker, predictability, probe, "
            "similarity. By default all that the data allow."
        ),
    ] = None,
    codebook: Annotated[str | None, typer.Option(help="Whose tokens; the primary by default.")] = None,
    layers: Annotated[str | None, typer.Option(help="Of the sweep, such as 6,9,12; all by default.")] = None,
    unit: Annotated[Literal["triphone", "phoneme"], typer.Option(help="Of ABX: with its neighbours, or alone.")] = (
        "triphone"
    ),
    tolerance: Annotated[float, typer.Option(help="Of boundaries, in seconds.")] = 0.02,
    utterances: Annotated[int, typer.Option(help="For robustness, at most.")] = 200,
    draws: Annotated[int, typer.Option(help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    output: Annotated[Path | None, typer.Option(help="The folder to write; NAME-evaluation by default.")] = None,
    device: Device = "auto",
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Measure a tokenizer: phones, ABX, robustness, speakers, predictability, probes, statistics.

    Writes evaluation.json and evaluation.md. Run it again after a stop: finished metrics are kept.
    """
    from spintok.data.manifest import scan
    from spintok.evaluate.evaluation import evaluate as run
    from spintok.evaluate.options import Settings, Speech

    listed = scan(data)
    wanted = _metrics(metrics)
    sources = [tokenizer, *(against or [])]
    loaded = _distinct([(source, load_tokenizer(source, device, offline, quiet)) for source in sources])
    if codebook is not None:
        for one in loaded:
            one.size_of(codebook)
    settings = Settings(
        codebook=codebook,
        layers=_numbers(layers),
        unit=unit,
        tolerance=tolerance,
        robustness_utterances=utterances,
        draws=draws,
        seed=seed,
    )
    speech = Speech(tuple(listed), _alignments(listed, alignments, words), _material(listed, noise, rooms))
    folder = output or Path(f"{loaded[0].name.replace('/', '-')}-evaluation")
    with progress_display(quiet=quiet) as progress:
        run(loaded, speech, settings, wanted, output=folder, progress=progress)
    if not quiet:
        print((folder / "evaluation.md").read_text(encoding="utf-8"), end="")
        print(f"\n{folder}: evaluation.json, evaluation.md")


def _metrics(text: str | None) -> "list[Metric] | None":
    from spintok.evaluate.options import Metric

    if text is None:
        return None
    known = get_args(Metric)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown metric {name!r}; known: {', '.join(known)}")
    return [name for name in known if name in names]


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(f"--layers takes numbers with commas between them, such as 6,9,12; got {text!r}") from None


def _distinct(loaded: "list[tuple[str, Tokenizer]]") -> "list[Tokenizer]":
    """Tokenizers of one name are called by where they come from."""
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


def _material(listed: "list[Utterance]", noise: Path | None, rooms: Path | None) -> Any:
    from spintok.data.manifest import scan
    from spintok.evaluate.perturbations import Material

    files = [[] if folder is None else [utterance.path for utterance in scan(folder)] for folder in (noise, rooms)]
    return Material(listed, *files)
