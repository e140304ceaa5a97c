"""From the files of a folder to their sections. A file that cannot be read is counted, and the rest goes on."""

import codecs
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gemma4vec.data.documents.folder_files import DocumentFile, FileKind, LeftOut
from gemma4vec.data.documents.html_sections import html_to_sections
from gemma4vec.data.documents.markup import markdown_to_sections, notebook_to_sections
from gemma4vec.data.documents.pdf_pages import NoTextError
from gemma4vec.data.documents.plain_files import code_to_sections, python_to_sections, text_to_sections
from gemma4vec.data.documents.restructured_text import rst_to_sections
from gemma4vec.data.documents.section import Link, Section, cut_long, one_line, section_from_value
from gemma4vec.data.rows.decoded_lines import MARKS
from gemma4vec.data.rows.rows import CONTROL
from gemma4vec.machine.processes.timed_reader import NOT_STARTED, ReaderError, TimedReader, TookTooLongError

logger = logging.getLogger(__name__)

BINARY_SHARE = 0.05  # of control characters in the first block of a file
BLOCK = 65_536
_CONTROL = bytes(set(range(32)) - {7, 8, 9, 10, 12, 13, 27}) + b"\x7f"
# Reader -> the module whose absence means that it is not installed.
NEEDED: dict[FileKind, tuple[str, ...]] = {
    "markdown": ("bs4", "markdown_it"),
    "notebook": ("bs4", "markdown_it"),
    "html": ("bs4",),
    "rst": ("bs4", "docutils"),
    "pdf": ("pypdf",),
}
# pypdf loops for minutes on some damaged files.
PDF_READER = "gemma4vec.data.documents.pdf_pages:pdf_to_values"
PDF_LIMITS = (60.0, 10.0)  # seconds of the processor for one file, and times as long on the clock
INSTALL = "pip install 'gemma4vec[documents]'"


class BinaryError(ValueError):
    """The bytes are not text."""


def read_sections(
    folder: Path,
    files: Sequence[DocumentFile],
    left_out: LeftOut,
    *,
    known: "dict[DocumentFile, list[Section]] | None" = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Section]:
    """The sections of all files, in their order, long ones cut.

    Args:
        folder: the folder that the files' paths are relative to.
        files: the files.
        left_out: gets the files that cannot be read, by reason.
        known: sections of files that were read before and have not changed since; none for one that took too long.
        progress: called with the numbers of files that are done and of all.
    """
    sections: list[Section] = []
    used: set[str] = set()
    with TimedReader(PDF_READER, *PDF_LIMITS) as pdfs:
        for number, file in enumerate(files, start=1):
            found = None if known is None else known.get(file)
            if found == []:
                left_out.add(took_too_long(), file.path)
            for section in _read_file(folder, file, left_out, pdfs) if found is None else found:
                again = 2
                while section.id in used:  # a name with odd characters may equal another one without them
                    section = section._replace(id=f"{section.id} ({again})", part=1)
                    again += 1
                used.add(section.id)
                sections.append(section)
            progress(number, len(files))
    return sections


def _read_file(folder: Path, file: DocumentFile, left_out: LeftOut, pdfs: TimedReader) -> list[Section]:
    if missing := missing_reader(file.kind):
        left_out.add(f"{missing} is not installed: {INSTALL}", file.path)
        return []
    try:
        raw = (folder / file.path).read_bytes()
    except OSError as error:
        left_out.add(f"cannot be read ({(error.strerror or str(error)).lower()})", file.path)
        return []
    try:
        with warnings.catch_warnings():  # readers of markup warn of what authors wrote
            warnings.simplefilter("ignore")
            sections = (
                [section_from_value(value) for value in pdfs.read(raw, file.path)]
                if file.kind == "pdf"
                else _sections_of(raw, file.kind, file.path)
            )
    except BinaryError:
        left_out.add("bytes that are not text", file.path)
        return []
    except TookTooLongError:
        left_out.add(took_too_long(), file.path)
        return []
    except Exception as error:  # readers raise whatever a damaged file leads to
        logger.debug(f"{file.path}: {type(error).__name__}: {error}")
        kind = error.kind if isinstance(error, ReaderError) else ""
        left_out.add(_REASONS.get(kind, f"damaged, or not {_NAMES[file.kind]}"), file.path)
        return []
    sections = [_cleaned(part) for section in sections for part in cut_long(section)]
    if not sections:
        left_out.add("no words", file.path)
    return sections


def took_too_long() -> str:
    """The reason to leave out a file at which its reader was ended."""
    return f"took over {PDF_LIMITS[0]:g} s"


def _cleaned(section: Section) -> Section:
    """The section without control characters and lone surrogates, which no tokenizer and no table takes."""

    def clean(text: str) -> str:
        return CONTROL.sub(" ", text)

    return section._replace(
        id=clean(section.id).replace("\t", " ").replace("\n", " ").strip(),
        path=clean(section.path),
        headings=tuple(one for heading in section.headings if (one := one_line(clean(heading)))),
        text=clean(section.text),
        query=None if section.query is None else clean(section.query),
        links=tuple(Link(clean(text), clean(target)) for text, target in section.links),
        anchors=tuple(map(clean, section.anchors)),
    )


# What the process that reads PDFs says -> the reason.
_REASONS = {
    NoTextError.__name__: "PDF without text, as of a scanner",
    NOT_STARTED: "no process to read PDFs can be started",
}
_NAMES: dict[FileKind, str] = {
    "markdown": "Markdown",
    "html": "HTML",
    "rst": "reStructuredText",
    "text": "text",
    "notebook": "a notebook",
    "pdf": "a PDF that can be opened",
    "python": "Python",
    "code": "code",
}


def _sections_of(raw: bytes, kind: FileKind, path: str) -> list[Section]:
    """The sections of one file's bytes; a PDF is read in a process of its own."""
    if kind == "notebook":
        return notebook_to_sections(raw, path)
    text = decode(raw)
    match kind:
        case "markdown":
            return markdown_to_sections(text, path)
        case "html":
            return html_to_sections(text, path)
        case "rst":
            return rst_to_sections(text, path)
        case "python":
            return python_to_sections(raw, text, path)
        case "code":
            return code_to_sections(text, path)
        case _:
            return text_to_sections(text, path)


def decode(raw: bytes) -> str:
    """Bytes as text with line feeds: by their byte order mark, else as UTF-8, else as cp1252, as most other files are.

    Raises:
        BinaryError: they are not text.
    """
    mark = next((mark for mark in MARKS if raw.startswith(mark)), None)
    if mark is not None and mark != codecs.BOM_UTF8:
        try:
            return _lines(raw.decode(MARKS[mark]))
        except UnicodeDecodeError as error:
            raise BinaryError(str(error)) from error
    start = raw[:BLOCK]
    if b"\0" in start or len(start) - len(start.translate(None, _CONTROL)) > BINARY_SHARE * len(start):
        raise BinaryError("control characters")
    try:
        return _lines(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return _lines(raw.decode("cp1252", errors="replace"))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def missing_reader(kind: FileKind) -> str | None:
    """The package that the kind needs and that is not installed; None if all are."""
    from importlib.util import find_spec

    packages = {"bs4": "beautifulsoup4", "markdown_it": "markdown-it-py"}
    missing = next((name for name in NEEDED.get(kind, ()) if find_spec(name) is None), None)
    return None if missing is None else packages.get(missing, missing)


def count_kinds(files: Iterable[DocumentFile]) -> dict[str, int]:
    """Kind -> number of files, the most frequent first."""
    counts: dict[str, int] = {}
    for file in files:
        counts[file.kind] = counts.get(file.kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
