"""The command line, a command a file: parse, call one function, print. Heavy imports wait until a command runs."""

import os
import sys

import typer

from spintok.cli import bench, download, encode, evaluate, export, report, save, stats, tokenizers, train
from spintok.cli.options import FAILED, INTERRUPTED, USAGE

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

app.command(epilog=encode.EPILOG)(encode.encode)
app.command(epilog=stats.EPILOG)(stats.stats)
app.command(epilog=report.EPILOG)(report.report)
app.command(epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command(epilog=export.EPILOG)(export.export)
app.command("list")(tokenizers.list_tokenizers)
app.command(epilog=download.EPILOG)(download.download)
app.command(epilog=train.EPILOG)(train.train)
app.command(epilog=save.EPILOG)(save.save)
app.command(epilog=bench.EPILOG, context_settings=bench.FORWARD)(bench.bench)


def main() -> None:
    """Run the command line; a user's error is one line and a non-zero exit."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        code = app(args=[a for a in arguments if a != "--debug"], standalone_mode=False, prog_name="spintok") or 0
    except (typer.Abort, KeyboardInterrupt):
        _complain("stopped; run the same command again to go on")
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left; what Python flushes at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except Exception as error:
        if debug:
            raise
        # `spintok` alone has printed the help, and there is no message.
        if message := _message(error):
            _complain(message)
        code = USAGE
    sys.exit(code)


def _message(error: Exception) -> str:
    # A wrong argument: typer brings its own click, so the class has no public name, only this method.
    if hasattr(error, "format_message"):
        return str(error.format_message())
    return str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"


def _complain(message: str) -> None:
    print(f"spintok: error: {' '.join(message.split())}", file=sys.stderr)
