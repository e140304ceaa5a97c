"""Batches of near rows: those of one cluster lie together, and each epoch has the rows that it has without clusters."""

from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4vec.data.batching.batches import batches, numbered_batches
from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.batching.near_rows import ClusterWindow, order_by_cluster, reached_rows
from gemma4vec.data.rows.rows import Row
from gemma4vec.text.prompts import Document

SIZE = 16


def rows_of(counts: dict[str, int], shares: dict[str, float] | None = None, **kinds: bool) -> MixedRows:
    parts = [
        Part(
            name,
            [Row(f"{name}{n}", [Document(f"text of {name}{n}")], task=f"t{n % 2}") for n in range(count)],
            (shares or {}).get(name),
        )
        for name, count in counts.items()
    ]
    return MixedRows(parts, **kinds)


def labels_of(rows: MixedRows, clusters: int = 5) -> np.ndarray:
    return np.random.default_rng(9).integers(0, clusters, len(rows)).astype(np.int32)


def drawn(
    rows: MixedRows, count: int, near: ClusterWindow | None, start: int = 0, seed: int = 1, no_duplicates: bool = False
) -> list[list[int]]:
    made = numbered_batches(rows, size=SIZE, seed=seed, start=start, near=near, no_duplicates=no_duplicates)
    return [numbers for numbers, _, _ in islice(made, count)]


def flat(found: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(found))


MIXTURES = {
    "one source": rows_of({"a": 200}),
    "several": rows_of({"a": 90, "b": 110}),
    "shares": rows_of({"a": 150, "b": 60}, {"a": 0.3, "b": 0.7}),
    "one source a batch": rows_of({"a": 90, "b": 110}, one_source_batches=True),
    "one task a batch": rows_of({"a": 90, "b": 110}, one_task_batches=True),
    "both": rows_of({"a": 150, "b": 90}, {"a": 0.5, "b": 0.5}, one_source_batches=True, one_task_batches=True),
}


@pytest.mark.parametrize("kind", MIXTURES)
@pytest.mark.parametrize("epoch", [0, 2])
def test_an_epoch_has_the_rows_that_it_has_without_clusters(kind: str, epoch: int) -> None:
    rows = MIXTURES[kind]
    per_epoch = len(rows) // SIZE
    near = ClusterWindow(0, None, labels_of(rows), 4)
    found = drawn(rows, per_epoch, near, epoch * per_epoch)
    plain = drawn(rows, per_epoch, None, epoch * per_epoch)
    assert found != plain
    assert Counter(flat(found)) == Counter(flat(plain))
    if kind == "one source":
        assert max(Counter(flat(found)).values()) == 1
    if rows.one_source_batches or rows.one_task_batches:
        for one, other in zip(found, plain, strict=True):  # a batch of a source or task remains one
            assert {rows.part_of(n) for n in one} == {rows.part_of(n) for n in other} or not rows.one_source_batches
            assert {rows[n].task for n in one} == {rows[n].task for n in other} or not rows.one_task_batches


