"""Parse a page for the tests, and check on the way that its HTML is well-formed."""

import json
from html.parser import HTMLParser
from typing import Any

__all__ = ["Page"]

_VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})


class Page(HTMLParser):
    """A parsed page. Raises ``AssertionError`` if elements do not nest or an id occurs twice."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.contents: list[tuple[str, str]] = []
        self._open: list[tuple[str, int]] = []
        self._texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {self._open}"
        ids = [a["id"] for _, a in self.elements if "id" in a]
        assert len(set(ids)) == len(ids)
        self.ids = set(ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"an attribute twice on <{tag}>"
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append((tag, len(self._texts)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Only SVG may close like this.
        assert tag == "path"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1][0] == tag, f"</{tag}> inside <{self._open[-1][0]}>"
        _, start = self._open.pop()
        self.contents.append((tag, "".join(self._texts[start:])))

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    def all(self, tag: str) -> list[str]:
        """The text of every element with this tag, in the order of their end tags."""
        return [text for name, text in self.contents if name == tag]

    def rows(self) -> list[list[str]]:
        """The cells of every table row of the page."""
        rows: list[list[str]] = []
        cells: list[str] = []
        for tag, text in self.contents:
            if tag in ("td", "th"):
                cells.append(" ".join(text.split()))
            elif tag == "tr":
                rows.append(cells)
                cells = []
        return rows

    @property
    def data(self) -> dict[str, Any]:
        """The data that the page's script reads."""
        return json.loads(self.all("script")[0])
