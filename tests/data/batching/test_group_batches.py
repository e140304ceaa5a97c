"""Batches whose rows come from few groups: harder in-batch negatives, and still every row once an epoch."""

from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.data.batching.batches import batches
from gemma4vec.data.rows.rows import Row
from gemma4vec.text.prompts import Document


def parse_rows(sizes: list[int]) -> list[Row]:
    return [
        Row(f"q{group}-{i}", [Document(f"d{group}-{i}")], group=f"g{group}")
        for group, size in enumerate(sizes)
        for i in range(size)
    ]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(2, 9), st.integers(0, 3))
def test_every_row_comes_once_an_epoch(sizes: list[int], group_rows: int, seed: int) -> None:
    rows = parse_rows(sizes)
    drawn = islice(batches(rows, size=1, hard_negatives=0, seed=seed, group_rows=group_rows), len(rows))
    assert sorted(batch.queries[0] for batch in drawn) == sorted(row.query for row in rows)


def test_a_batch_holds_runs_of_one_group() -> None:
    rows = parse_rows([64] * 10)
    group_of = {row.query: row.group for row in rows}
    for batch in islice(batches(rows, size=32, hard_negatives=0, seed=1, group_rows=8), 20):
        groups = Counter(group_of[query] for query in batch.queries)
        assert all(count % 8 == 0 for count in groups.values())
    mixed = next(batches(rows, size=32, hard_negatives=0, seed=1))
    assert len(Counter(group_of[query] for query in mixed.queries)) > 5


def test_any_start_gives_the_same_batches() -> None:
    rows = parse_rows([20, 33, 11])
    settings = {"size": 16, "hard_negatives": 0, "seed": 2, "group_rows": 4}
    whole = list(islice(batches(rows, **settings), 12))
    assert list(islice(batches(rows, start=7, **settings), 5)) == whole[7:]
