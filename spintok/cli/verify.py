"""``spintok verify``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from spintok.cli.exit_codes import FAILED
from spintok.cli.options import Device, Offline, Quiet, TokenizerName, given, load_tokenizer
from spintok.cli.output import complain, say
from spintok.cli.progress import progress_display

__all__ = ["EPILOG", "verify"]

EPILOG = """Examples:

  spintok verify wav-tokens/                           check the shards, and 20 utterances encoded again

  spintok verify wav-tokens/ --sample 200 --seed 1     other utterances, and more of them

  spintok verify wav-tokens/ -t my-tokenizer/          tokens of a tokenizer that has no registered name

  spintok verify wav-tokens/ --sample 0                check the shards only; needs neither audio nor weights"""


def verify(
    context: typer.Context,
    tokens: Annotated[Path, typer.Argument(help="A folder that spintok encode has finished.")],
    tokenizer: TokenizerName = None,
    sample: Annotated[
        int, typer.Option(min=0, help="The number of utterances to encode again; 0 checks the shards only.")
    ] = 20,
    seed: Annotated[int, typer.Option(help="The seed that chooses the utterances.")] = 0,
    device: Device = "auto",
    offline: Offline = None,
    quiet: Quiet = False,
) -> int:
    """Check a token folder: that it is whole, and that its audio gives the same codes in any circumstances.

    The shards must be complete, in order, without duplicates and equal to their SHA-256. Then a random sample is
    encoded again: alone, together in another order, on one thread, by two processes, by a process that is killed and
    resumed, by two shared workers of which one is killed, and as a stream if the tokens have a latency. The exit code
    is 1 if any code differs.
    """
    from spintok.corpus.folder import read_description
    from spintok.corpus.verify import check_folder, compare_codes, ways_for
    from spintok.reduced import in_precision

    checked = check_folder(tokens)
    if not quiet:
        unchecked = f", {checked.without_checksum} without a checksum" if checked.without_checksum else ""
        failed = f", {checked.failed} listed as failed" if checked.failed else ""
        shards = f"{checked.shards} shard{'' if checked.shards == 1 else 's'}{unchecked}"
        say(f"{tokens}: {checked.utterances} utterances{failed} in {shards}: complete, in order, no duplicates")
    if not sample:
        return 0
    # SPINTOK_TOKENIZER is a default for folders without tokens.
    named = tokenizer if given(context, "tokenizer") else None
    description = read_description(tokens, "tokens")
    name = named or str(description["tokenizer"])
    loaded = load_tokenizer(name, device, offline, quiet).at(description.get("latency"))
    loaded = in_precision(loaded, description.get("precision", "float32"))
    ways = ways_for(loaded)
    with progress_display(quiet=quiet) as progress:
        done = 0

        def advance(way: str) -> None:
            nonlocal done
            progress("encoding again", done, len(ways), way)
            done += 1

        rows = compare_codes(loaded, name, tokens, sample=sample, seed=seed, ways=ways, progress=advance)
    codes, differ = sum(row.codes for row in rows), sum(row.differ for row in rows)
    if not quiet:
        table = Table(
            "encoded again", *(Column(name, justify="right") for name in ("utterances", "codes", "differ")), box=None
        )
        for row in rows:
            table.add_row(row.way, f"{row.utterances:,}", f"{row.codes:,}", f"{row.differ:,}")
        Console().print(table)
        say(f"{name} ({loaded.fingerprint[:12]}) on {loaded.device}: {codes:,} codes compared, {differ:,} differ")
    if not differ:
        return 0
    keys = sorted({key for row in rows for key in row.keys})
    complain(f"{differ:,} of {codes:,} codes differ, in {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}")
    return FAILED
