"""The server's addresses: the live page, the sessions, files to tokenize, health and metrics."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from spintok.data.audio import AudioError
from spintok.serve.access import refusal
from spintok.serve.client import serve_client
from spintok.serve.metrics import Metrics
from spintok.serve.options import ServerOptions
from spintok.serve.page import ASSETS, POLICY, asset, page
from spintok.serve.sessions import Sessions

if TYPE_CHECKING:
    from spintok.decoder.decoder import Decoder
    from spintok.tokenizer import Tokenizer

__all__ = ["create_app"]

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


def create_app(tokenizer: "Tokenizer", options: ServerOptions, decoder: "Decoder | None" = None) -> Starlette:
    """The ASGI application of ``spintok serve``, to run by uvicorn or to mount in an application of one's own.

    Args:
        tokenizer: the tokenizer of all sessions.
        options: latency, codebook, access and limits.
        decoder: speaks the tokens of clients that ask for one of its voices.

    Raises:
        ValueError: the latency or the codebook does not exist.
        CodebookMismatchError: the decoder reads other tokens.
    """
    server = _Server(tokenizer, options, decoder)
    return Starlette(
        routes=[
            Route("/", server.index),
            Route("/health", server.health),
            Route("/metrics", server.prometheus),
            Route("/tokens", server.tokens, methods=["POST"]),
            Route("/{asset}", server.asset),
            WebSocketRoute("/stream", server.stream),
        ],
        lifespan=server.lifespan,
    )


class _Server:
    def __init__(self, tokenizer: "Tokenizer", options: ServerOptions, decoder: "Decoder | None") -> None:
        if decoder is not None:
            heard = tokenizer.at(options.latency)
            # A voice of the tokens of whole recordings serves too: those of a stream are nearly the same.
            one = tokenizer if decoder.source.fingerprint == tokenizer.fingerprint else heard
            decoder.check(one.fingerprint, tokenizer.codebook(options.codebook).config.name)
        self.tokenizer = tokenizer
        self.options = options
        self.metrics = Metrics()
        self.sessions = Sessions(tokenizer, options, self.metrics, decoder)
        # A posted file is tokenized beside the sessions; one at a time, so that they keep their pace.
        self._files = asyncio.Semaphore(1)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Step the sessions while the server runs."""
        steps = asyncio.create_task(self.sessions.run())
        yield
        steps.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await steps

    async def stream(self, socket: WebSocket) -> None:
        """``/stream``: a session on a WebSocket."""
        if (reason := self._refusal(socket)) is not None:
            await socket.send_denial_response(PlainTextResponse(reason + "\n", 403))
            return
        await serve_client(socket, self.sessions, self.options)

    async def tokens(self, request: Request) -> Response:
        """``/tokens``: the tokens of a posted audio file, those that a stream of it gives."""
        if (reason := self._refusal(request)) is not None:
            return _error(403, reason)
        with tempfile.TemporaryDirectory(prefix="spintok-") as folder:
            path = Path(folder, "audio")
            try:
                await self._receive(request, path)
                async with self._files:
                    found = await asyncio.to_thread(self._encode, path)
            except AudioError as error:
                return _error(422, str(error).replace(str(path), "the file"))
            except ValueError as error:
                return _error(413, str(error))
        return JSONResponse(found, headers=_HEADERS)

    async def _receive(self, request: Request, path: Path) -> None:
        """Write the body to a file. Raises ``ValueError`` if it is too large, ``AudioError`` if there is none."""
        size = 0
        with path.open("wb") as file:
            async for part in request.stream():
                size += len(part)
                if size > self.options.upload_bytes:
                    raise ValueError(f"the file is larger than {self.options.upload_bytes} bytes (--upload-bytes)")
                file.write(part)
        if size == 0:
            raise AudioError("the body is empty: post the bytes of an audio file")

    def _encode(self, path: Path) -> dict[str, Any]:
        tokens = self.tokenizer.encode(path, codebook=self.options.codebook, latency=self.options.latency)
        return {
            **self.sessions.description(),
            "type": "tokens",
            "codes": tokens.codes.tolist(),
            "units": tokens.units.tolist(),
            "durations": tokens.durations.tolist(),
            "seconds": tokens.seconds,
        }

    async def index(self, request: Request) -> Response:
        """``/``: the live page."""
        # It holds nothing secret; the token is asked of the session.
        if (reason := self._refusal(request, open_to_all=True)) is not None:
            return _error(403, reason)
        milliseconds = f"{1000 * self.options.latency:g}"
        turns = find_spec("silero_vad") is not None and find_spec("onnxruntime") is not None
        text = page(
            name=self.tokenizer.name,
            fingerprint=self.sessions.fingerprint,
            latency=f"{milliseconds}\u00a0ms",
            latency_option=f"{milliseconds}ms",
            turns=turns,
            voices=self.sessions.voices,
            settings={
                "frameRate": self.sessions.frame_rate,
                "sampleRate": self.tokenizer.sample_rate,
                "turns": turns,
                "voices": self.sessions.voices,
            },
        )
        return HTMLResponse(text, headers={**_HEADERS, "Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"})

    async def asset(self, request: Request) -> Response:
        """Style and scripts of the live page."""
        name = request.path_params["asset"]
        if name not in ASSETS:
            return _error(404, f"there is no {name!r} here")
        return Response(asset(name), media_type=ASSETS[name][1], headers=_HEADERS)

    async def health(self, _request: Request) -> Response:
        """``/health``: for load balancers, which have no token."""
        return JSONResponse({"status": "ok", "tokenizer": self.tokenizer.name}, headers=_HEADERS)

    async def prometheus(self, request: Request) -> Response:
        """``/metrics``: in the text form of Prometheus."""
        if (reason := self._refusal(request)) is not None:
            return _error(403, reason)
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8", headers=_HEADERS)

    def _refusal(self, connection: HTTPConnection, *, open_to_all: bool = False) -> str | None:
        reason = refusal(connection, self.options, open_to_all=open_to_all)
        if reason is not None:
            self.metrics.refused.labels("access").inc()
        return reason


def _error(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers=_HEADERS)
