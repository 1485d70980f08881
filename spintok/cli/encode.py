"""``spintok encode``."""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from spintok.cli.exit_codes import FAILED
from spintok.cli.options import Device, Offline, Quiet, TokenizerName, given, load_featurizer, load_tokenizer
from spintok.cli.output import say
from spintok.cli.progress import progress_display
from spintok.cli.source import Source, as_file, check_output, default_folder, is_stream
from spintok.cli.stats import print_statistics

if TYPE_CHECKING:
    from spintok.corpus.job_options import JobOptions
    from spintok.corpus.job_summary import JobSummary
    from spintok.corpus.tokens import Options
    from spintok.featurizer import Featurizer
    from spintok.tokenizer import Tokenizer

__all__ = ["EPILOG", "encode"]

Run = Callable[..., Any]
"""Calls ``encode_corpus`` or ``encode_features``, its first argument, with the others."""

EPILOG = """Examples:

  spintok encode wav/                         all audio in a folder, to wav-tokens/

  spintok encode speech.flac                  one file, its tokens to standard output

  cat speech.flac | spintok encode -          the same from standard input

  spintok encode speech.flac --format text    only the numbers

  spintok encode train.tsv out/ --format km   a fairseq manifest, to fairseq's files

  spintok encode wav/ --latency 320ms         the tokens that a stream of this latency gives

  spintok encode wav/ --precision bfloat16    not exact, for speed on a GPU; says how many codes change

  spintok encode wav/ --features 6            features of encoder layer 6, to wav-features/

  spintok encode wav/ out/ --shared           one of any number of workers: start it as often as you like

  spintok encode wav/ out/ --engine ray       the same by workers on a Ray cluster, or on all cores of this machine

  spintok encode wav/ --plan --price 2.5      what the corpus will take, from a measured minute"""


