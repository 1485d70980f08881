"""The command line: parse, call one function, print. Heavy imports wait until a command runs."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from spintok.corpus import Summary
    from spintok.manifest import Utterance
    from spintok.stats import Statistics
    from spintok.tokenizer import Tokenizer

__all__ = ["app", "main"]

app = typer.Typer(
    name="spintok",
    help="Speech to tokens for language models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Any command takes [bold]--debug[/bold]: show where an error comes from.",
)

Device = Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1; auto takes a GPU when there is one.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
FAILED = 1
USAGE = 2
INTERRUPTED = 130


def main() -> None:
    """Run the command line; a user's error is one line and a non-zero exit."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        code = app(args=[a for a in arguments if a != "--debug"], standalone_mode=False, prog_name="spintok")
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = USAGE
    except click.ClickException as error:
        _complain(error.format_message())
        code = USAGE
    except (click.Abort, KeyboardInterrupt):
        _complain("stopped; run the same command again to go on")
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left; what Python flushes at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except Exception as error:
        if debug:
            raise
        _complain(str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}")
        code = USAGE
    sys.exit(code)


def _complain(message: str) -> None:
    print(f"spintok: error: {' '.join(message.split())}", file=sys.stderr)


@app.command(
    epilog="Examples:\n\n  spintok encode wav/                         a folder, to wav-tokens/\n\n"
    "  spintok encode speech.flac                  a file, to standard output\n\n"
    "  spintok encode train.tsv out/ --format km   a fairseq manifest, to fairseq's files"
)
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

    loaded = _load(tokenizer, device)
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
        _complain(f"{count} of {summary.total} files failed; {folder / 'failed.jsonl'} says which and why")
    return FAILED if summary.failures else 0


@app.command(epilog="Example:\n\n  spintok stats wav-tokens/")
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
    _print_statistics(found, Console())
    if json is not None:
        json.write_text(found.to_json(), encoding="utf-8")


@app.command("list")
def list_tokenizers() -> None:
    """The tokenizers that ship with spintok."""
    from spintok import registry
    from spintok.tokenizer import load

    table = Table("name", "codebooks", "frames a second", "folder", box=None, pad_edge=False)
    for name, folder in registry.known().items():
        tokenizer = load(name)
        books = ", ".join(f"{book} {tokenizer.size_of(book)}" for book in tokenizer.codebook_names)
        shown = f"{name} (default)" if name == registry.DEFAULT else name
        table.add_row(shown, books, str(tokenizer.frame_rate), str(folder))
    Console(soft_wrap=True).print(table)


@app.command(epilog="Example:\n\n  spintok train recipes/mfcc_kmeans_100.toml --data speech/ --output my-tokenizer")
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as those in recipes/.")],
    data: Annotated[Path, typer.Option(help="Speech: a folder or a manifest.")],
    output: Annotated[Path, typer.Option(help="The tokenizer folder to write.")],
    quiet: Quiet = False,
) -> None:
    """Make a tokenizer from speech, as a recipe says."""
    from spintok.manifest import scan
    from spintok.train.recipe import read_recipe
    from spintok.train.stage_kmeans import run

    plan = read_recipe(recipe)
    result = run(plan, scan(data), Console(stderr=True, quiet=quiet))
    result.save(output)
    if not quiet:
        print(f"{output}: tokenizer {result.name}, {result.codebook_size} codewords, {result.fingerprint[:12]}")


def _load(name: str | None, device: str) -> "Tokenizer":
    import torch

    from spintok.tokenizer import load

    return load(name, device=("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def _is_manifest(path: Path) -> bool:
    return path.suffix.lower() in (".tsv", ".scp", ".jsonl", ".json")


def _one_file(tokenizer: "Tokenizer", path: Path, options: Any) -> str:
    """The tokens of one file as text: codes, a codebook a line."""
    recording = tokenizer.record(path)
    (found,) = tokenizer.encode_recordings([recording], options.codebooks)
    return "\n".join(" ".join(map(str, (t.units if options.dedup else t.codes).tolist())) for t in found.values())


def _encode_with_bar(
    tokenizer: "Tokenizer", utterances: "list[Utterance]", folder: Path, options: Any, quiet: bool
) -> "Summary":
    import time

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
    started = time.monotonic()
    heard = 0.0
    mine = sum(1 for i in range(len(utterances)) if i // options.shard_size % options.ranks == options.rank)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=mine, speed=0.0)

        def progress(count: int, seconds: float) -> None:
            nonlocal heard
            heard += seconds
            bar.update(task, advance=count, speed=heard / max(time.monotonic() - started, 1e-9))

        return encode_corpus(tokenizer, utterances, folder, options, progress)


def _print_summary(summary: "Summary", folder: Path, tokenizer: "Tokenizer", codebook: str) -> None:
    console = Console()
    speed = summary.audio_seconds / max(summary.wall_seconds, 1e-9)
    _print_statistics(summary.statistics, console)
    console.print(
        f"{folder}: tokenizer {tokenizer.name}, {codebook} codebook; {summary.audio_seconds / 3600:.2f} h encoded in "
        f"{summary.wall_seconds:.1f} s, {speed:.0f} x real time"
        + (f"; {summary.resumed} files were there already" if summary.resumed else ""),
        highlight=False,
        soft_wrap=True,
    )
    console.print(summary.audit, highlight=False)


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


def _print_statistics(statistics: "Statistics", console: Console) -> None:
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
        ("tail share", f"{figures['tail_share']:.4f}", "held by the rarest 20 % of codewords; 0.2 if even"),
        ("imbalance", f"{figures['imbalance']:.4f}", "1 - entropy / log2 K; 0 if even"),
        ("Gini", f"{figures['gini']:.4f}", "0 if even"),
        (
            "run length",
            f"{figures['run_length_mean']:.2f}",
            f"frames on average; median {figures['run_length_median']}, 90 % up to {figures['run_length_p90']}, "
            f"longest {figures['run_length_max']}",
        ),
        ("most used", " ".join(f"{code}" for code, _ in figures["most_used"]), ""),
        ("least used", " ".join(f"{code}" for code, _ in figures["least_used"]), ""),
    ):
        table.add_row(name, value, unit)
    console.print(table, highlight=False)


if __name__ == "__main__":
    main()
