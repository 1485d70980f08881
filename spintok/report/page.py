"""Render a self-contained HTML page: a template with style, script and data in one file.

Text is escaped by the template engine, and data are JSON that cannot close its element. The page's
Content-Security-Policy allows no requests, and no script except the one whose hash it contains.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import jinja2
from markupsafe import Markup

import spintok

__all__ = ["Template", "number", "percent", "render"]

Template = Literal["corpus", "recording"]


def render(template: Template, data: Mapping[str, Any], **context: Any) -> str:
    """Return the page as text, with ``context`` for the template and ``data`` for the script."""
    names = ["screen.js", "page.js", f"{template}.js"]
    assets = files("spintok.report") / "assets"
    script = "\n".join((assets / name).read_text(encoding="utf-8") for name in names)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(f"{template}.html")
        .render(
            style=Markup((assets / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=digest,
            data=_json(data),
            version=spintok.__version__,
            **context,
        )
    )


def number(value: float, digits: int = 3) -> str:
    """Format a number: integers with commas, others with at least ``digits`` significant digits."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if whole == 0:
        return f"{value:.{digits}g}" if abs(value) >= 1e-4 else f"{value:.1e}"
    return f"{value:,.{max(digits - whole, 0)}f}"


def percent(share: float) -> str:
    """Format a share as a percentage with one decimal, or more if it would otherwise read 0 % or 100 %."""
    whole = round(100 * share)
    if abs(100 * share - whole) < 1e-9 and (whole or not share):
        return f"{whole}\u00a0%"
    texts = (f"{100 * share:.{digits}f}" for digits in range(1, 7))
    return next((f"{text}\u00a0%" for text in texts if float(text) not in (0, 100)), f"{100 * share:.1e}\u00a0%")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spintok.report", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "hue": _hue}
    return environment


def _hue(code: int) -> str:
    """The hue of a code in degrees. The golden angle separates neighbours; the script has the same formula."""
    return f"{code * 137.508 % 360:.1f}"


def _json(data: Mapping[str, Any]) -> Markup:
    """JSON that is safe inside a script element: ``<``, ``>`` and ``&`` are escaped."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
