"""The files of the live page."""

import json
from importlib.resources import files
from typing import Any

import jinja2

import spintok

__all__ = ["ASSETS", "POLICY", "asset", "page"]

ASSETS = {
    "live.css": ("spintok.serve", "text/css"),
    "live.js": ("spintok.serve", "text/javascript"),
    "strips.js": ("spintok.serve", "text/javascript"),
    "recorder.js": ("spintok.serve", "text/javascript"),
    # The look of the reports: colours, fonts and controls have one home.
    "page.css": ("spintok.report", "text/css"),
    "screen.js": ("spintok.report", "text/javascript"),
}
"""The package and the media type of each file."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from elsewhere, and no other page may frame it."""


def asset(name: str) -> bytes:
    """The content of a file of ``ASSETS``."""
    return (files(ASSETS[name][0]) / "assets" / name).read_bytes()


def page(**values: Any) -> str:
    """The page as text; ``settings`` is what its script reads."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spintok.serve", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values["settings"] = json.dumps(values["settings"])
    return environment.get_template("live.html").render(version=spintok.__version__, **values)
