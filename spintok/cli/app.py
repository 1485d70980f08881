"""The typer application: all commands, ``--version`` and shell completion."""

from collections import Counter
from typing import Annotated, Any

import typer
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
    """A command that refuses a single-valued option given twice, which typer resolves to the last one silently."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, count in Counter(order).items():
            single = parameter.param_type_name == "option" and not parameter.multiple
            flag = getattr(parameter, "is_flag", False)
            if count > 1 and single and not flag:
                raise ValueError(f"{max(parameter.opts, key=len)} is given {count} times; it takes one value")
        return super().parse_args(ctx, args)


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

app.command(epilog=bench.EPILOG, context_settings=bench.FORWARD)(bench.bench)
