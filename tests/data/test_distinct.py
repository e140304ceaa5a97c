"""No query and no positive twice in a batch, and nothing else changes."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.data.batches import batches
from gemma4vec.data.distinct import spread_duplicates
from gemma4vec.data.mixture import MixedRows, Part
from gemma4vec.data.order import Epoch
from gemma4vec.data.rows import Row
from gemma4vec.model.prompts import Document


def row(query: object, *positives: object) -> Row:
    return Row(f"Query {query}", [Document(f"text  {p}") for p in positives])


def repeats(rows: list[Row]) -> int:
    """How many rows of a batch have a query or a positive that one before them has."""
    seen: set[str] = set()
    found = 0
    for one in rows:
        texts = {one.query.lower(), *("p" + " ".join(d.text.split()) for d in one.pos)}
        found += bool(seen & texts)
        seen |= texts
    return found


def test_equal_texts_stand_in_different_batches() -> None:
    rows = [row(n % 10, n) for n in range(40)] + [row(100 + n, 200 + n % 8) for n in range(24)]
    together = [n for k in range(10) for n in range(k, 40, 10)] + list(range(40, 64))  # equal queries side by side
    order = Epoch(np.array(together), np.zeros(64, dtype=np.int64))
    found = spread_duplicates(order, rows, 8)
    assert sorted(found.rows.tolist()) == list(range(64))

    def whole(epoch: Epoch) -> int:
        return sum(repeats([rows[i] for i in epoch.rows[at : at + 8]]) for at in range(0, 64, 8))

    assert whole(order) > 20 and whole(found) <= 2  # the last batch may find nobody to change with


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=40), st.integers(2, 6))
def test_every_row_stays_with_its_pass_and_no_batch_has_more_repeats(texts: list[tuple[int, int]], size: int) -> None:
    rows = [row(*pair) for pair in texts]
    order = Epoch(np.arange(len(rows)), np.arange(len(rows)) % 3)
    found = spread_duplicates(order, rows, size)
    assert Counter(zip(found.rows.tolist(), found.passes.tolist(), strict=True)) == Counter(
        zip(order.rows.tolist(), order.passes.tolist(), strict=True)
    )
    first = slice(0, size)
    kept, spread = ([rows[i] for i in epoch.rows[first]] for epoch in (order, found))
    assert repeats(spread) <= repeats(kept)


def test_batches_of_one_source_stay_so_and_the_same_number_is_the_same_batch() -> None:
    parts = [Part("a", [row(n % 4, n) for n in range(16)]), Part("b", [row(n % 4, 50 + n) for n in range(16)])]
    rows = MixedRows(parts, one_source_batches=True)

    def drawn(start: int, distinct: bool) -> list[list[str]]:
        endless = batches(rows, size=4, hard_negatives=0, seed=1, start=start, distinct=distinct)
        found = [next(endless) for _ in range(8 - start)]
        assert all(len(set(batch.sources)) == 1 for batch in found)
        return [batch.queries for batch in found]

    apart, plain = drawn(0, True), drawn(0, False)
    assert drawn(3, True) == apart[3:]
    assert sum(4 - len(set(queries)) for queries in apart) < sum(4 - len(set(queries)) for queries in plain)
