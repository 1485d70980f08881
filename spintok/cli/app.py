"""The typer application: all commands, ``--version`` and shell completion."""

import inspect
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

import spintok
from spintok.cli import (
    bench,
    decode,
    download,
    encode,
    evaluate,
    export,
    export_model,
    import_quantizer,
    info,
    push,
    report,
    save,
    serve,
    stats,
    stream,
    tokenizers,
    train,
    verify,
)

__all__ = ["app"]


class Command(TyperCommand):
    """A command that refuses a single-valued option given twice, which typer resolves to the last one silently.

    Its help is plain text: paragraphs flow, and brackets are shown instead of being read as markup.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help, self.epilog = _plain(self.help), _plain(self.epilog)
        for parameter in self.params:
            # Arguments have it too, though not by their class.
            option: Any = parameter
            option.help = _plain(option.help)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, count in Counter(order).items():
            single = parameter.param_type_name == "option" and not parameter.multiple
            flag = getattr(parameter, "is_flag", False)
            if count > 1 and single and not flag:
                raise ValueError(f"{max(parameter.opts, key=len)} is given {count} times; it takes one value")
        rest = super().parse_args(ctx, args)
        for value in ctx.params.values():
            for path in value if isinstance(value, list | tuple) else [value]:
                if isinstance(path, Path):
                    _refuse_address(path)
        return rest


def _refuse_address(path: Path) -> None:
    """Addresses are strings where a command takes them; a path has lost a slash, and would become a folder ``s3:``."""
    first = path.parts[0] if path.parts else ""
    if re.fullmatch(r"\w{2,}:", first) and not Path(first).exists():
        address = str(path).replace(":/", "://", 1)
        raise ValueError(
            f"{address}: this command takes local paths only; copy the files here first, or there afterwards"
        )


def _plain(text: str | None) -> str | None:
    """Join the lines of each paragraph, and escape what rich would take for markup."""
    if text is None:
        return None
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return escape("\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs))


app = typer.Typer(
    name="spintok",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"spintok {spintok.__version__}")
        raise typer.Exit


@app.callback(
    epilog="""Every command also takes [bold]--debug[/bold], which prints the traceback of an error.

SPINTOK_TOKENIZER and SPINTOK_DEVICE set the defaults of --tokenizer and --device.""",
)
def spintok_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Turn speech into tokens for language models."""


for command, module, name in (
    (encode.encode, encode, None),
    (decode.decode, decode, None),
    (stream.stream, stream, None),
    (serve.serve, serve, None),
    (verify.verify, verify, None),
    (stats.stats, stats, None),
    (report.report, report, None),
    (evaluate.evaluate, evaluate, None),
    (export.export, export, None),
    (export_model.export_model, export_model, None),
    (tokenizers.list_tokenizers, tokenizers, "list"),
    (info.info, info, None),
    (download.download, download, None),
    (train.train, train, None),
    (save.save, save, None),
    (import_quantizer.import_quantizer, import_quantizer, "import"),
    (push.push, push, None),
):
    app.command(name, cls=Command, epilog=module.EPILOG)(command)

app.command(cls=Command, epilog=bench.EPILOG, context_settings=bench.FORWARD)(bench.bench)
