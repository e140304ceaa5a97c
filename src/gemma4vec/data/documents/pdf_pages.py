"""Pages of a PDF as sections, with the bookmarks that cover them as headings."""

import io
import logging
import re
from typing import TYPE_CHECKING, Any

from gemma4vec.data.documents.section import Section, one_line

if TYPE_CHECKING:
    from pypdf import PdfReader

MOST_PAGES = 5_000
_HYPHEN = re.compile(r"(?<=[^\W\d_])-\n(?=[a-z])")
_PARAGRAPH_END = re.compile(r"(?<=[.:!?])[ \t]*\n")


class NoTextError(ValueError):
    """The pages have no text: they are pictures, as of a scanner."""


def pdf_to_sections(raw: bytes, path: str) -> list[Section]:
    """A section for each page with text; its id ends in `#page=N`, as browsers take it.

    Raises:
        NoTextError: no page has text.
        Exception: the file is damaged or encrypted; pypdf raises many kinds.
    """
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = PdfReader(io.BytesIO(raw), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise ValueError("needs a password")
    title = _title(reader)
    bookmarks = _bookmarks(reader)
    sections, covering = [], list[str]()
    for number, page in enumerate(reader.pages[:MOST_PAGES], start=1):
        covering = bookmarks.get(number, covering)
        text = _tidy(page.extract_text() or "")
        if text:
            headings = tuple(dict.fromkeys([*([title] if title else []), *covering]))
            anchor = f"page={number}"
            sections.append(Section(f"{path}#{anchor}", path, headings, text, anchors=(anchor,)))
    if not sections:
        raise NoTextError("no text")
    return sections


def pdf_to_values(raw: bytes, path: str) -> list[dict[str, Any]]:
    """As `pdf_to_sections`, as JSON values: what the process that reads PDFs answers."""
    return [section._asdict() for section in pdf_to_sections(raw, path)]


def _title(reader: "PdfReader") -> str:
    """The title in the file's description, unless it is a file's name, as many programs leave it."""
    try:
        title = one_line(str(reader.metadata.title or "")) if reader.metadata else ""
    except Exception:  # a damaged description is done without
        return ""
    return "" if re.search(r"\.\w{2,5}\Z|\Auntitled\b", title, re.I) else title


def _bookmarks(reader: "PdfReader") -> dict[int, list[str]]:
    """Page, from 1 -> headings of the bookmark that begins last on it, the outermost first."""
    found: dict[int, list[str]] = {}
    try:
        _add_bookmarks(reader, reader.outline, [], found)
    except Exception:  # a damaged table of bookmarks is done without: the pages have their text
        return {}
    return found


def _add_bookmarks(reader: "PdfReader", outline: list[Any], above: list[str], found: dict[int, list[str]]) -> None:
    headings = above
    for one in outline:
        if isinstance(one, list):
            _add_bookmarks(reader, one, headings, found)
            continue
        headings = [*above, one_line(str(one.title))]
        page = reader.get_destination_page_number(one)
        if page is not None and page >= 0:
            found[page + 1] = headings


def _tidy(text: str) -> str:
    """Joined words and lines: a line of a page ends where the page is full, not where a paragraph ends."""
    text = _HYPHEN.sub("", text.replace("\u00ad\n", "").replace("\x00", ""))
    return "\n".join(one_line(paragraph) for paragraph in _PARAGRAPH_END.split(text) if paragraph.strip())
