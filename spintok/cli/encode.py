"""``spintok encode``."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console

from spintok.cli.options import FAILED, Device, Offline, Quiet, TokenizerName, load_tokenizer
from spintok.cli.progress import progress_display
from spintok.cli.stats import print_statistics

if TYPE_CHECKING:
    from spintok.corpus.job import JobOptions, JobProgress, JobSummary
    from spintok.corpus.tokens import Options
    from spintok.tokenizer import Tokenizer

__all__ = ["EPILOG", "encode"]

S = TypeVar("S")

EPILOG = """Examples:

  spintok encode wav/                         a folder, to wav-tokens/

  spintok encode speech.flac                  a file, to standard output

  spintok encode train.tsv out/ --format km   a fairseq manifest, to fairseq's files

  spintok encode wav/ --features 6            layer 6 of the encoder, to wav-features/"""


def encode(
    source: Annotated[Path, typer.Argument(help="A folder, an audio file, or a manifest: .tsv, wav.scp, .jsonl.")],
    output: Annotated[
        Path | None, typer.Argument(help="The folder to write; NAME-tokens or NAME-features by default.")
    ] = None,
    tokenizer: TokenizerName = None,
    codebook: Annotated[
        str | None, typer.Option(help="primary (the default), auxiliary, or all of them in one pass.")
    ] = None,
    dedup: Annotated[
        bool | None, typer.Option("--dedup/--no-dedup", help="Runs with durations (the default), or a code a frame.")
    ] = None,
    format: Annotated[
        Literal["jsonl", "parquet", "km", "safetensors"] | None,
        typer.Option(
            help="Of the shards: jsonl (the default), parquet or km (fairseq's, a code a frame); of features "
            "safetensors (the default) or parquet."
        ),
    ] = None,
    features: Annotated[
        int | None,
        typer.Option(help="Write this encoder layer's features, not codes; 0 is the transformer's input, or MFCC."),
    ] = None,
    features_dtype: Annotated[
        Literal["float16", "bfloat16", "float32"] | None, typer.Option(help="Of features; float16 by default.")
    ] = None,
    device: Device = "auto",
    batch_seconds: Annotated[
        float | None, typer.Option(help="Audio in one batch on a GPU, 200 by default; features have no batches.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads that read audio.")] = 2,
    shard_size: Annotated[int, typer.Option(help="Utterances a shard.")] = 1000,
    rank: Annotated[
        int, typer.Option(envvar="RANK", help="This process's number among --ranks (job arrays, torchrun).")
    ] = 0,
    ranks: Annotated[int, typer.Option(envvar="WORLD_SIZE", help="Processes that share the work.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew instead of going on.")] = False,
    offline: Offline = None,
    quiet: Quiet = False,
) -> int:
    """Audio to tokens, or with --features to features: a folder to a folder of shards, one file's tokens to stdout.

    Run it again after a crash or with files mended: it does what is left. Files that cannot be read are listed in
    failed.jsonl and make the exit code 1.
    """
    shared: dict[str, Any] = {
        "shard_size": shard_size, "workers": workers, "rank": rank, "ranks": ranks, "overwrite": overwrite
    }  # fmt: skip
    if features is not None:
        for option, value in {"--codebook": codebook, "--dedup": dedup, "--batch-seconds": batch_seconds}.items():
            if value is not None:
                raise ValueError(f"{option} is for tokens: leave it out with --features")
        if format in ("jsonl", "km"):
            raise ValueError(f"--format {format} is for tokens: features go to safetensors or parquet")
        shared |= {"layer": features, "dtype": features_dtype or "float16", "format": format or "safetensors"}
        return _features(load_tokenizer(tokenizer, device, offline, quiet), source, output, shared, quiet)
    if features_dtype is not None:
        raise ValueError("--features-dtype says how features are stored: add --features LAYER")
    if format == "safetensors":
        raise ValueError("--format safetensors is for features: add --features LAYER")
    loaded = load_tokenizer(tokenizer, device, offline, quiet)
    shared |= {
        "codebooks": tuple(loaded.codebook_names) if codebook == "all" else (codebook or "primary",),
        "format": format or "jsonl",
        "dedup": format != "km" if dedup is None else dedup,
        "batch_seconds": 200.0 if batch_seconds is None else batch_seconds,
    }
    return _tokens(loaded, source, output, shared, quiet)


def _tokens(tokenizer: "Tokenizer", source: Path, output: Path | None, settings: Mapping[str, Any], quiet: bool) -> int:
    from spintok.corpus.tokens import Options, encode_corpus
    from spintok.data.manifest import scan

    for name in settings["codebooks"]:
        tokenizer.size_of(name)
    options = Options(**settings)
    if output is None and source.is_file() and not _is_manifest(source):
        print(_one_file(tokenizer, source, options))
        return 0
    utterances = scan(source)
    folder = output or _folder(source, "tokens")
    summary = _with_progress(
        len(utterances), options, quiet, lambda told: encode_corpus(tokenizer, utterances, folder, options, told)
    )
    if not quiet:
        print_statistics(summary.counts, Console())
    return _end(summary, folder, f"tokenizer {tokenizer.name}, {options.codebooks[0]} codebook", quiet)


def _features(
    tokenizer: "Tokenizer", source: Path, output: Path | None, settings: Mapping[str, Any], quiet: bool
) -> int:
    from spintok.corpus.features import FeatureOptions, encode_features
    from spintok.data.manifest import scan

    options = FeatureOptions(**settings)
    utterances = scan(source)
    folder = output or _folder(source, "features")
    summary = _with_progress(
        len(utterances), options, quiet, lambda told: encode_features(tokenizer, utterances, folder, options, told)
    )
    what = f"tokenizer {tokenizer.name}, features of layer {options.layer} in {options.dtype}"
    return _end(summary, folder, what, quiet)


def _folder(source: Path, suffix: str) -> Path:
    """What is written when no folder is named."""
    resolved = source.resolve()
    return Path(f"{resolved.stem if source.is_file() else resolved.name}-{suffix}")


def _is_manifest(path: Path) -> bool:
    return path.suffix.lower() in (".tsv", ".scp", ".jsonl", ".json")


def _one_file(tokenizer: "Tokenizer", path: Path, options: "Options") -> str:
    """The tokens of one file as text: codes, a codebook a line."""
    recording = tokenizer.record(path)
    (found,) = tokenizer.encode_recordings([recording], options.codebooks)
    return "\n".join(" ".join(map(str, (t.units if options.dedup else t.codes).tolist())) for t in found.values())


def _with_progress(utterances: int, options: "JobOptions", quiet: bool, encode: Callable[["JobProgress"], S]) -> S:
    """Return what ``encode`` returns; show the files done and the speed meanwhile."""
    started = time.monotonic()
    files, audio_seconds = 0, 0.0
    total = sum(1 for i in range(utterances) if i // options.shard_size % options.ranks == options.rank)
    with progress_display(quiet=quiet, unit="files") as display:

        def progress(count: int, seconds: float) -> None:
            nonlocal files, audio_seconds
            files, audio_seconds = files + count, audio_seconds + seconds
            speed = audio_seconds / max(time.monotonic() - started, 1e-9)
            display("encoding", files, total, f"{speed:.0f} x real time")

        return encode(progress)


def _end(summary: "JobSummary", folder: Path, what: str, quiet: bool) -> int:
    """Print the books; the exit code."""
    if not quiet:
        console = Console()
        speed = summary.audio_seconds / max(summary.wall_seconds, 1e-9)
        parts = [f"{folder}: {what}"]
        if summary.encoded:
            hours = summary.audio_seconds / 3600
            parts.append(f"{hours:.2f} h in {summary.wall_seconds:.1f} s, {speed:.0f} x real time")
        if summary.resumed:
            parts.append(f"{summary.resumed} files were there already")
        console.print("; ".join(parts), highlight=False, soft_wrap=True)
        console.print(summary.audit, highlight=False)
    if not summary.failures:
        return 0
    print(
        f"spintok: {len(summary.failures)} of {summary.total} files failed; "
        f"{folder / 'failed.jsonl'} says which and why",
        file=sys.stderr,
    )
    return FAILED
