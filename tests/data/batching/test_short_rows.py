"""The few rows with too few hard negatives are left out and counted; where they are many, all stay to be refused."""

from pathlib import Path

import numpy as np
import pytest

from gemma4vec.data.batching.batches import check_rows
from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.batching.short_rows import SelectedRows, leave_out_short_rows
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.rows.lazy_rows import as_lazy_rows
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import source_of
from gemma4vec.text.prompts import Document


def row(number: int, negatives: int) -> Row:
    found = [Document(f"negative {n} of {number}") for n in range(negatives)]
    return Row(f"query {number}", [Document(f"positive {number}")], found, task=f"task {number % 3}")


ROWS = [row(number, 1 if number in (3, 17) else 2) for number in range(30)]


def test_short_rows_are_left_out_of_their_source() -> None:
    bare = [row(number, 0) for number in range(30, 35)]
    mixed = MixedRows([Part("good", ROWS, 0.5), Part("bare", bare, 0.5)], one_task_batches=True)
    found, left_out = leave_out_short_rows(mixed, 2)
    assert left_out == {"good": 2}
    assert list(found) == [*(row for row in ROWS if len(row.neg) == 2), *bare]
    assert [(part.name, part.share) for part in found.parts] == [
        ("good", 0.5),
        ("bare", 0.5),
    ] and found.one_task_batches
    with pytest.raises(
        InputError, match=r"^x\.task\.hard_negatives: 2 asked for, 5 of 33 rows have fewer, first row 29"
    ):
        check_rows(found, size=2, hard_negatives=2, where="x.")
    assert leave_out_short_rows(mixed, 0) == (mixed, {}) and leave_out_short_rows(mixed, 1)[1] == {}


def test_a_tenth_is_left_out_and_more_is_not() -> None:
    for short, expected in ((3, {"r": 3}), (4, {})):
        rows = [row(number, 0 if number < short else 2) for number in range(30)]
        found, left_out = leave_out_short_rows(MixedRows([Part("r", rows)]), 2)
        assert left_out == expected and len(found) == 30 - sum(expected.values())


def test_selected_rows_answer_as_the_same_rows_in_memory() -> None:
    places = np.array([1, 4, 7, 28])
    selected = SelectedRows(as_lazy_rows(ROWS), places)
    plain = as_lazy_rows([ROWS[place] for place in places])
    assert selected == plain and [one.query for one in selected[1:3]] == ["query 4", "query 7"]
    for method in ("positive_counts", "negative_counts", "has_scores"):
        assert getattr(selected, method)().tolist() == getattr(plain, method)().tolist()
    assert selected.names("task").names == plain.names("task").names == ["task 1"]
    assert selected.names("task").numbers_R.tolist() == [0, 0, 0, 0]
    assert selected.names("group").numbers_R.tolist() == [-1, -1, -1, -1]
    for ours, theirs in zip(selected.text_hashes(), plain.text_hashes(), strict=True):
        assert ours.tolist() == theirs.tolist()


def test_loading_counts_and_says_it(tmp_path: Path, log_lines: list[str]) -> None:
    write_rows(tmp_path / "rows.jsonl", ROWS)
    source = source_of(name="mine", path=str(tmp_path / "rows.jsonl"))
    loaded = load_sources([source], hard_negatives=2)
    assert len(loaded.rows) == 28 and loaded.sources["mine"]["rows"] == 30 and loaded.sources["mine"]["left_out"] == 2
    assert log_lines[-1] == "mine: 2 of 30 rows have fewer than 2 hard negatives and are left out"
    plain = load_sources([source])
    assert len(plain.rows) == 30 and "left_out" not in plain.sources["mine"]
    assert plain.sources["mine"]["content_hash"] == loaded.sources["mine"]["content_hash"]  # of the file
