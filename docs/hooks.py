"""MkDocs hooks: Markdown that lives beside the code becomes pages of the site, and links follow.

Links in Markdown are relative to the file in the repository, so that they work there. On the site a link to a file that
has a page leads to the page, and one to any other file of the repository becomes its name.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/kernels/results/cpu/README.md": "results/kernels-cpu/index.md",
    "benchmarks/kernels/results/h200/README.md": "results/kernels-h200/index.md",
    "kernels/NOTES.md": "notes/kernels.md",
    "pretrained/dc-spin-10m-en/README.md": "tokenizers/dc-spin-10m-en.md",
    "pretrained/dc-spin-stream-10m-en/README.md": "tokenizers/dc-spin-stream-10m-en.md",
    "pretrained/decoders/dc-spin-10m-en-100-kathleen/README.md": "voices/dc-spin-10m-en-100-kathleen.md",
    "pretrained/decoders/dc-spin-10m-en-500-kathleen/README.md": "voices/dc-spin-10m-en-500-kathleen.md",
    "pretrained/decoders/dc-spin-stream-10m-en-100-kathleen/README.md": "voices/dc-spin-stream-10m-en-100-kathleen.md",
    "pretrained/mfcc-kmeans-100/README.md": "tokenizers/mfcc-kmeans-100.md",
    "recipes/small.md": "results/small.md",
    "recipes/spoken_lm.md": "results/spoken-lm.md",
    "spintok/NOTES.md": "notes/encoder.md",
    "spintok/augment/NOTES.md": "notes/augment.md",
    "spintok/train/NOTES.md": "notes/train.md",
}
"""Files outside docs/, and where the site has them."""

TARGETS = {**PAGES, "README.md": "index.md"}
"""Where links to files outside docs/ lead."""

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of ``PAGES`` to the site, and the pictures beside those that have a folder of their own."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
        folder, _, name = target.rpartition("/")
        for picture in (ROOT / source).parent.glob("*.png") if name == "index.md" else ():
            files.append(File.generated(config, f"{folder}/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Lead links from the repository's layout to that of the site."""
    sources = {target: source for source, target in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def follow(match: re.Match[str]) -> str:
        text, link = match.groups()
        path, mark, anchor = link.partition("#")
        if "://" in link or not path:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (ROOT / target).exists():
            # MkDocs reports it.
            return match[0]
        site = TARGETS.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        if site is None or files.get_file_from_path(site) is None:
            return text if text.startswith("`") else f"{text} (`{target}`)"
        return f"[{text}]({os.path.relpath(site, posixpath.dirname(page.file.src_uri) or '.')}{mark}{anchor})"

    return LINK.sub(follow, markdown)
