"""``spintok serve``."""

import contextlib
import gc
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from spintok.cli.options import Device, Offline, Quiet, TokenizerName, load_tokenizer
from spintok.cli.output import complain, say

if TYPE_CHECKING:
    from spintok.decoder.decoder import Decoder
    from spintok.serve import ServerOptions
    from spintok.tokenizer import Tokenizer

__all__ = ["EPILOG", "serve"]

EPILOG = """Examples:

  spintok serve                                       then open http://127.0.0.1:8765/ and speak

  spintok serve --latency 160ms --port 9000

  SPINTOK_SERVE_TOKEN=secret spintok serve --host 0.0.0.0 --origin https://example.org

  curl --data-binary @speech.flac http://127.0.0.1:8765/tokens

docs/reference/live.md lists the messages of a session."""


def serve(
    tokenizer: TokenizerName = None,
    latency: Annotated[str, typer.Option(help="The latency of all sessions, such as 320ms.")] = "320ms",
    codebook: Annotated[str | None, typer.Option(help="The codebook to send (default: the first one).")] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="A decoder that plays tokens back: a name or a folder (default: the one that ships, if any)."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets other machines connect.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 8765,
    token: Annotated[
        str | None, typer.Option(envvar="SPINTOK_SERVE_TOKEN", help="A secret that clients must send.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="An origin, such as https://example.org, whose pages may connect; repeatable."),
    ] = None,
    sessions: Annotated[int, typer.Option(help="The most sessions at a time.")] = 64,
    message_bytes: Annotated[int, typer.Option(help="The largest message of a session, in bytes.")] = 1 << 20,
    upload_bytes: Annotated[int, typer.Option(help="The largest file that may be posted, in bytes.")] = 256 << 20,
    idle_seconds: Annotated[
        float, typer.Option(help="Disconnect a client that sends nothing, or reads nothing, for this long.")
    ] = 60.0,
    backlog_seconds: Annotated[
        float, typer.Option(help="Stop reading from a client while this much of its audio is waiting.")
    ] = 10.0,
    device: Device = "auto",
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Serve tokens while people speak: WebSocket sessions, posted files, and a page with a microphone.

    It needs pip install 'spintok[serve]'.
    """
    try:
        from spintok.serve import ServerOptions, create_app
        from spintok.serve.transport import Server, server_config
    except ImportError as error:
        raise ValueError(f"spintok serve needs more packages: pip install 'spintok[serve]' ({error})") from None
    from spintok.streaming.policy import parse_latency

    options = ServerOptions(
        latency=parse_latency(latency),
        codebook=codebook,
        host=host,
        port=port,
        token=token,
        origins=tuple(origin or ()),
        sessions=sessions,
        message_bytes=message_bytes,
        upload_bytes=upload_bytes,
        idle_seconds=idle_seconds,
        backlog_seconds=backlog_seconds,
    )
    if not options.loopback and token is None:
        complain("everybody who reaches this address may connect; set a secret with SPINTOK_SERVE_TOKEN", "warning")
    loaded = load_tokenizer(tokenizer, device, offline, quiet)
    app = create_app(loaded, options, _decoder(decoder, loaded, options))
    with _listen(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}/"

        def ready() -> None:
            say(f"{address} serves tokens after {latency}; Ctrl-C stops it")
            sys.stdout.flush()

        # What was imported stays for good: looking through it for garbage would stop all sessions for 0.2 s.
        gc.collect()
        gc.freeze()
        try:
            Server(server_config(app, options), ready).run(sockets=[listening])
        except KeyboardInterrupt:
            # This is how one stops a server. uvicorn has told the clients, and passes the signal on.
            if not quiet:
                say("stopped")


def _decoder(name: str | None, tokenizer: "Tokenizer", options: "ServerOptions") -> "Decoder | None":
    """The decoder of that name or folder, or one that ships for these tokens or those of whole recordings, if any."""
    from spintok.decoder.loading import find_decoder, load_decoder

    if name is not None:
        return load_decoder(name)
    codebook = tokenizer.codebook(options.codebook).config.name
    for heard in (tokenizer.at(options.latency), tokenizer):
        with contextlib.suppress(ValueError):
            return find_decoder(tokenizer.name, heard.fingerprint, codebook)
    # The page then offers no voice.
    return None


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``ValueError`` if there can be none."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"cannot listen on {host}:{port}: {reason}; choose others with --host and --port") from None
