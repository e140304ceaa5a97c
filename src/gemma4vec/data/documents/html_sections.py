"""Sections of an HTML page, which is also what Markdown, reStructuredText and notebooks become first."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemma4vec.data.documents.section import Link, Section, one_line, slug

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

# The attribute by which the makers of HTML in this room say a heading's line in the file.
LINE = "data-source-line"

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SKIPPED_NAMES = (
    "script style noscript template svg math nav footer form button select input textarea iframe object video audio"
    " canvas head aside"
)
_SKIPPED = frozenset(_SKIPPED_NAMES.split())
_BLOCK_NAMES = (
    "address article blockquote body dd details div dl dt fieldset figcaption figure header hr html li main ol p pre"
    " section summary table tbody td tfoot th thead tr ul caption"
)
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_WIDE = frozenset(("p", "pre", "div", "section", "table", "ul", "ol", "dl", "blockquote", "article", "figure"))
# Parts of pages that generators of documentation mark as furniture.
_FURNITURE = re.compile(
    r"\b(?:headerlink|sphinxsidebar|related|toctree-wrapper|breadcrumbs?|sidebar|navbar|menu|skip-?link)\b"
)
_BLANK_LINES = re.compile(r"\n{3,}")
_ITEM = re.compile(r"^- *\n\s*(?=\S)", re.M)  # an item of a list whose text is a paragraph of its own
_ROW_END = re.compile(r"(?: \|)+ *$", re.M)
_MOST_ANCHORS = 64


@dataclass
class _Open:
    """The section that is being read."""

    headings: tuple[str, ...]
    anchor: str | None
    line: int | None
    pieces: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    anchors: list[str] = field(default_factory=list)


def html_to_sections(html: str, path: str) -> list[Section]:
    """The sections of a page, in order; those without words are left out.

    Navigation, scripts and forms are not read; where the page marks its main part, only that is. A page without a
    heading of the first level has its `title` above all others.

    Args:
        html: the page.
        path: of its file, which ids begin with.

    Raises:
        RecursionError, ValueError: the reader cannot read it.
    """
    from bs4 import BeautifulSoup

    page = BeautifulSoup(html, "html.parser")
    root = _main_part(page)
    title = one_line(page.title.get_text()) if page.title else ""
    first = root.find(list(_HEADINGS))
    above = (title,) if title and (first is None or first.name != "h1") else ()
    return _finished(_Reader(above).read(root), path)


def _main_part(page: "BeautifulSoup") -> "Tag":
    for found in (page.find("main"), page.find(None, {"role": "main"})):
        if found is not None:
            return found
    articles = page.find_all("article")
    if len(articles) == 1:
        return articles[0]
    return page.body or page


class _Reader:
    """Walks the elements of a page; not by recursion, since pages nest elements thousands deep."""

    def __init__(self, above: tuple[str, ...]) -> None:
        self.above = above
        self.levels: list[tuple[int, str]] = []
        self.section = _Open(above, None, None)
        self.done = [self.section]
        self.waiting: list[str] = []  # anchors whose text or heading has not come yet

    def read(self, root: "Tag") -> list[_Open]:
        from bs4 import NavigableString, Tag
        from bs4.element import PreformattedString

        stack: list[tuple[str, object]] = [("open", root)]
        verbatim = 0
        while stack:
            step, node = stack.pop()
            if step == "close":
                assert isinstance(node, Tag)
                verbatim -= node.name == "pre"
                self._break(node)
                continue
            if isinstance(node, PreformattedString):  # comments, declarations
                continue
            if isinstance(node, NavigableString):
                self._write(str(node), verbatim > 0)
                continue
            if not isinstance(node, Tag) or self._is_skipped(node, root):
                continue
            if node.name not in _HEADINGS:
                self.waiting += _anchors(node)
            else:
                self._begin(node)
                continue
            if node.name == "br":
                self.section.pieces.append("\n")
            if node.name == "img" and node.get("alt"):
                self._write(f" {node['alt']} ")
            if node.name == "a":
                self._note_link(node)
            if node.name not in ("td", "th"):
                self._break(node)
            if node.name == "li":
                self._write("- ")
            verbatim += node.name == "pre"
            stack.append(("close", node))
            stack += [("open", child) for child in reversed(node.contents)]
        return self.done

    def _is_skipped(self, node: "Tag", root: "Tag") -> bool:
        if node is root:
            return False
        if node.name in _SKIPPED or node.get("hidden") is not None:
            return True
        classes = " ".join([*_words(node.get("class")), *_words(node.get("role"))])
        return bool(classes) and (bool(_FURNITURE.search(classes)) or "navigation" in classes)

    def _write(self, text: str, verbatim: bool = False) -> None:
        """Text of the current section, to which the anchors before it belong."""
        if not verbatim:  # outside of `pre` line ends are spaces, and several spaces are one
            text = re.sub(r"\s+", " ", text)
            text = text.lstrip() if self._end.endswith((" ", "\n")) else text
        if not text:
            return
        self.section.pieces.append(text)
        if self.waiting and not text.isspace():
            self.section.anchors += self.waiting
            self.waiting = []

    @property
    def _end(self) -> str:
        return self.section.pieces[-1] if self.section.pieces else "\n"

    def _break(self, node: "Tag") -> None:
        """End a line or a cell where an element begins or ends; a blank line around some."""
        if node.name in ("td", "th"):
            self.section.pieces.append(" | ")
        elif node.name in _BLOCKS:
            wanted = "\n\n" if _is_wide(node) else "\n"
            if not self._end.endswith(wanted):
                self.section.pieces.append(wanted)

    def _note_link(self, node: "Tag") -> None:
        target = node.get("href")
        text = one_line(node.get_text(" "))
        if isinstance(target, str) and target and text:
            self.section.links.append(Link(text, target))

    def _begin(self, node: "Tag") -> None:
        """Begin the section of a heading."""
        for extra in node.find_all("a", class_="headerlink"):
            extra.decompose()
        heading = one_line(node.get_text()).strip("¶# ")
        if not heading:
            return
        level = _HEADINGS[node.name]
        while self.levels and self.levels[-1][0] >= level:
            self.levels.pop()
        self.levels.append((level, heading))
        own = [anchor for element in (node, *node.find_all(True)) for anchor in _anchors(element)]
        anchors, self.waiting = [*own, *self.waiting], []
        line = node.get(LINE)
        headings = (*self.above, *(text for _, text in self.levels))
        self.section = _Open(
            headings, anchors[0] if anchors else slug(heading), int(line) if isinstance(line, str) else None
        )
        self.section.anchors += [*anchors, slug(heading)]
        self.section.links += [
            Link(one_line(link.get_text(" ")), str(link["href"]))
            for link in node.find_all("a", href=True)
            if one_line(link.get_text(" "))
        ]
        self.done.append(self.section)


def _anchors(node: "Tag") -> list[str]:
    """Names of an element that links can lead to."""
    if node.name in ("meta", "input"):
        return []
    return [value for value in (node.get("id"), node.get("name")) if isinstance(value, str) and value]


def _is_wide(node: "Tag") -> bool:
    """Whether a blank line stands around it."""
    return node.name in _WIDE


def _words(value: object) -> list[str]:
    return value.split() if isinstance(value, str) else [str(one) for one in value] if isinstance(value, list) else []


def _finished(read: list[_Open], path: str) -> list[Section]:
    """Sections with text; a heading without any of its own lives on in the headings of those below it."""
    sections = []
    used: dict[str, int] = {}
    waiting: list[str] = []
    for one in read:
        text = _tidy("".join(one.pieces))
        if not text:
            waiting += one.anchors  # a link to it leads to the section below
            continue
        key = path if one.anchor is None else f"{path}#{one.anchor}"
        used[key] = used.get(key, 0) + 1
        if used[key] > 1:
            key = f"{key}-{used[key] - 1}"  # as GitHub does
        anchors = tuple(dict.fromkeys([*waiting, *one.anchors]))[:_MOST_ANCHORS]
        waiting = []
        sections.append(Section(key, path, one.headings, text, one.line, tuple(one.links), anchors))
    return sections


def _tidy(text: str) -> str:
    """The text without spaces at line ends, and without marks of items and cells that nothing follows."""
    lines = [line.rstrip() for line in text.split("\n")]
    text = _ROW_END.sub("", _ITEM.sub("- ", "\n".join(lines)))
    return _BLANK_LINES.sub("\n\n", text).strip("\n")