def encode(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, an audio file, a manifest (.tsv, wav.scp, .jsonl), tar or Parquet files, here or at an "
            "address (s3://bucket/folder), or - for standard input."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Argument(
            help="The folder or address (s3://bucket/folder) to write (default: SOURCE-tokens or SOURCE-features).",
            show_default=False,
        ),
    ] = None,
    tokenizer: TokenizerName = None,
    codebook: Annotated[
        str | None,
        typer.Option(help="The codebook whose codes to write; all writes every codebook (default: the primary one)."),
    ] = None,
    dedup: Annotated[
        bool | None,
        typer.Option(
            "--dedup/--no-dedup",
            help="Merge equal neighbouring codes into units with durations (default), or write a code for each frame.",
        ),
    ] = None,
    format: Annotated[
        Literal["jsonl", "parquet", "km", "safetensors", "text"] | None,
        typer.Option(
            help="The file format: jsonl (default), parquet or fairseq's km for tokens; safetensors (default) or "
            "parquet for features. Standard output gets a line of JSON, or with text only the numbers."
        ),
    ] = None,
    features: Annotated[
        int | None,
        typer.Option(
            metavar="LAYER",
            help="Write the features of this encoder layer instead of tokens; 0 is the input of the first transformer "
            "layer, or the MFCC.",
        ),
    ] = None,
    features_dtype: Annotated[
        Literal["float16", "bfloat16", "float32"] | None,
        typer.Option(help="The type in which features are stored (default: float16)."),
    ] = None,
    device: Device = "auto",
    latency: Annotated[
        str | None,
        typer.Option(
            help="Give the tokens of a stream with this latency, such as 320ms, instead of hearing whole recordings.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(
            help="Compute the transformer in half precision, for speed on a GPU. Tokens are then not exact: how many "
            "differ on some of your files is printed, and they do not mix with exact ones."
        ),
    ] = "float32",
    batch_seconds: Annotated[
        float | None,
        typer.Option(help="Seconds of audio in a batch on a GPU (default: 200). Features are computed file by file."),
    ] = None,
    workers: Annotated[int, typer.Option(help="The number of threads that read audio.")] = 2,
    shard_size: Annotated[int, typer.Option(help="The number of utterances in a shard.")] = 1000,
    rank: Annotated[
        int,
        typer.Option(envvar="RANK", help="The number of this process among --ranks, for job arrays and torchrun."),
    ] = 0,
    ranks: Annotated[int, typer.Option(envvar="WORLD_SIZE", help="The number of processes that share the work.")] = 1,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared",
            help="Take shards beside other workers: run the same command as often and on as many machines as you like; "
            "workers may join, stop and die at any time.",
        ),
    ] = False,
    lease_seconds: Annotated[
        float, typer.Option(help="With --shared: a worker that is silent for this long is considered dead.")
    ] = 120.0,
    engine: Annotated[
        Literal["ray"] | None,
        typer.Option(
            help="Run shared workers on a cluster: ray uses the one at RAY_ADDRESS, or this machine.",
            show_default=False,
        ),
    ] = None,
    engine_workers: Annotated[
        int | None,
        typer.Option(help="With --engine: the number of workers (default: as many as there are GPUs, or else cores)."),
    ] = None,
    shard_seconds: Annotated[
        float | None,
        typer.Option(help="Cut shards by seconds of audio instead of --shard-size; a longer file is a shard alone."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Encode nothing but a sample, and print what the corpus will take.")
    ] = False,
    price: Annotated[float, typer.Option(help="With --plan: what an hour of a machine like this costs.")] = 0.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier run's shards and start again.")
    ] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print the statistics of the tokens, which stats.json always holds.")
    ] = False,
    offline: Offline = None,
    quiet: Quiet = False,
) -> int:
    """Encode audio as tokens, or with --features as features: folders to shards, one file to standard output.

    Run the same command again after an interruption, or after repairing files: it does what is missing. Files that
    cannot be read are listed in failed.jsonl, and the exit code is 1.
    """
    if engine_workers is not None and engine is None:
        raise ValueError("--engine-workers is the number of workers of an engine: add --engine ray")
    if given(context, "lease_seconds") and not (shared or engine):
        raise ValueError("--lease-seconds is for workers that share the work: add --shared")
    if given(context, "price") and not plan:
        raise ValueError("--price is what a planned run would cost: add --plan")
    if engine is not None and plan:
        raise ValueError("--plan measures this machine: leave --engine out")
    run = _runner(engine, engine_workers, device)
    # The workers of an engine choose their own devices.
    loaded_on = device if engine is None else "cpu"
    shared = shared or engine is not None
    if shared and not (given(context, "rank") or given(context, "ranks")):
        # torchrun sets them; shared workers need none.
        rank, ranks = 0, 1
    settings: dict[str, Any] = {
        "shard_size": shard_size, "workers": workers, "rank": rank, "ranks": ranks, "overwrite": overwrite,
        "shard_seconds": shard_seconds, "shared": shared, "lease_seconds": lease_seconds,
    }  # fmt: skip
    from spintok.data.locations.addresses import located

    if not source:
        raise ValueError("the source is an empty string; name a folder, a file or a manifest")
    path = located(source)
    check_output(path, output)
    if features is not None:
        only_tokens = {
            "--plan": plan or None,
            "--codebook": codebook, "--dedup": dedup, "--batch-seconds": batch_seconds, "--stats": stats or None,
            "--latency": latency, "--precision": None if precision == "float32" else precision,
        }  # fmt: skip
        for option, value in only_tokens.items():
            if value is not None:
                raise ValueError(f"{option} is for tokens: leave it out with --features")
        if format in ("jsonl", "km", "text"):
            raise ValueError(f"--format {format} is for tokens: features are written as safetensors or parquet")
        if is_stream(path):
            raise ValueError("features are written to a folder: save the audio to a file and name it")
        settings |= {"layer": features, "dtype": features_dtype or "float16", "format": format or "safetensors"}
        return _features(load_featurizer(tokenizer, loaded_on, offline, quiet), path, output, settings, quiet, run)
    if features_dtype is not None:
        raise ValueError("--features-dtype is the type of stored features: add --features LAYER")
    if format == "safetensors":
        raise ValueError("--format safetensors is for features: add --features LAYER")
    loaded = load_tokenizer(tokenizer, loaded_on, offline, quiet)
    if latency is not None:
        from spintok.streaming.policy import parse_latency

        loaded = loaded.at(parse_latency(latency))
    if precision != "float32":
        from spintok.reduced import in_precision

        exact, loaded = loaded, in_precision(loaded, precision)
    codebook = loaded.codebook_names[0] if codebook is None else codebook
    settings |= {
        "codebooks": tuple(loaded.codebook_names) if codebook == "all" else (codebook,),
        "format": "jsonl" if format in (None, "text") else format,
        "dedup": format != "km" if dedup is None else dedup,
        "batch_seconds": 200.0 if batch_seconds is None else batch_seconds,
    }
    if precision != "float32" and not quiet:
        _print_change(exact, loaded, path, codebook)
    if plan:
        return _plan(loaded, path, settings, price, quiet)
    if _is_one_file(path, output):
        _refuse_folder_options(context, format)
        return _to_standard_output(loaded, path, settings, quiet, text=format == "text")
    return _tokens(loaded, path, output, settings, stats, quiet, run, text=format == "text")


