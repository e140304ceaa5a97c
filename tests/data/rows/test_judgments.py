"""Judgments: what is a header, which grades count, and which ids trec_eval can take."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from gemma4vec.data.rows.judgments import Judgment, parse_grade, parse_id, read_judgments
from gemma4vec.errors import InputError


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"query-id\tcorpus-id\tscore\n",
        b"\xef\xbb\xbfquery_id\tdoc\tRelevance\r\n",
        b"qid\tpid\tgain\n",
        b'"q"\t"d"\t"label"\n',
    ],
)
def test_a_header_is_not_a_judgment(tmp_path: Path, header: bytes) -> None:
    file = write(tmp_path / "t.tsv", header + b"q1\td1\t1\n\nq1\td2\t+2.0\r\n")
    assert list(read_judgments(file, header=True)) == [Judgment(2, "q1", "d1", 1), Judgment(4, "q1", "d2", 2)]
    compressed = write(tmp_path / "t.tsv.gz", gzip.compress(file.read_bytes()))
    assert list(read_judgments(compressed, header=True)) == list(read_judgments(file, header=False))


@pytest.mark.parametrize("line", [b"q1\td1\t1", b"q1\td1\t+1", b"q1\td1\t1e0", b"q1\td1\t-1", b"q1\td1\t 1 "])
def test_a_judgment_is_not_a_header(tmp_path: Path, line: bytes) -> None:
    file = write(tmp_path / "t.tsv", line + b"\nq2\td2\t1\n")
    assert [one.query for one in read_judgments(file, header=False)] == ["q1", "q2"]
    with pytest.raises(InputError, match=r"t\.tsv line 1: the header \(query-id, corpus-id, score\) is missing"):
        list(read_judgments(file, header=True))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"q1\td1\tyes\nq2\td2\t1\n", r"line 1: .* is missing|line 1: score 'yes' is not a whole number"),
        (b"q1 d1 1\nq2\td2\t1\n", r"line 1: .*separated by tabs"),
        (b"q1\t0\td1\t1\n", r"line 1: .*separated by tabs"),
        (b"a\tb\tscore\nq\td\t1\nq\t\xff\t1\n", r"line 3: not UTF-8 at byte 2"),
        (b"\xff\xfeq\x00", r"line 1: not UTF-8 at byte 0 \(is it UTF-16\?\)"),
        (b"a\tb\tscore\nq\td\t\n", r"line 2: score '' is not a whole number"),
    ],
)
@pytest.mark.parametrize("header", [True, False])
def test_other_lines_are_named(tmp_path: Path, content: bytes, expected: str, header: bool) -> None:
    with pytest.raises(InputError, match=expected):
        list(read_judgments(write(tmp_path / "t.tsv", content), header=header))


@pytest.mark.parametrize(
    ("value", "grade"), [(1, 1), (2.0, 2), ("3", 3), ("-1", -1), ("1.0", 1), (1_000_000, 1_000_000)]
)
def test_whole_numbers_are_grades(value: Any, grade: int) -> None:
    assert parse_grade(value, "w") == grade


@pytest.mark.parametrize("value", [0.5, "0.5", None, True, "x", "nan", float("nan"), [], {}])
def test_other_values_are_no_grades(value: Any) -> None:
    with pytest.raises(InputError, match=r"^w: score .* is not a whole number"):
        parse_grade(value, "w")


@pytest.mark.parametrize("value", [1_000_001, -(10**7), "inf", 10**400, "1e999"])
def test_grades_beyond_trec_evals_table_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"^w: score .{1,60} is beyond 1,000,000"):
        parse_grade(value, "w")


def test_ids() -> None:
    assert parse_id("d 1 \u2028 \U0001f600", "w") == "d 1 \u2028 \U0001f600" and parse_id(7, "w") == "7"
    for value, expected in [
        ("\ud83d", r"^w: the id '\\ud83d' has a lone surrogate"),
        ("a\0b", r"^w: the id 'a\\x00b' has a lone surrogate or a NUL character"),
        ("", "^w: a string is needed, this one is empty"),
        (None, "^w: a string is needed, not null"),
        (True, "^w: a string is needed, not a boolean"),
        (1.5, "^w: a string is needed, not a number"),
    ]:
        with pytest.raises(InputError, match=expected):
            parse_id(value, "w")
