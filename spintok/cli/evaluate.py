"""``spintok evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spintok.cli.exit_codes import FAILED
from spintok.cli.options import (
    DecoderNames,
    Device,
    Offline,
    Quiet,
    complete_tokenizer,
    distinct_names,
    load_decoders,
    load_tokenizer,
)
from spintok.cli.output import complain, say
from spintok.cli.progress import progress_display

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spintok.data.labels.alignments import Alignment
    from spintok.data.manifest import Utterance
    from spintok.decoder import Decoder
    from spintok.evaluate.noise_sources import NoiseSources
    from spintok.tokenizer import Tokenizer

__all__ = ["EPILOG", "evaluate"]

EPILOG = """Examples:

  spintok evaluate my-tokenizer/ --data dev.jsonl --alignments dev_phones.jsonl

  spintok evaluate my-tokenizer/ --data dev.jsonl --metrics robustness --noise noise/

  spintok evaluate new/ --against old/ --data wav/ --alignments textgrids/

  spintok evaluate dc-spin-10m-en --data dev.jsonl --metrics resynthesis --utterances 50"""


def evaluate(
    tokenizer: Annotated[
        str,
        typer.Argument(
            help="The tokenizer: a name that `spintok list` shows, or a folder.", autocompletion=complete_tokenizer
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(help="The speech to measure on: a folder of audio or a manifest; a .jsonl can name speakers."),
    ],
    alignments: Annotated[
        Path | None,
        typer.Option(
            help="Phone alignments: TextGrid, JSON, CTM, CSV, TIMIT, HTK or Audacity files, or a folder of them."
        ),
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(help="Word alignments for CNMI, in the same formats, if --alignments has no words."),
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Another tokenizer to compare with; can be repeated.")
    ] = None,
    noise: Annotated[Path | None, typer.Option(help="A folder of noise recordings, for robustness.")] = None,
    rooms: Annotated[Path | None, typer.Option(help="A folder of room impulse responses, for robustness.")] = None,
    decoder: DecoderNames = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Transcripts, for error rates of resynthesis: JSON lines with id and text, or lines KEY WORD WORD "
            "(default: the texts of a .jsonl manifest)."
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(help="Recordings of the decoder's voice, to which resynthesis is compared: a folder or manifest."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="The metrics to compute, separated by commas: stats, phones, abx, robustness, speaker, "
            "predictability, probe, similarity, resynthesis (default: all that the data allow)."
        ),
    ] = None,
    codebook: Annotated[
        str | None, typer.Option(help="The codebook whose tokens to measure (default: the primary one).")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="The encoder layers for probe and similarity, such as 6,9,12 (default: all)."),
    ] = None,
    unit: Annotated[
        Literal["triphone", "phoneme"],
        typer.Option(help="What ABX compares: phones with their neighbours (triphone), or phones alone (phoneme)."),
    ] = "triphone",
    tolerance: Annotated[
        float, typer.Option(help="The distance in seconds within which a token boundary matches a phone boundary.")
    ] = 0.02,
    utterances: Annotated[
        int, typer.Option(help="The largest number of utterances for robustness and for resynthesis.")
    ] = 200,
    draws: Annotated[int, typer.Option(help="The number of bootstrap samples behind each confidence interval.")] = 1000,
    seed: Annotated[
        int, typer.Option(help="The seed of all random choices: bootstrap samples, perturbations, probe folds.")
    ] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write (default: NAME-evaluation).")
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an evaluation of other speech, tokenizers or another codebook."),
    ] = False,
    device: Device = "auto",
    offline: Offline = None,
    quiet: Quiet = False,
) -> int:
    """Measure a tokenizer: phones, ABX, robustness, speakers, predictability, probes, statistics, resynthesis.

    Prints the main values and writes all to evaluation.json and evaluation.md. Run the same command again after an
    interruption: finished metrics are reused. An evaluation of other speech, tokenizers or another codebook is replaced
    only with --overwrite. Files that cannot be read are skipped and listed, and the exit code is
    1.
    """
    from spintok.data.manifest import scan
    from spintok.evaluate.options import Dataset, EvaluationOptions
    from spintok.evaluate.run import evaluate as run
    from spintok.evaluate.table import summary

    listed = scan(data)
    wanted = _metrics(metrics)
    sources = [tokenizer, *(against or [])]
    loaded = distinct_names([(source, load_tokenizer(source, device, offline, quiet)) for source in sources])
    if codebook is not None:
        for one in loaded:
            one.size_of(codebook)
    options = EvaluationOptions(
        codebook=codebook,
        layers=_numbers(layers),
        unit=unit,
        tolerance=tolerance,
        robustness_utterances=utterances,
        resynthesis_utterances=utterances,
        draws=draws,
        seed=seed,
    )
    dataset = Dataset(
        tuple(listed),
        _alignments(listed, alignments, words),
        _noise_sources(listed, noise, rooms),
        _texts(data, text),
        () if target is None else tuple(scan(target)),
    )
    decoders = _decoders(decoder, loaded, codebook)
    folder = output or Path(f"{loaded[0].name.replace('/', '-')}-evaluation")
    with progress_display(quiet=quiet) as progress:
        report = run(
            loaded, dataset, options, wanted, decoders=decoders, output=folder, overwrite=overwrite, progress=progress
        )
    if not quiet:
        say(summary(report))
        say(f"{folder}: all values in evaluation.json, with differences and intervals in evaluation.md")
    if not report["skipped"]:
        return 0
    key, why = next(iter(report["skipped"].items()))
    more = f" and {len(report['skipped']) - 1} more" if len(report["skipped"]) > 1 else ""
    complain(f"skipped {key} ({why}){more}; evaluation.json lists all under skipped", kind="warning")
    return FAILED


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


def _alignments(listed: "list[Utterance]", phones: Path | None, words: Path | None) -> "dict[str, Alignment]":
    from spintok.data.labels.alignment_files import read_alignments
    from spintok.data.labels.alignments import match, merge

    found: dict[str, Alignment] = {}
    if phones is not None:
        found = read_alignments(phones)
    if words is not None:
        found = merge(found, read_alignments(words, level="words"))
    return match([utterance.key for utterance in listed], found) if found else {}


def _texts(data: Path, text: Path | None) -> "Mapping[str, str]":
    """The transcripts that are named, or those of the manifest."""
    from spintok.data.labels.transcripts import Transcripts, manifest_texts

    if text is not None:
        return Transcripts(text)
    return manifest_texts(data) if data.suffix.lower() in (".jsonl", ".json") else {}


def _decoders(names: list[str] | None, tokenizers: "list[Tokenizer]", codebook: str | None) -> "dict[str, Decoder]":
    """The decoder of the codebook that is measured, by tokenizer."""
    decoders = load_decoders(names, tokenizers, codebook)
    return {
        one.name: decoder
        for one in tokenizers
        for decoder in decoders
        if (decoder.source.fingerprint, decoder.source.codebook) == (one.fingerprint, codebook or one.codebook_names[0])
    }


def _noise_sources(listed: "list[Utterance]", noise: Path | None, rooms: Path | None) -> "NoiseSources":
    from spintok.data.manifest import scan
    from spintok.evaluate.noise_sources import NoiseSources

    files = [[] if folder is None else [utterance.path for utterance in scan(folder)] for folder in (noise, rooms)]
    return NoiseSources(listed, *files)