def _runner(engine: str | None, workers: int | None, device: str) -> Run:
    """What calls ``encode_corpus`` or ``encode_features``: here, or by an engine."""
    if engine is None:
        return lambda encode, *arguments: encode(*arguments)
    from spintok.corpus.engines.ray import encode_on_ray

    return partial(encode_on_ray, device=device, workers=workers)


def _print_change(exact: "Tokenizer", loaded: "Tokenizer", source: Source, codebook: str) -> None:
    """Say on standard error how many codes of a sample of the source are not those of float32."""
    from spintok.data.manifest import is_recording, scan
    from spintok.reduced import changed_codes

    if is_stream(source):
        return
    paths = [source] if is_recording(source) else [utterance.path for utterance in scan(source)]
    change = changed_codes(exact, loaded, paths, None if codebook == "all" else codebook)
    say(f"{loaded.precision}: {change}", file=sys.stderr)


def _plan(tokenizer: "Tokenizer", source: Source, settings: Mapping[str, Any], price: float, quiet: bool) -> int:
    from spintok.cli.plan import print_plan
    from spintok.corpus.cluster.plan import measure
    from spintok.corpus.tokens import Options, token_writer
    from spintok.data.manifest import scan

    options = Options(**settings)
    with progress_display(quiet=quiet) as display:
        writer = token_writer(tokenizer, options)
        plan = measure(writer, tokenizer, scan(source), options.workers, progress=display)
    print_plan(plan, str(tokenizer.device), price)
    return 0


def _is_one_file(source: Source, output: str | None) -> bool:
    """Whether the tokens go to standard output."""
    from spintok.data.manifest import is_recording

    return is_stream(source) or (output is None and is_recording(source))


def _refuse_folder_options(context: typer.Context, format: str | None) -> None:
    refused = ["--format " + format] if format in ("parquet", "km") else []
    names = ("shared", "engine", "stats", "overwrite", "shard_size", "shard_seconds", "rank", "ranks")
    refused += ["--" + name.replace("_", "-") for name in names if given(context, name)]
    if refused:
        raise ValueError(
            f"{refused[0]} is for a folder of tokens, but those of one file go to standard output: leave it out, or "
            "name the folder to write as the second argument"
        )


