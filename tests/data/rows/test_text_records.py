"""Lines as records: their numbers, and why a line is none."""

import gzip
from pathlib import Path

from gemma4vec.data.rows.records import Record, jsonl_records, text_records


def test_lines_of_text_keep_their_numbers_and_lose_their_ends(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt.gz"
    file.write_bytes(gzip.compress("\ufeffone\r\n\n  two \n".encode()))
    assert list(text_records(file)) == [
        Record(str(file), 1, {"text": "one"}),
        Record(str(file), 3, {"text": "  two "}),
    ]


def test_a_line_that_is_no_text_has_a_reason_and_the_next_one_is_read(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(b"one\nb\xff\nthree\n")
    first, second, third = text_records(file)
    assert (first.value, third.value) == ({"text": "one"}, {"text": "three"})
    assert second.number == 2 and second.value is None and "UTF-8" in second.reason
    file.write_bytes("one two".encode("utf-16-le"))
    (wide,) = text_records(file)
    assert wide.value is None and "is it UTF-16?" in wide.reason


def test_lines_of_json_keep_their_numbers_too(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"query": "a"}\n\n{"query": \n')
    good, bad = jsonl_records(file)
    assert (good.number, good.value, good.unit) == (1, {"query": "a"}, "line")
    assert bad.number == 3 and bad.value is None and bad.reason
