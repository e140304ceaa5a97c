"""A section: the piece of a person's file that is searched and trained on, with its headings and its place."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gemma4vec.text.prompts import Document

# Longer sections are cut where a paragraph ends. A model reads the first 256 tokens, about 1,000 characters.
LONGEST = 1_200
BETWEEN = " > "

_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"')\]]*\s+(?=[^\s.,;:)\]])|\n+")
_ABBREVIATED = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|resp|approx|fig|no|dr|mr|mrs|st|prof)|\b[A-Z])\.$", re.I)
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


class Link(NamedTuple):
    """A link as its file has it: the words that a reader sees, and the address."""

    text: str
    target: str


class Section(NamedTuple):
    """A section of a file.

    Attributes:
        id: `path#anchor`, or the path alone for what stands before the first heading; unique in a folder. Further parts
            of a long section end in `~2`, `~3`.
        path: of its file, relative to the folder, with slashes.
        headings: from the file's title to its own heading; empty where the file has none.
        text: its words, without headings; code and tables stay as lines.
        line: where it begins, from 1, if the file has lines.
        links: the links in it.
        anchors: names by which links and query files refer to it.
        query: a sentence that the file itself has about it, such as a docstring's; it is not in the text.
        code: whether it is code.
        part: number of this part of a long section, from 1.
    """

    id: str
    path: str
    headings: tuple[str, ...]
    text: str
    line: int | None = None
    links: tuple[Link, ...] = ()
    anchors: tuple[str, ...] = ()
    query: str | None = None
    code: bool = False
    part: int = 1

    @property
    def unit(self) -> str:
        """The id of the whole section that this is a part of."""
        return self.id if self.part == 1 else self.id.removesuffix(f"~{self.part}")

    @property
    def title(self) -> str | None:
        """All headings in one line; None without any."""
        return BETWEEN.join(self.headings) or None

    def as_document(self) -> Document:
        """Text and title, as they are embedded."""
        return Document(self.text, self.title)


def section_from_value(value: Mapping[str, Any]) -> Section:
    """The section whose `_asdict()` was written as JSON.

    Raises:
        TypeError, KeyError: it is none.
    """
    return Section(
        **{
            **value,
            "headings": tuple(value["headings"]),
            "anchors": tuple(value["anchors"]),
            "links": tuple(Link(*link) for link in value["links"]),
        }
    )


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading: `Set up a proxy` -> `set-up-a-proxy`."""
    return _NOT_IN_ANCHORS.sub("", unicodedata.normalize("NFC", heading).strip().lower()).replace(" ", "-")


def one_line(text: str) -> str:
    """The text with single spaces, without spaces at its ends."""
    return " ".join(text.split())


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence; a line end ends one too, since lists and code have no periods."""
    found, start = [], 0
    for gap in _SENTENCE_END.finditer(text):
        if "\n" not in gap.group() and _ABBREVIATED.search(text[max(0, gap.start() - 12) : gap.start()]):
            continue
        if text[start : gap.start()].strip():
            found.append((start, gap.start()))
        start = gap.end()
    if text[start:].strip():
        found.append((start, len(text.rstrip())))
    return found


def cut_long(section: Section, longest: int = LONGEST) -> list[Section]:
    """The section, or its parts of about equal length where it is longer than `longest` characters.

    Parts end between paragraphs, else between lines or sentences, else between words. Links and anchors go with the
    part that has their words; anchors of the section itself stay with the first.
    """
    if len(section.text) <= longest:
        return [section]
    goal = len(section.text) / -(-len(section.text) // longest)
    texts = [text for text in _pack(_pieces(section.text, longest), min(longest, int(goal * 1.15) + 1)) if text.strip()]
    parts = []
    line, searched = section.line, 0
    for number, text in enumerate(texts, start=1):
        if number > 1 and line is not None and section.code:
            found = section.text.find(text[:80], searched)
            if found >= 0:
                line += section.text.count("\n", searched, found)
                searched = found
        parts.append(
            section._replace(
                id=section.id if number == 1 else f"{section.id}~{number}",
                text=text.strip("\n"),
                line=line if section.code or number == 1 else section.line,
                links=tuple(link for link in section.links if link.text in one_line(text)),
                anchors=section.anchors if number == 1 else (),
                query=section.query if number == 1 else None,
                part=number,
            )
        )
    return parts


def _pieces(text: str, longest: int) -> list[str]:
    """The text in pieces that must not be cut further: paragraphs, or parts of those that are too long."""
    pieces: list[str] = []
    start = 0
    for gap in [*_PARAGRAPH.finditer(text), None]:
        end = len(text) if gap is None else gap.end()
        paragraph = text[start:end]
        pieces += [paragraph] if len(paragraph) <= longest else _cut_paragraph(paragraph, longest)
        start = end
    return pieces


def _cut_paragraph(paragraph: str, longest: int) -> list[str]:
    pieces, start = [], 0
    ends = [*(end for _, end in sentences(paragraph)[:-1]), len(paragraph)]
    for end in ends:
        while end - start > longest:  # no sentence ends here: between words, else anywhere
            space = paragraph.rfind(" ", start + longest // 2, start + longest)
            at = space + 1 if space > 0 else start + longest
            pieces.append(paragraph[start:at])
            start = at
        pieces.append(paragraph[start:end])
        start = end
    return pieces


def _pack(pieces: Sequence[str], longest: int) -> list[str]:
    """Join neighbors as long as they stay within `longest` characters."""
    texts: list[str] = []
    for piece in pieces:
        if texts and len(texts[-1]) + len(piece) <= longest:
            texts[-1] += piece
        else:
            texts.append(piece)
    return texts
