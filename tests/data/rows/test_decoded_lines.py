"""Lines of text in any encoding."""

import codecs
from pathlib import Path

import pytest

from gemma4vec.data.rows.decoded_lines import decoded_lines
from gemma4vec.errors import InputError

# U+0A0A and U+010A have the byte of a line feed in UTF-16; form feed and U+2028 end no line.
LINES = ["query,pos\r\n", "\u0a0a a,\u010a b\n", "c\x0cd,e\u2028f\n", "\U0001f600,last"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "UTF_16", "utf-16-le", "utf-16-be", "utf-32", "utf-7"])
def test_lines_of_every_encoding_are_equal(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t").write_bytes("".join(LINES).encode(encoding))
    assert list(decoded_lines(tmp_path / "t", encoding)) == LINES


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
)
def test_a_byte_order_mark_is_not_text(tmp_path: Path, mark: bytes, encoding: str) -> None:
    (tmp_path / "t").write_bytes(mark + "query\n".encode(encoding))
    assert list(decoded_lines(tmp_path / "t", encoding)) == ["query\n"]


def test_a_carriage_return_alone_ends_a_line_too(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"query,pos\ra,b\rc,d")
    assert list(decoded_lines(tmp_path / "t", "utf-8")) == ["query,pos\r", "a,b\r", "c,d"]


def test_bytes_that_do_not_decode_become_surrogates(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a\xffb\n")
    assert list(decoded_lines(tmp_path / "t", "utf-8")) == ["a\udcffb\n"]


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        ("a,b\n".encode("utf-16"), "utf-8", r"t: the file begins as utf-16 does; set encoding: utf-16"),
        ("a,b\n".encode("utf-32"), "utf-16", r"t: the file begins as utf-32 does; set encoding: utf-32"),
        ("a,b\n".encode("utf-8-sig"), "cp1252", r"t: the file begins as utf-8 does; set encoding: utf-8"),
        ("a,b\n".encode("utf-16-le"), "utf-8", r"t line 1: has NUL characters; .* set encoding: utf-16-le"),
        ("a,b\nc".encode("utf-16")[:-1], "utf-16", r"t line 2: not text in the encoding 'utf-16'"),
        (b"a,b\n", "utf-99", r"t: unknown encoding 'utf-99'"),
        (b"a,b\n", "hex", r"t: unknown encoding 'hex'"),
        (b"a,b\n", "undefined", r"t: unknown encoding 'undefined'"),
        (b"a,b\n", "utf\0", r"t: unknown encoding 'utf\\x00'"),
        (b"a,b\n", "\ud83d", r"t: unknown encoding '\\ud83d'"),
    ],
)
def test_a_wrong_encoding_is_one_line(tmp_path: Path, content: bytes, encoding: str, expected: str) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(InputError, match=expected):
        list(decoded_lines(tmp_path / "t", encoding))
