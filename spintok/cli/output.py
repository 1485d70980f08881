"""Text on its way to a terminal: control characters are escaped, and errors and warnings are one line each."""

import re
import sys
import warnings
from typing import TextIO

__all__ = ["complain", "printable", "say", "show_warning"]

# C0 and C1 controls, line and paragraph separators, bidirectional overrides, and undecodable bytes of file names.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Return the text with control characters escaped, such as ``\x1b``, so that a terminal only shows them."""
    return _UNPRINTABLE.sub(_escape, str(text))


def say(text: str, file: TextIO | None = None) -> None:
    """Print lines of text that may contain names of files, speakers or tokenizers."""
    print("\n".join(printable(line) for line in text.split("\n")), file=file)


def complain(message: str, kind: str = "error") -> None:
    """Print an error or warning as one line on standard error."""
    print(f"spintok: {kind}: {printable(' '.join(message.split()))}", file=sys.stderr)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print spintok's own warnings as one line; a replacement for ``warnings.showwarning``."""
    if category.__module__.partition(".")[0] == "spintok":
        complain(str(message), "warning")
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:
        # Python decodes a byte of a file name that is not UTF-8 to such a surrogate.
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
