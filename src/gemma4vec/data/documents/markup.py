"""Markdown and notebooks as HTML, from which their sections are read."""

import re
from typing import TYPE_CHECKING, Any

from gemma4vec.data.documents.html_sections import LINE, html_to_sections
from gemma4vec.data.documents.section import Section
from gemma4vec.reading.json_values import loads_json

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)
_TITLE = re.compile(r"^title:[ \t]*(['\"]?)(.+?)\1[ \t]*$", re.M)
# MkDocs and Pandoc: `## Proxies {#proxies .wide}`; its first name is the anchor.
_ATTRIBUTES = re.compile(r"\s*\{[^{}\n]*\}\s*$")
_ANCHOR = re.compile(r"#([^\s}]+)")


def markdown_to_sections(text: str, path: str) -> list[Section]:
    """The sections of a Markdown file (CommonMark with tables), with the lines of their headings.

    A title in the front matter stands above all headings, unless the file has one of the first level.
    """
    before = _FRONT_MATTER.match(text)
    title = _TITLE.search(before[1]) if before else None
    lines_before = text[: before.end()].count("\n") if before else 0
    return html_to_sections(_to_html(text[before.end() :] if before else text, lines_before, title), path)


def _to_html(text: str, lines_before: int, title: "re.Match[str] | None") -> str:
    parser = _parser()
    tokens = parser.parse(text)
    for place, token in enumerate(tokens):
        if token.type != "heading_open":
            continue
        inside = tokens[place + 1]
        if token.map:
            token.attrSet(LINE, str(token.map[0] + 1 + lines_before))
        attributes = _ATTRIBUTES.search(inside.content)
        if attributes and inside.children and inside.children[-1].type == "text":
            last = inside.children[-1]
            last.content = _ATTRIBUTES.sub("", last.content)
            if anchor := _ANCHOR.search(attributes.group()):
                token.attrSet("id", anchor[1])
    html = parser.renderer.render(tokens, parser.options, {})
    return f"<title>{_escaped(title[2])}</title><body>{html}</body>" if title else html


def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def notebook_to_sections(raw: bytes, path: str) -> list[Section]:
    """The sections of a Jupyter notebook: its Markdown with the code below it; outputs are not read.

    Raises:
        ValueError: it is not a notebook.
    """
    value = loads_json(raw, nonfinite=True, surrogates=True, twice=True)
    cells = _cells(value)
    if cells is None:
        raise ValueError("not a notebook")
    parts = []
    for cell in cells:
        source = cell.get("source", cell.get("input", ""))
        text = "".join(map(str, source)) if isinstance(source, list) else str(source)
        if cell.get("cell_type") == "code":
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
            parts.append(f"{fence}\n{text}\n{fence}")
        elif cell.get("cell_type") in ("markdown", "heading"):
            parts.append(text if cell["cell_type"] == "markdown" else f"{'#' * int(cell.get('level', 1))} {text}")
    # Lines of the joined text are none of the file's.
    sections = markdown_to_sections("\n\n".join(parts), path)
    return [section._replace(line=None) for section in sections]


def _cells(value: Any) -> list[dict[str, Any]] | None:
    """The cells of a notebook of format 4, or of format 3 with its worksheets."""
    if not isinstance(value, dict):
        return None
    cells = value.get("cells")
    if cells is None and isinstance(value.get("worksheets"), list):
        cells = [cell for sheet in value["worksheets"] if isinstance(sheet, dict) for cell in sheet.get("cells") or ()]
    return [cell for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else None
