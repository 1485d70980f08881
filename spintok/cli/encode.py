"""``spintok encode``."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from spintok.cli.options import FAILED, Device, Quiet, load_tokenizer
from spintok.cli.stats import print_statistics

if TYPE_CHECKING:
    from spintok.corpus import Options, Summary
    from spintok.manifest import Utterance
    from spintok.tokenizer import Tokenizer

__all__ = ["EPILOG", "encode"]

LINE_SECONDS = 30.0
"""Between lines about the progress where there is no terminal to draw a bar on."""

EPILOG = """Examples:

  spintok encode wav/                         a folder, to wav-tokens/

  spintok encode speech.flac                  a file, to standard output

  spintok encode train.tsv out/ --format km   a fairseq manifest, to fairseq's files"""


def encode(
    source: Annotated[Path, typer.Argument(help="A folder, an audio file, or a manifest: .tsv, wav.scp, .jsonl.")],
    output: Annotated[Path | None, typer.Argument(help="The token folder; NAME-tokens by default.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", "-t", help="A name (spintok list) or a folder.")
    ] = None,
    codebook: Annotated[str, typer.Option(help="primary, auxiliary, or all of them in one pass.")] = "primary",
    dedup: Annotated[
        bool | None, typer.Option("--dedup/--no-dedup", help="Runs with durations (the default), or a code a frame.")
    ] = None,
    format: Annotated[
        Literal["jsonl", "parquet", "km"], typer.Option(help="Of the shards; km is fairseq's, a code a frame.")
    ] = "jsonl",
    device: Device = "auto",
    batch_seconds: Annotated[float, typer.Option(help="Audio in one batch on a GPU.")] = 200.0,
    workers: Annotated[int, typer.Option(help="Threads that read audio.")] = 2,
    shard_size: Annotated[int, typer.Option(help="Utterances a shard.")] = 1000,
    rank: Annotated[
        int, typer.Option(envvar="RANK", help="This process's number among --ranks (job arrays, torchrun).")
    ] = 0,
    ranks: Annotated[int, typer.Option(envvar="WORLD_SIZE", help="Processes that share the work.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew instead of going on.")] = False,
    quiet: Quiet = False,
) -> int:
    """Audio to tokens: a folder to a folder of shards, a single file to standard output.

    Run it again after a crash or with files mended: it does what is left. Files that cannot be read are listed in
    failed.jsonl and make the exit code 1.
    """
    from spintok.corpus import Options
    from spintok.manifest import scan

    loaded = load_tokenizer(tokenizer, device)
    names = tuple(loaded.codebook_names) if codebook == "all" else (codebook,)
    for name in names:
        loaded.size_of(name)
    runs = format != "km" if dedup is None else dedup
    options = Options(names, format, runs, shard_size, batch_seconds, workers, rank, ranks, overwrite)
    if output is None and source.is_file() and not _is_manifest(source):
        print(_one_file(loaded, source, options))
        return 0
    utterances = scan(source)
    folder = (
        Path(f"{source.resolve().stem if source.is_file() else source.resolve().name}-tokens")
        if output is None
        else output
    )
    summary = _encode_with_bar(loaded, utterances, folder, options, quiet)
    if not quiet:
        _print_summary(summary, folder, loaded, names[0])
    if summary.failures:
        count = len(summary.failures)
        print(
            f"spintok: {count} of {summary.total} files failed; {folder / 'failed.jsonl'} says which and why",
            file=sys.stderr,
        )
    return FAILED if summary.failures else 0


def _is_manifest(path: Path) -> bool:
    return path.suffix.lower() in (".tsv", ".scp", ".jsonl", ".json")


def _one_file(tokenizer: "Tokenizer", path: Path, options: "Options") -> str:
    """The tokens of one file as text: codes, a codebook a line."""
    recording = tokenizer.record(path)
    (found,) = tokenizer.encode_recordings([recording], options.codebooks)
    return "\n".join(" ".join(map(str, (t.units if options.dedup else t.codes).tolist())) for t in found.values())


def _encode_with_bar(
    tokenizer: "Tokenizer", utterances: "list[Utterance]", folder: Path, options: "Options", quiet: bool
) -> "Summary":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from spintok.corpus import encode_corpus

    console = Console(stderr=True, quiet=quiet)
    columns = (
        TextColumn("encoding"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files, {task.fields[speed]:.0f} x real time, left"),
        TimeRemainingColumn(),
    )
    started = told = time.monotonic()
    heard, done = 0.0, 0
    mine = sum(1 for i in range(len(utterances)) if i // options.shard_size % options.ranks == options.rank)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=mine, speed=0.0)

        def progress(count: int, seconds: float) -> None:
            nonlocal heard, done, told
            heard, done, now = heard + seconds, done + count, time.monotonic()
            speed = heard / max(now - started, 1e-9)
            bar.update(task, advance=count, speed=speed)
            if not console.is_terminal and now - told > LINE_SECONDS:
                # A log file has no bar.
                told = now
                console.print(f"encoded {done} of {mine} files, {speed:.0f} x real time", highlight=False)

        return encode_corpus(tokenizer, utterances, folder, options, progress)


def _print_summary(summary: "Summary", folder: Path, tokenizer: "Tokenizer", codebook: str) -> None:
    console = Console()
    print_statistics(summary.statistics, console)
    speed = summary.audio_seconds / max(summary.wall_seconds, 1e-9)
    parts = [f"{folder}: tokenizer {tokenizer.name}, {codebook} codebook"]
    if summary.encoded:
        parts.append(f"{summary.audio_seconds / 3600:.2f} h in {summary.wall_seconds:.1f} s, {speed:.0f} x real time")
    if summary.resumed:
        parts.append(f"{summary.resumed} files were there already")
    console.print("; ".join(parts), highlight=False, soft_wrap=True)
    console.print(summary.audit, highlight=False)
