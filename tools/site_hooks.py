"""Hooks of the documentation site (mkdocs.yml): each room's README becomes a page, and links to it follow.

READMEs stand next to the code that they describe; a site that lacks them would lack the contracts.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "gemma4vec"
README = re.compile(r"\]\((?:\.\./)*src/gemma4vec/([a-z_/]+)/README\.md")
# A README's own links lead from src/gemma4vec/ROOM/ to the repository's docs/ or to another room.
TO_DOCS = re.compile(r"\]\((?:\.\./)+docs/")
TO_ROOM = re.compile(r"\]\(\.\./([a-z_]+)/README\.md")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add `rooms/NAME.md` for each README below the package."""
    for path in sorted(PACKAGE.rglob("README.md")):
        name = "-".join(path.parent.relative_to(PACKAGE).parts)
        files.append(File.generated(config, f"rooms/{name}.md", content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to READMEs into links to their pages, as seen from this page."""
    depth = page.file.src_uri.count("/")
    up = "../" * depth
    if page.file.src_uri.startswith("rooms/"):
        markdown = TO_DOCS.sub("](../", markdown)
        markdown = TO_ROOM.sub(lambda match: f"]({match.group(1)}.md", markdown)
    return README.sub(lambda match: f"]({up}rooms/{match.group(1).replace('/', '-')}.md", markdown)
