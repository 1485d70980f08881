"""Who may connect: the access token, the origin of web pages, and the name by which the server was reached."""

import hmac
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from spintok.serve.options import ServerOptions

__all__ = ["refusal"]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def refusal(connection: HTTPConnection, options: ServerOptions, *, open_to_all: bool = False) -> str | None:
    """Return why the connection is refused, or None.

    ``open_to_all`` waives the token, for pages that hold nothing secret.
    """
    host = _name(connection.headers.get("host", ""))
    if options.loopback and host not in _LOOPBACK_NAMES | {options.host}:
        # A page elsewhere that had its own name resolved to 127.0.0.1 would pass as one of ours (DNS rebinding).
        return f"this server answers to localhost only, not to {host!r}; start it with --host to be reached by a name"
    origin = connection.headers.get("origin")
    own = connection.headers.get("host", "")
    if origin is not None and urlsplit(origin).netloc != own and origin not in options.origins:
        return f"pages of {origin!r} may not connect; start the server with --origin {origin}"
    if options.token is not None and not open_to_all and not _has_token(connection, options.token):
        return "the access token is missing or wrong; send it as 'Authorization: Bearer TOKEN' or ?token=TOKEN"
    return None


def _name(host: str) -> str:
    """The host of a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _has_token(connection: HTTPConnection, token: str) -> bool:
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        # Scripts of web pages cannot set headers of a WebSocket.
        given = connection.query_params.get("token", "")
    return hmac.compare_digest(given.strip().encode(), token.encode())
