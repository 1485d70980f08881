"""A server for live tokens: ``spintok serve``. ``create_app`` is for servers of one's own."""

from spintok.serve.app import create_app
from spintok.serve.options import ServerOptions

__all__ = ["ServerOptions", "create_app"]
