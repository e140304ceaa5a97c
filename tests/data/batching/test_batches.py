"""What a batch holds depends on seed and number alone, so a resumed run sees what it would have seen."""

from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4vec.data.batching.batches import RowBatch, batches
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.text.prompts import Document


def rows(count: int, positives: int = 3, negatives: int = 4) -> list[Row]:
    return [
        Row(
            f"q{i}",
            [Document(f"p{i}.{j}") for j in range(positives)],
            [Document(f"n{i}.{j}") for j in range(negatives)],
        )
        for i in range(count)
    ]


def first(count: int, data: list[Row], **changes: int) -> list[RowBatch]:
    return list(islice(batches(data, **{"size": 4, "hard_negatives": 2, "seed": 0, **changes}), count))


@settings(deadline=None, max_examples=30)
@given(st.integers(4, 30), st.integers(0, 40), st.integers(0, 3))
def test_a_late_start_gives_the_same_batches(count: int, start: int, seed: int) -> None:
    data = rows(count)
    assert first(start + 3, data, seed=seed)[start:] == first(3, data, seed=seed, start=start)


def test_no_row_comes_twice_in_an_epoch_and_orders_differ() -> None:
    found = first(10, rows(22))  # 5 batches an epoch, 2 rows left out
    epochs = [[query for batch in found[at : at + 5] for query in batch.queries] for at in (0, 5)]
    assert [batch.epoch for batch in found] == [0] * 5 + [1] * 5
    assert all(len(set(queries)) == 20 for queries in epochs)
    assert epochs[0] != epochs[1]
    assert {query for batch in first(100, rows(22)) for query in batch.queries} == {f"q{i}" for i in range(22)}


def test_every_text_belongs_to_its_row() -> None:
    for batch in first(12, rows(9)):
        for query, positive, negatives in zip(batch.queries, batch.positives, batch.negatives, strict=True):
            number = query.removeprefix("q")
            assert positive.text.startswith(f"p{number}.")
            assert len({negative.text for negative in negatives}) == 2
            assert all(negative.text.startswith(f"n{number}.") for negative in negatives)


def test_draws_depend_on_seed_epoch_and_row_alone() -> None:
    def draws(found: list[RowBatch]) -> dict[tuple[int, str], tuple]:
        return {
            (batch.epoch, query): (positive, tuple(negatives))
            for batch in found
            for query, positive, negatives in zip(batch.queries, batch.positives, batch.negatives, strict=True)
        }

    # The same rows in batches of another size: other neighbours, the same draws.
    small, large = draws(first(24, rows(24), size=4)), draws(first(12, rows(24), size=8))
    assert small == large and len(small) == 96
    other = draws(first(24, rows(24), size=4, seed=1))
    assert sum(small[key] != other[key] for key in small) > 48
    epochs = [[small[epoch, f"q{i}"] for i in range(24)] for epoch in range(4)]
    assert all(a != b for a, b in pairwise(epochs))
    # Every positive is drawn at some time.
    assert {positive.text[-1] for positive, _ in small.values()} == {"0", "1", "2"}


def test_too_few_rows_or_negatives_name_the_key() -> None:
    with pytest.raises(InputError, match=r"batch\.rows: 4 rows asked for, the data has 3; use a smaller batch"):
        first(1, rows(3))
    data = rows(8)
    data[5] = Row("why?", [Document("because")], [Document("no")])
    with pytest.raises(
        InputError, match=r"^task\.hard_negatives: 2 asked for, 1 of 8 rows .* row 6 \('why\?'\) with 1;"
    ):
        first(1, data)
    assert first(1, data, hard_negatives=0)[0].negatives == [[], [], [], []]
