"""Draw docs/pictures/architecture.svg: the packages of spintok in their layers, and who imports whom.

    python docs/pictures/architecture.py

The layers are those of import-linter in pyproject.toml, the arrows the imports of the code itself. An arrow is left out
where a path of other arrows says the same. A test draws the picture again and compares.
"""

import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]
PICTURE = Path(__file__).with_suffix(".svg")
KERNELS = "spintok_kernels"

WIDTH, ROW, BOX_HEIGHT, GAP, MARGIN = 760, 76, 34, 96, 16

STYLE = """
  text { font: 600 14px system-ui, sans-serif; fill: #24292f; text-anchor: middle; }
  rect { fill: #ddf4ff; stroke: #0969da; }
  path { fill: none; stroke: #8c959f; stroke-width: 1.2; }
  marker path { fill: #8c959f; stroke: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    rect { fill: #121d2f; stroke: #4493f8; }
    path { stroke: #6e7681; }
    marker path { fill: #6e7681; }
  }
"""

Imports = dict[str, set[str]]


def layers() -> list[list[str]]:
    """Packages and root modules without ``__main__``, a list for each layer, the topmost first, the kernels last."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    rows = [[name.strip("() ") for name in layer.split("|")] for layer in contract["layers"]]
    return [row for row in rows if row != ["__main__"]] + [[KERNELS]]


def imports(names: set[str]) -> Imports:
    """For each name the names that it imports, in any of its modules."""
    graph = grimp.build_graph("spintok", KERNELS, cache_dir=None)
    found: Imports = {name: set() for name in names}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            importer, target = _name(module), _name(imported)
            if importer != target and {importer, target} <= names:
                found[importer].add(target)
    return found


def reduced(direct: Imports) -> Imports:
    """Imports without those that a longer path implies."""

    def reachable(name: str) -> set[str]:
        return set().union(*({target} | reachable(target) for target in direct[name]))

    return {
        name: {t for t in targets if not any(t in reachable(other) for other in targets - {t})}
        for name, targets in direct.items()
    }


def draw() -> str:
    """The picture as SVG text."""
    rows = layers()
    boxes = _place(rows)
    arrows = reduced(imports(set(boxes)))
    height = 2 * MARGIN + (len(rows) - 1) * ROW + BOX_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" '
        'aria-label="The packages of spintok in layers; arrows go from importer to imported">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    for name in sorted(arrows):
        for target in sorted(arrows[name]):
            (x0, y0, _), (x1, y1, _) = boxes[name], boxes[target]
            start, end = y0 + BOX_HEIGHT, y1 - 2
            bend = max(20, (end - start) // 2)
            parts.append(
                f'<path d="M{x0} {start}C{x0} {start + bend} {x1} {end - bend} {x1} {end}" marker-end="url(#head)"/>'
            )
    for name, (x, y, width) in boxes.items():
        parts += [
            f'<rect x="{x - width // 2}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="6"/>',
            f'<text x="{x}" y="{y + 22}">{name}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _place(rows: list[list[str]]) -> dict[str, tuple[int, int, int]]:
    """Centre, top and width of each box; every second layer is shifted, so that arrows pass between boxes."""
    boxes = {}
    for number, names in enumerate(rows):
        widths = [24 + 9 * len(name) for name in names]
        x = (WIDTH - sum(widths) - GAP * (len(names) - 1)) // 2 + (64 if number % 2 else -64) * (len(names) < 3)
        for name, width in zip(names, widths, strict=True):
            boxes[name] = (x + width // 2, MARGIN + number * ROW, width)
            x += width + GAP
    return boxes


def _name(module: str) -> str:
    return KERNELS if module.startswith(KERNELS) else module.removeprefix("spintok.").partition(".")[0]


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