@pytest.mark.parametrize("kind", ["one source", "shares", "one source a batch"])
def test_a_batch_has_whole_runs_of_planted_clusters(kind: str) -> None:
    rows = MIXTURES[kind]
    labels = labels_of(rows)
    found = drawn(rows, len(rows) // SIZE, ClusterWindow(0, None, labels, 4))
    groups = [labels[batch[at : at + 4]] for batch in found for at in range(0, SIZE, 4)]
    pure = [len(set(one.tolist())) == 1 for one in groups]
    units = 2 if kind == "one source a batch" else 1
    assert sum(pure) >= len(pure) - units * (5 * 3 // 4 + 1)  # what is left of five clusters: at most 3 rows of each
    assert len({tuple(sorted(set(labels[batch].tolist()))) for batch in found}) > 1


def test_what_is_left_of_a_cluster_goes_with_its_neighbor() -> None:
    labels = np.repeat(np.arange(6, dtype=np.int32), [7, 4, 2, 1, 9, 3])
    found = order_by_cluster(labels, np.zeros(26, np.int64), 4, np.random.default_rng(0))
    groups = sorted(sorted(labels[found[at : at + 4]].tolist()) for at in range(0, 24, 4))
    assert groups == [[0, 0, 0, 0], [0, 0, 0, 2], [1, 1, 1, 1], [2, 3, 4, 5], [4, 4, 4, 4], [4, 4, 4, 4]]
    assert labels[found[24:]].tolist() == [5, 5]


@settings(deadline=None)
@given(st.lists(st.integers(-1, 6), max_size=60), st.integers(2, 7), st.integers(0, 99))
def test_runs_have_every_place_once(labels: list[int], group_rows: int, seed: int) -> None:
    of = np.array(labels, dtype=np.int32)
    found = order_by_cluster(of, np.zeros(len(of), np.int64), group_rows, np.random.default_rng(seed))
    assert sorted(found.tolist()) == list(range(len(of)))
    whole = sum(size // group_rows for size in Counter(labels).values())
    groups = [of[found[at : at + group_rows]] for at in range(0, len(of) - group_rows + 1, group_rows)]
    assert sum(len(set(one.tolist())) == 1 for one in groups) >= whole


def test_a_row_of_two_passes_is_not_its_own_neighbor() -> None:
    rows = rows_of({"a": 32, "b": 32}, {"a": 0.9, "b": 0.1})
    found = drawn(rows, 4, ClusterWindow(0, None, np.zeros(64, np.int32), 8))
    groups = [batch[at : at + 8] for batch in found for at in (0, 8)]
    assert sum(len(set(one)) < 8 for one in groups) <= 2


def test_seed_window_and_epoch_make_other_batches_and_nothing_else_does() -> None:
    rows = MIXTURES["one source"]
    labels = labels_of(rows)
    near = ClusterWindow(0, None, labels, 4)
    whole = drawn(rows, 40, near)
    assert drawn(rows, 5, near, 17) == whole[17:22]
    assert drawn(rows, 12, near, seed=2) != whole[:12]
    assert whole[:12] != whole[12:24]
    assert drawn(rows, 12, ClusterWindow(0, None, np.roll(labels, 1), 4)) != whole[:12]


def test_a_window_changes_its_own_batches_alone() -> None:
    rows = MIXTURES["shares"]
    plain = drawn(rows, 39, None)  # three epochs of 13
    found = drawn(rows, 39, ClusterWindow(5, 30, labels_of(rows), 4))
    assert found[:5] == plain[:5] and found[30:] == plain[30:]
    for begin, end in ((5, 13), (13, 26), (26, 30)):
        assert found[begin:end] != plain[begin:end]
        assert Counter(flat(found[begin:end])) == Counter(flat(plain[begin:end]))


@pytest.mark.parametrize(("first", "stop"), [(0, 3), (5, 30), (12, 14), (0, 12)])
def test_reached_rows_are_those_of_the_windows_batches(first: int, stop: int) -> None:
    for rows in MIXTURES.values():
        expected = sorted(set(flat(drawn(rows, stop - first, None, first))))
        assert reached_rows(rows, size=SIZE, seed=1, first=first, stop=stop).tolist() == expected
        assert len(reached_rows(rows, size=SIZE, seed=1, first=first, stop=None)) == len(rows)


def test_equal_texts_leave_batches_of_near_rows() -> None:
    listed = [Row(f"q{n}", [Document(f"p{n // 2}")]) for n in range(160)]  # each positive twice
    labels = np.repeat(np.arange(10, dtype=np.int32), 16)
    near = ClusterWindow(0, None, labels, 8)
    for spread in (False, True):
        made = batches(listed, size=SIZE, hard_negatives=0, seed=0, near=near, no_duplicates=spread)
        whole = list(islice(made, 10))
        twice = sum(len({p.text for p in one.positives}) < SIZE for one in whole)
        assert sorted(q for one in whole for q in one.queries) == sorted(row.query for row in listed)
        assert twice > 5 if not spread else twice <= 1