def _to_standard_output(
    tokenizer: "Tokenizer", source: Source, settings: Mapping[str, Any], quiet: bool, *, text: bool
) -> int:
    from spintok.corpus.tokens import Options

    options = Options(**settings)
    for name in options.codebooks:
        tokenizer.size_of(name)
    with as_file(source) as path:
        print(_one_file(tokenizer, path, options, quiet, text=text))
    return 0


def _tokens(
    tokenizer: "Tokenizer",
    source: Source,
    output: str | None,
    settings: Mapping[str, Any],
    stats: bool,
    quiet: bool,
    run: Run,
    *,
    text: bool,
) -> int:
    from spintok.corpus.tokens import Options, encode_corpus
    from spintok.data.manifest import scan

    for name in settings["codebooks"]:
        tokenizer.size_of(name)
    options = Options(**settings)
    if text:
        raise ValueError("--format text is for one file to standard output; a folder takes jsonl, parquet or km")
    folder = output or str(default_folder(source, "tokens"))
    utterances = scan(source, f"{folder}/.index")
    with progress_display(quiet=quiet, unit="files") as display:
        summary = run(encode_corpus, tokenizer, utterances, folder, options, display)
    if stats and not quiet:
        print_statistics(summary.counts, Console())
    return _finish(summary, folder, options, f"tokenizer {tokenizer.name}, {options.codebooks[0]} codebook", quiet)


def _features(
    tokenizer: "Featurizer",
    source: Source,
    output: str | None,
    settings: Mapping[str, Any],
    quiet: bool,
    run: Run,
) -> int:
    from spintok.corpus.features import FeatureOptions, encode_features
    from spintok.data.manifest import scan

    options = FeatureOptions(**settings)
    folder = output or str(default_folder(source, "features"))
    utterances = scan(source, f"{folder}/.index")
    with progress_display(quiet=quiet, unit="files") as display:
        summary = run(encode_features, tokenizer, utterances, folder, options, display)
    what = f"tokenizer {tokenizer.name}, features of layer {options.layer} in {options.dtype}"
    return _finish(summary, folder, options, what, quiet)


def _one_file(tokenizer: "Tokenizer", path: Source, options: "Options", quiet: bool, *, text: bool) -> str:
    """Return the tokens of one file as a line of JSON, or as numbers, a line for each codebook.

    Shows the progress of a long file.
    """
    from spintok.corpus.token_line import token_line

    recording = tokenizer.record(path)
    started = time.monotonic()
    # A short file is done in a moment.
    with progress_display(quiet=quiet or recording.waveform is not None, unit="seconds") as display:

        def progress(index: int, samples: int) -> None:
            seconds = samples / tokenizer.sample_rate
            speed = seconds / max(time.monotonic() - started, 1e-9)
            display("encoding", seconds, recording.seconds or 0, f"{speed:.0f} x real time")

        (found,) = tokenizer.encode_recordings([recording], options.codebooks, progress=progress)
    if text:
        return "\n".join(" ".join(map(str, (t.units if options.dedup else t.codes).tolist())) for t in found.values())
    return token_line(tokenizer, found, dedup=options.dedup)


def _finish(summary: "JobSummary", folder: str, options: "JobOptions", what: str, quiet: bool) -> int:
    """Print the result in one line and return the exit code."""
    if not quiet:
        parts = [f"{folder}: {summary.audit}", what]
        if summary.encoded:
            speed = summary.audio_seconds / max(summary.wall_seconds, 1e-9)
            hours = summary.audio_seconds / 3600
            parts.append(f"{hours:.2f} h in {summary.wall_seconds:.1f} s, {speed:.0f} x real time")
        if summary.resumed:
            parts.append(f"{summary.resumed} files were there already")
        say("; ".join(parts))
    if not summary.failures:
        return 0
    say(
        f"spintok: {len(summary.failures)} of {summary.total} files failed; "
        f"{folder.rstrip('/')}/failed{options.part}.jsonl lists them with the causes",
        file=sys.stderr,
    )
    return FAILED
