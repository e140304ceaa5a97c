"""Lines of a text file in any encoding, UTF-16 included."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from gemma4vec.data.rows.jsonl import raw_lines
from gemma4vec.errors import InputError

# The longer marks first: UTF-32's little-endian mark begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8",
}


def decoded_lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a text file with their line ends (.gz and .zst by suffix), without a byte order mark.

    Bytes that do not decode become lone surrogates where the encoding allows it (`surrogateescape`).

    Args:
        path: the file.
        encoding: any text encoding of Python. A line may end in a line feed, a carriage return, or both.

    Raises:
        InputError: the encoding is unknown or differs from the file's byte order mark, the file has NUL characters in
            its first line, or it is not text in this encoding.
    """
    unknown = f"{path}: unknown encoding {encoding!r}; use utf-8, utf-16, cp1252 or another of Python's"
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)  # refuses codecs that are not for text, such as hex
        decoder = codecs.getincrementaldecoder(name)(errors="surrogateescape")
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(unknown) from error
    rest, first, number = "", True, 0
    try:
        # Lines of bytes end at the byte 0x0a, which is part of other characters in UTF-16: decode, then cut.
        for number, raw in raw_lines(path, blank=True):
            if number == 1:
                _check_mark(path, raw, name)
            rest += decoder.decode(raw)
            if not rest.endswith("\n"):
                continue
            yield from _cut(path, rest, first)
            rest, first = "", False
        rest += decoder.decode(b"", final=True)
    except UnicodeError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} line {max(number, 1)}: not text in the encoding {encoding!r} ({reason})") from error
    yield from _cut(path, rest, first)


def _check_mark(path: Path, raw: bytes, name: str) -> None:
    """Refuse a file whose byte order mark says another encoding than `name`."""
    mark = next((mark for mark in MARKS if raw.startswith(mark)), None)
    if mark is not None and not name.startswith(MARKS[mark]):
        raise InputError(f"{path}: the file begins as {MARKS[mark]} does; set encoding: {MARKS[mark]} in the source")


def _cut(path: Path, text: str, first: bool) -> Iterator[str]:
    """Decoded text as lines."""
    if first:
        text = text.removeprefix("\ufeff")
        if "\0" in text:
            raise InputError(f"{path} line 1: has NUL characters; if the file is UTF-16, set encoding: utf-16-le")
    yield from io.StringIO(text, newline="")
