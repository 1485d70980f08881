"""What a server allows."""

import re
from dataclasses import dataclass

__all__ = ["ServerOptions"]


@dataclass(frozen=True)
class ServerOptions:
    """Limits and access of a server.

    Attributes:
        latency: seconds of algorithmic latency of every session.
        codebook: the codebook whose codes are sent; the first one if None.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        token: what clients must present; None lets everybody in who reaches the address.
        origins: origins of web pages, besides the server's own, that may connect.
        sessions: sessions at the same time.
        message_bytes: the size of one message.
        upload_bytes: the size of a posted file.
        idle_seconds: a client that sends nothing for so long, or reads nothing, is disconnected.
        backlog_seconds: seconds of audio of one session that may wait; then the server stops reading from its client.

    Raises:
        ValueError: a limit is not positive, an origin is none, or the token is empty.
    """

    latency: float
    codebook: str | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    origins: tuple[str, ...] = ()
    sessions: int = 64
    message_bytes: int = 1 << 20
    upload_bytes: int = 256 << 20
    idle_seconds: float = 60.0
    backlog_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in ("sessions", "message_bytes", "upload_bytes", "idle_seconds", "backlog_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.port < 65536:
            raise ValueError(f"--port must be 0 ... 65535, got {self.port}")
        for origin in self.origins:
            # Browsers send no path, so with one it would never match.
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s]+", origin):
                raise ValueError(f"--origin must be as browsers send it, such as https://example.org, got {origin!r}")
        if self.token is not None and not self.token.strip():
            raise ValueError("the access token is empty; leave it out to let everybody in who reaches the address")

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine reach the server."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")
