"""Batches of one task: every batch of one, every row as often as its source's share says, the same ones every time."""

from collections import Counter
from pathlib import Path

import pytest

from gemma4vec.data.batching.batches import RowBatch, batches
from gemma4vec.data.batching.epoch_order import check_batches
from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.rows.row_store import write_store
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.text.prompts import Document


def part(name: str, tasks: str, share: float | None = None) -> Part:
    """A row for each letter; "-" is no task."""
    rows = [
        Row(f"{name}{n}", [Document("p")], task=None if task == "-" else task, group=str(n % 3))
        for n, task in enumerate(tasks)
    ]
    return Part(name, rows, share)


def drawn(rows: MixedRows, count: int, size: int = 4, start: int = 0, **words: int | bool) -> list[RowBatch]:
    endless = batches(rows, size=size, hard_negatives=0, seed=3, start=start, **words)  # type: ignore[arg-type]
    return [next(endless) for _ in range(count)]


def tasks_in(rows: MixedRows, batch: RowBatch) -> set[str | None]:
    task = {row.query: row.task for row in rows}
    return {task[query] for query in batch.queries}


A, B = "qqss" * 6 + "--" * 4, "ssqq" * 4


@pytest.mark.parametrize("words", [{}, {"group_rows": 2}, {"no_duplicates": True}])
def test_a_batch_is_of_one_task_and_an_epoch_has_every_row_once(words: dict[str, int | bool]) -> None:
    rows = MixedRows([part("a", A), part("b", B)], one_task_batches=True)
    found = drawn(rows, len(rows) // 4, **words)
    kinds = [tasks_in(rows, batch) for batch in found]
    assert all(len(kind) == 1 for kind in kinds)
    assert Counter(next(iter(kind)) for kind in kinds) == {"q": 5, "s": 5, None: 2}
    assert Counter(query for batch in found for query in batch.queries) == Counter(row.query for row in rows)
    assert any(len(set(batch.sources)) == 2 for batch in found)  # a task's rows come from both sources
    assert drawn(rows, 7, start=5, **words) == found[5:]
    mixed = drawn(MixedRows(rows.parts), 12, **words)
    assert any(len(tasks_in(rows, batch)) > 1 for batch in mixed)


def test_of_one_source_and_task_both() -> None:
    rows = MixedRows([part("a", A), part("b", B)], one_source_batches=True, one_task_batches=True)
    for batch in drawn(rows, 24):
        assert len(set(batch.sources)) == 1 and len(tasks_in(rows, batch)) == 1


def test_sources_keep_their_shares_and_stored_rows_give_the_same_batches(tmp_path: Path) -> None:
    parts = [part("a", A, 0.25), part("b", B, 0.75)]
    rows = MixedRows(parts, one_task_batches=True)
    found = drawn(rows, 12 * 4)
    share = Counter(source for batch in found for source in batch.sources)["a"] / (4 * len(found))
    assert share == pytest.approx(0.25, abs=0.05) and all(len(tasks_in(rows, batch)) == 1 for batch in found)
    disk = [Part(one.name, write_store(tmp_path / one.name, one.rows, {}), one.share) for one in parts]
    assert drawn(MixedRows(disk, one_task_batches=True), 48) == found


def test_a_task_with_fewer_rows_than_a_batch_is_refused() -> None:
    few = MixedRows([part("a", "qqqqqsss")], one_task_batches=True)
    with pytest.raises(InputError, match=r"stages\.1\.mixture\.one_task_batches: task 's' has 3 rows, a batch needs 4"):
        check_batches(few, 4, "stages.1.mixture")
    with pytest.raises(InputError, match="task 's' has 3 rows"):
        drawn(few, 1)
    none = MixedRows([part("a", "qqqqq--")], one_task_batches=True)
    with pytest.raises(InputError, match="the set of rows without a task has 2 rows"):
        check_batches(none, 4)
    check_batches(MixedRows([part("a", "qs")]), 4)
