"""No query and no positive twice in a batch, and nothing else changes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4vec.data.batching import spread_duplicates
from gemma4vec.data.batching.batches import batches
from gemma4vec.data.batching.epoch_order import Epoch, epoch_order
from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.batching.spread_duplicates import DuplicateSpreader
from gemma4vec.data.rows.row_store import write_store
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.sources.tensor_rows import TensorRows, check_tensors
from gemma4vec.text.prompts import Document


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


def plain(order: Epoch, rows: Sequence[Row], size: int, window: int) -> Epoch:
    """The same by the texts themselves, looking at one place after the other."""
    numbers, passes = order.rows.tolist(), order.passes.tolist()

    def texts(row: Row) -> set[str]:
        positives = (" ".join(f"{d.title or ''} {d.text}".lower().split()) for d in row.pos)
        return {"q " + " ".join(row.query.lower().split()), *(f"p {one}" for one in positives)}

    def unit(number: int) -> tuple[object, ...]:
        if not isinstance(rows, MixedRows):
            return ()
        part = rows.part_of(number) if rows.one_source_batches else 0
        return part, rows[number].task if rows.one_task_batches else None

    for start in range(0, len(numbers) - size + 1, size):
        for place in range(start, start + size):
            others = [texts(rows[numbers[at]]) for at in range(start, start + size) if at != place]
            if not set().union(*others[: place - start]) & texts(rows[numbers[place]]):
                continue
            for later in range(start + size, min(start + size + window, len(numbers))):
                free = not set().union(*others) & texts(rows[numbers[later]])
                if free and unit(numbers[later]) == unit(numbers[place]):
                    for column in (numbers, passes):
                        column[place], column[later] = column[later], column[place]
                    break
    return Epoch(np.array(numbers), np.array(passes))


def same(one: Epoch, other: Epoch) -> bool:
    return one.rows.tolist() == other.rows.tolist() and one.passes.tolist() == other.passes.tolist()


def test_equal_texts_stand_in_different_batches() -> None:
    rows = [row(n % 10, n) for n in range(40)] + [row(100 + n, 200 + n % 8) for n in range(24)]
    together = [n for k in range(10) for n in range(k, 40, 10)] + list(range(40, 64))  # equal queries side by side
    order = Epoch(np.array(together), np.zeros(64, dtype=np.int64))
    found = DuplicateSpreader(rows).spread(order, 8)
    assert sorted(found.rows.tolist()) == list(range(64))

    def whole(epoch: Epoch) -> int:
        return sum(repeats([rows[i] for i in epoch.rows[at : at + 8]]) for at in range(0, 64, 8))

    assert whole(order) > 20 and whole(found) <= 2  # the last batch may find nobody to change with


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=40), st.integers(2, 6))
def test_every_row_stays_with_its_pass_and_no_batch_has_more_repeats(texts: list[tuple[int, int]], size: int) -> None:
    rows = [row(*pair) for pair in texts]
    order = Epoch(np.arange(len(rows)), np.arange(len(rows)) % 3)
    found = DuplicateSpreader(rows).spread(order, size)
    assert Counter(zip(found.rows.tolist(), found.passes.tolist(), strict=True)) == Counter(
        zip(order.rows.tolist(), order.passes.tolist(), strict=True)
    )
    first = slice(0, size)
    kept, spread = ([rows[i] for i in epoch.rows[first]] for epoch in (order, found))
    assert repeats(spread) <= repeats(kept)


def test_batches_of_one_source_stay_so_and_the_same_number_is_the_same_batch() -> None:
    parts = [Part("a", [row(n % 4, n) for n in range(16)]), Part("b", [row(n % 4, 50 + n) for n in range(16)])]
    rows = MixedRows(parts, one_source_batches=True)

    def drawn(start: int, no_duplicates: bool) -> list[list[str]]:
        endless = batches(rows, size=4, hard_negatives=0, seed=1, start=start, no_duplicates=no_duplicates)
        found = [next(endless) for _ in range(8 - start)]
        assert all(len(set(batch.sources)) == 1 for batch in found)
        return [batch.queries for batch in found]

    apart, plain = drawn(0, True), drawn(0, False)
    assert drawn(3, True) == apart[3:]
    assert sum(4 - len(set(queries)) for queries in apart) < sum(4 - len(set(queries)) for queries in plain)


few = st.integers(0, 5)
told_rows = st.tuples(few, st.lists(few, min_size=1, max_size=2), st.sampled_from("ab"))
mixings = st.sampled_from(["plain", "source", "task", "both", "shares"])


@settings(deadline=None)
@given(st.lists(told_rows, min_size=4, max_size=60), st.integers(2, 6), mixings, st.integers(1, 60))
def test_hashes_and_kinds_give_what_a_look_at_every_text_gives(
    told: list[tuple[int, list[int], str]], size: int, mixing: str, window: int
) -> None:
    made = [
        Row(f"Q {query}", [Document(f"t {p}", "title" if p else None) for p in pos], task=t) for query, pos, t in told
    ]
    half = len(made) // 2
    shares = (0.9, 0.1) if mixing == "shares" else (None, None)  # the first one's rows come several times
    parts = [Part("x", made[:half], shares[0]), Part("y", made[half:], shares[1])]
    rows = MixedRows(parts, mixing in ("source", "both"), mixing in ("task", "both"))
    if mixing in ("plain", "shares"):
        order = epoch_order(rows, size=size, seed=0, epoch=1)
    else:  # as if the order had been made of batches of a unit
        order = Epoch(np.arange(len(made)), np.zeros(len(made), dtype=np.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spread_duplicates, "WINDOW", window)
        assert same(DuplicateSpreader(rows).spread(order, size), plain(order, rows, size, window))


def test_rows_on_disk_and_tensors_are_spread_as_those_in_memory(tmp_path: Path) -> None:
    made = [row(n % 7, n % 5) for n in range(40)] + [row(100 + n, *range(n % 3)) for n in range(20)]
    ids = torch.randint(3, 6, (30, 3), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::2, 0] = 0
    torch.save({"input_ids": ids, "attention_mask": mask}, tmp_path / "t.pt")
    tensors = TensorRows(tmp_path / "t.pt", check_tensors(tmp_path / "t.pt", "x"), pair_with_itself=True)
    parts = [Part("s", write_store(tmp_path / "s", made, {})), Part("t", tensors)]
    in_memory = MixedRows([Part(part.name, list(part.rows)) for part in parts])
    order = epoch_order(in_memory, size=8, seed=3, epoch=0)
    found = DuplicateSpreader(MixedRows(parts)).spread(order, 8)
    assert same(found, plain(order, in_memory, 8, spread_duplicates.WINDOW)) and not same(found, order)
    fewer = write_store(tmp_path / "s", made, {}).first(33)
    order = epoch_order(fewer, size=8, seed=3, epoch=0)
    assert same(DuplicateSpreader(fewer).spread(order, 8), plain(order, made[:33], 8, spread_duplicates.WINDOW))


def test_two_labels_for_all_rows_are_given_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(spread_duplicates._Later, "_look", lambda self: looks.append(self) or None)
    rows = [row(n, n % 2) for n in range(400)]
    order = Epoch(np.arange(400), np.zeros(400, dtype=np.int64))
    assert same(DuplicateSpreader(rows).spread(order, 8), order) and not looks
