"""Rows that a pass reads several times: counts, hashes and names are those of a plain list, also from a store."""

import json
from pathlib import Path

import numpy as np
import pytest

from gemma4vec.data.batching.repeated_rows import read_repeats
from gemma4vec.data.loading import load_rows
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.rows.lazy_rows import RowList
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.data.sources.drops import row_key
from gemma4vec.errors import InputError
from gemma4vec.recipe.schema import source_of
from gemma4vec.text.prompts import Document

ROWS = [
    Row(f"q{n}", [Document(f"p{n}{m}") for m in range(1 + n % 2)], [Document("n")] * n, group=f"g{n % 2}")
    for n in range(5)
]
TIMES = {1: 3, 4: 2}
EXPECTED = [row for number, row in enumerate(ROWS) for _ in range(TIMES.get(number, 1))]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rows.jsonl", ROWS)
    lines = [json.dumps({"key": row_key(ROWS[number]), "times": times}) for number, times in TIMES.items()]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize("large", [False, True])
def test_a_pass_reads_listed_rows_several_times(listed: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    if large:
        monkeypatch.setattr(load_rows, "LARGE_BYTES", 0)
    path = str(listed / "rows.jsonl")
    plain = load_sources([source_of(name="a", path=path)])
    data = load_sources([source_of(name="a", path=path, repeat=str(listed / "list.jsonl"))])
    assert list(data.rows) == EXPECTED and data.sources["a"]["rows"] == 8
    assert data.sources["a"]["content_hash"] != plain.sources["a"]["content_hash"]
    expected = RowList(EXPECTED)
    found = data.rows.parts[0].rows  # type: ignore[attr-defined]
    for name in ("positive_counts", "negative_counts", "has_scores", "group_numbers"):
        np.testing.assert_array_equal(getattr(found, name)(), getattr(expected, name)())
    for one, other in zip(found.text_hashes(), expected.text_hashes(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_first_rows_are_chosen_before_any_is_repeated(listed: Path) -> None:
    settings = {"path": str(listed / "rows.jsonl"), "max_rows": 2, "repeat": str(listed / "list.jsonl")}
    assert list(load_sources([source_of(name="a", **settings)]).rows) == EXPECTED[:4]


def test_lists_of_other_rows_and_odd_lines_are_one_line(listed: Path) -> None:
    (listed / "other.jsonl").write_text('{"key": "x", "times": 2}')
    with pytest.raises(InputError, match="a: none of its rows is in the list"):
        load_sources([source_of(name="a", path=str(listed / "rows.jsonl"), repeat=str(listed / "other.jsonl"))])
    for text in ("[]", '{"key": 1, "times": 2}', '{"key": "a", "times": 0}', '{"key": "a", "times": true}', "{"):
        (listed / "odd.jsonl").write_text(text)
        with pytest.raises(InputError, match=r"odd\.jsonl line 1: "):
            read_repeats(listed / "odd.jsonl")
    with pytest.raises(ValueError, match="a list for repeat names texts"):
        source_of(name="a", source="tensors", path="x", repeat="y")
