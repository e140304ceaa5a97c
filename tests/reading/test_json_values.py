"""The reader of JSON: right values, and one reason for every way to fail."""

import json
from pathlib import Path

import pytest

from gemma4vec.errors import InputError
from gemma4vec.reading import json_values
from gemma4vec.reading.json_values import MOST_DEPTH, JsonError, load_foreign_json, loads_json, read_json


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5, "x", null, true]}',
        '"\\ud83d\\ude00"',
        "[" * MOST_DEPTH + "]" * MOST_DEPTH,
        "9" * 300,
        '"a\\\\ud800"',
    ],
)
def test_what_python_reads_is_read_alike(text: str) -> None:
    assert loads_json(text) == json.loads(text)
    assert loads_json(b"\xef\xbb\xbf" + text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("", "empty", None),
        ('{"a": 1,\n}', "not JSON (Expecting", 2),
        ("[" * 200 + "]" * 200, "nested too deeply", None),
        ('{"a":' * 100_000, "nested too deeply", None),
        ("[NaN]", "NaN is not JSON", None),
        ("[-1e999]", "-1e999 is beyond a float", None),
        ("7" * 301, "an integer of 301 digits", None),
        ("7" * 5_000, "an integer of 5000 digits", None),
        ('{"a": ["\\udc00"]}', "a lone surrogate (\\udc00)", None),
        ('{"\\ud800": 1}', "a lone surrogate (\\ud800)", None),
        ('{"a": {"b": 1, "b": 2}}', "the key 'b' is given twice", None),
        (b"{}\n\xff", "not UTF-8 at byte 3", 2),
        ("{}".encode("utf-16"), "not UTF-8 at byte 0 (is it UTF-16?)", 1),
    ],
)
def test_every_fault_has_its_reason(text: str | bytes, reason: str, line: int | None) -> None:
    with pytest.raises(JsonError) as caught:
        loads_json(text)
    assert reason in caught.value.reason
    assert caught.value.line == line


def test_files_of_other_libraries_may_hold_what_python_reads(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"limit": Infinity, "limit": 1e999, "token": "\\ud800"}')
    assert load_foreign_json(file) == {"limit": float("inf"), "token": "\ud800"}


def test_a_file_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "MOST_BYTES", 2**20)
    (tmp_path / "a.json").write_text(" " * 2**20 + "1")
    with pytest.raises(JsonError, match="longer than 1 MiB"):
        load_foreign_json(tmp_path / "a.json")


def test_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": 1,\n"b" 2}')
    with pytest.raises(InputError, match=r"the plan .*a\.json line 2: not JSON .*; mend it"):
        read_json(file, "the plan", "mend it")
    with pytest.raises(InputError, match=r"the plan .*none\.json cannot be read \(No such file"):
        read_json(tmp_path / "none.json", "the plan", "mend it")
