"""uvicorn as the server needs it: limits on what arrives before, or instead of, a session's messages."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from spintok.serve.options import ServerOptions

__all__ = ["Server", "server_config"]


class Server(uvicorn.Server):
    """A server that calls ``ready`` once it takes connections and signals: before that, a signal ends the process."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def server_config(app: ASGIApp, options: ServerOptions) -> uvicorn.Config:
    """The settings of a uvicorn server of the application."""
    return uvicorn.Config(
        app,
        # Addresses may hold the token.
        access_log=False,
        log_level="warning",
        http=_impatient(options.idle_seconds),
        ws="websockets-sansio",
        ws_max_size=options.message_bytes,
        # Speech hardly gets smaller, and each connection would hold the tables of two compressors.
        ws_per_message_deflate=False,
        # A connection whose other end has vanished ends within 40 s.
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        timeout_graceful_shutdown=5,
    )


def _impatient(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol of HTTP, but a connection without a whole request after so many seconds is closed."""

    class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type, unused-ignore]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._patience = asyncio.get_running_loop().call_later(seconds, self._expire)

        def connection_lost(self, exc: Exception | None) -> None:
            self._patience.cancel()
            super().connection_lost(exc)

        def _expire(self) -> None:
            # Once there is a request its own limits hold; that of a WebSocket hands the connection to another protocol.
            if self.cycle is None and self.transport.get_protocol() is self:
                self.transport.close()

    return Impatient
