"""Sections of plain text and of code."""

import re
import textwrap

from gemma4vec.data.documents.section import Section, one_line, slug
from gemma4vec.data.pycode.docstrings import extract_first_sentence, find_sentence_flaw
from gemma4vec.data.pycode.extract import extract

LONGEST_HEADING = 120
FEWEST_LINES = 3  # of code below a comment that is taken for its description

_UNDERLINE = re.compile(r"([=\-~^*#+_`.:\"'])\1{2,}\s*\Z")
_COMMENT = re.compile(
    r"\s*(?://[/!]?|#(?!!|include|define|if|endif|pragma|else|undef)|--(?!-)|;+|%+|/\*+|\*+/?)\s?(.*?)\s*(?:\*/)?\Z"
)


def text_to_sections(text: str, path: str) -> list[Section]:
    """The sections of a plain text: below underlined lines, and below a first line that stands alone."""
    lines = text.split("\n")
    underlines: list[str] = []
    levels: list[tuple[int, str]] = []
    opened: list[tuple[tuple[str, ...], int, list[str]]] = [((), 1, [])]
    number, seen = 0, False
    while number < len(lines):
        line, below = lines[number], lines[number + 1] if number + 1 < len(lines) else ""
        heading = one_line(line)
        underline = _UNDERLINE.match(below)
        first = not seen and not below.strip() and any(one.strip() for one in lines[number + 1 :])
        if 0 < len(heading) <= LONGEST_HEADING and not _UNDERLINE.match(line):
            if underline and len(below.strip()) >= 0.6 * len(heading):
                if underline[1] not in underlines:
                    underlines.append(underline[1])
                level = 1 + underlines.index(underline[1])
            else:
                level = 0 if first and not heading.endswith((".", ";", ",")) else -1
            if level >= 0:
                while levels and levels[-1][0] >= level:
                    levels.pop()
                levels.append((level, heading))
                opened.append((tuple(words for _, words in levels), number + 1, []))
                number, seen = number + 2, True
                continue
        opened[-1][2].append(line)
        number, seen = number + 1, seen or bool(heading)
    sections = []
    used: dict[str, int] = {}
    for headings, line_number, body in opened:
        words = "\n".join(one.rstrip() for one in body).strip("\n")
        if not words.strip():
            continue
        anchor = slug(headings[-1]) if headings else ""
        key = f"{path}#{anchor}" if len(headings) > 1 or (headings and anchor) else path
        used[key] = used.get(key, 0) + 1
        key = key if used[key] == 1 else f"{key}-{used[key] - 1}"
        sections.append(Section(key, path, headings, words, line_number, anchors=(anchor,) if anchor else ()))
    return sections


def python_to_sections(raw: bytes, text: str, path: str) -> list[Section]:
    """The functions of a Python file, each without its docstring, whose first sentence is the section's `query`.

    A file without functions that `pycode` keeps is read as other code is.
    """
    functions = extract(raw, path, path.split("/", 1)[0]).functions
    if not functions:
        return code_to_sections(text, path)
    return [
        Section(
            f"{path}#{function.id.partition(':')[2]}",
            path,
            (),
            function.source,
            function.line,
            anchors=(function.name,),
            query=function.query,
            code=True,
        )
        for function in functions
    ]


def code_to_sections(text: str, path: str) -> list[Section]:
    """Blocks of code: what begins in the first column after a blank line.

    A comment of one sentence or more above at least three lines is the block's `query`, and not part of its text.
    """
    sections = []
    for first, lines in _blocks(text.split("\n")):
        comment, body = _leading_comment(lines)
        sentence = extract_first_sentence(comment) if comment else ""
        described = bool(sentence) and find_sentence_flaw(sentence) is None and _count(body) >= FEWEST_LINES
        kept = body if described else lines
        code = textwrap.dedent("\n".join(kept)).strip("\n")
        if not re.search(r"\w", code):
            continue
        anchor = f"L{first}"
        line = first + (len(lines) - len(body) if described else 0)
        query = sentence if described else None
        sections.append(
            Section(f"{path}#{anchor}", path, (path,), code, line, anchors=(anchor,), query=query, code=True)
        )
    return sections


def _blocks(lines: list[str]) -> list[tuple[int, list[str]]]:
    """First line, from 1, and lines of each block."""
    blocks: list[tuple[int, list[str]]] = []
    blank = True
    for number, line in enumerate(lines, start=1):
        begins = blank and line[:1].strip() and not line.startswith(("}", ")", "]", "end", "else"))
        if begins and (not blocks or _count(blocks[-1][1]) >= FEWEST_LINES or _COMMENT.match(line)):
            blocks.append((number, []))
        if blocks:
            blocks[-1][1].append(line)
        elif line.strip():
            blocks.append((number, [line]))
        blank = not line.strip()
    return blocks


def _count(lines: list[str]) -> int:
    return sum(bool(line.strip()) for line in lines)


def _leading_comment(lines: list[str]) -> tuple[str, list[str]]:
    """The words of the comment that a block begins with, and the lines after it."""
    words: list[str] = []
    for number, line in enumerate(lines):
        found = _COMMENT.match(line)
        if found is None:
            return "\n".join(words), lines[number:]
        words.append(found[1])
    return "\n".join(words), []
