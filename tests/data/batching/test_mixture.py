"""Mixtures: shares are met, every source is read through before it starts again, and any batch can be made alone."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.data.batching.batches import batches
from gemma4vec.data.batching.epoch_order import epoch_order, shuffled
from gemma4vec.data.batching.mixture import MixedRows, Part, compute_shares, quotas
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.sources import Mixture, source_of
from gemma4vec.text.prompts import Document


def part(name: str, count: int, share: float | None = None) -> Part:
    rows = [
        Row(f"{name}{i}", [Document(f"{j} of {name}{i}") for j in range(3)], group=str(i % 5)) for i in range(count)
    ]
    return Part(name, rows, share)


def mixed(one_source_batches: bool = False) -> MixedRows:
    return MixedRows([part("a", 60, 0.25), part("b", 20, 0.5), part("c", 16, 0.25)], one_source_batches)


def drawn(rows: MixedRows, count: int, start: int = 0, group_rows: int = 1) -> list[list[str]]:
    made = batches(rows, size=8, hard_negatives=0, seed=1, start=start, group_rows=group_rows)
    return [[f"{q}: {p.text}" for q, p in zip(b.queries, b.positives, strict=True)] for b in islice(made, count)]


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(0, 1000))
def test_quotas_sum_up_and_are_within_one(raw: list[float], total: int) -> None:
    shares = [value / sum(raw) for value in raw]
    found = quotas(shares, total)
    assert sum(found) == total
    assert all(abs(count - share * total) < 1 for count, share in zip(found, shares, strict=True))


def test_shares_come_from_weights_or_a_temperature() -> None:
    assert compute_shares([10, 90], [None, None], None) == [None, None]
    assert compute_shares([10, 90], [3, 1], None) == [0.75, 0.25]
    assert compute_shares([10, 90], [None, None], 1.0) == pytest.approx([0.1, 0.9])
    assert compute_shares([16, 256], [None, None], 2.0) == pytest.approx([0.2, 0.8])


def test_an_epoch_has_the_shares_and_passes_follow_each_other() -> None:
    rows = mixed()
    passes: dict[str, Counter[int]] = {"a": Counter(), "b": Counter(), "c": Counter()}
    for epoch in range(5):
        order = epoch_order(rows, size=8, seed=0, epoch=epoch)
        names = [rows.parts[rows.part_of(i)].name for i in order.rows.tolist()]
        assert Counter(names) == {"a": 24, "b": 48, "c": 24}
        for name, row in zip(names, order.rows.tolist(), strict=True):
            passes[name][row] += 1
    assert set(passes["b"].values()) == {12}  # 5 * 48 places for 20 rows
    assert set(passes["a"].values()) == {2} and len(passes["a"]) == 60  # 5 * 24 for 60
    assert set(passes["c"].values()) <= {7, 8}  # 120 for 16


def test_an_upsampled_row_has_another_positive_in_its_next_pass() -> None:
    texts = [text for batch in drawn(MixedRows([part("a", 60, 0.1), part("b", 8, 0.9)]), 8) for text in batch]
    shown = Counter(text.split(":")[0] for text in texts)
    several = [query for query, times in shown.items() if times > 3]
    assert several and any(len({t for t in texts if t.startswith(f"{query}:")}) > 1 for query in several)


@pytest.mark.parametrize("one_source", [False, True])
@pytest.mark.parametrize("group_rows", [1, 4])
def test_any_batch_can_be_made_alone(one_source: bool, group_rows: int) -> None:
    rows = mixed(one_source)
    whole = drawn(rows, 40, group_rows=group_rows)
    for start in (1, 11, 12, 25):
        assert drawn(rows, 3, start, group_rows) == whole[start : start + 3]
    assert whole[:12] != whole[12:24]


def test_batches_of_one_source() -> None:
    whole = drawn(mixed(one_source_batches=True), 24)
    names = [{text[0] for text in batch} for batch in whole]
    assert all(len(one) == 1 for one in names)
    assert Counter(name for one in names for name in one) == {"a": 6, "b": 12, "c": 6}
    with pytest.raises(InputError, match="source 'c' has 7 rows, a batch needs 8"):
        drawn(MixedRows([part("a", 60), part("c", 7)], one_source_batches=True), 1)


def test_sources_without_shares_are_one_list() -> None:
    plain = part("a", 30).rows
    together = MixedRows([Part("x", plain[:10]), Part("y", plain[10:])])
    expected = batches(plain, size=8, hard_negatives=0, seed=1)
    found = batches(together, size=8, hard_negatives=0, seed=1)
    for one, two in islice(zip(expected, found, strict=True), 9):
        assert (one.queries, one.positives) == (two.queries, two.positives)
    assert set(two.sources) <= {"x", "y"} and len(two.sources) == 8


@given(st.lists(st.integers(-1, 4), max_size=40), st.integers(2, 5), st.integers(0, 99))
def test_runs_of_groups_as_a_loop_makes_them(groups: list[int], group_rows: int, seed: int) -> None:
    found = shuffled(len(groups), np.array(groups, dtype=np.int64), np.random.default_rng(seed), group_rows)
    generator = np.random.default_rng(seed)
    members: dict[int, list[int]] = {}
    for index in generator.permutation(len(groups)).tolist():
        members.setdefault(groups[index], []).append(index)
    runs = [m[start : start + group_rows] for m in members.values() for start in range(0, len(m), group_rows)]
    expected = [i for run in generator.permutation(len(runs)).tolist() for i in runs[run]] if groups else []
    assert found.tolist() == expected


RECIPE = """
name: m
stages:
  - data:
      - {{name: a, path: a.jsonl{a}}}
      - {{name: {b_name}, path: b.jsonl{b}}}
    mixture: {{{mixture}}}
    budget: {{steps: 1}}
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"b_name": "a"}, "two sources are named 'a'"),
        ({"a": ", weight: 0", "b": ", weight: 0"}, "weights of a, b sum to zero"),
        ({"a": ", weight: 1"}, "source 'b' has no weight, 'a' has"),
        ({"a": ", weight: 1", "b": ", weight: 1", "mixture": "temperature: 2"}, "source 'a' has a weight"),
        ({"a": ", weight: -1", "b": ", weight: 1"}, r"data\.0\.weight"),
    ],
)
def test_mixtures_that_make_no_sense(words: dict[str, str], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        parse_recipe(RECIPE.format(**({"a": "", "b": "", "b_name": "b", "mixture": ""} | words)), "r")


def test_weights_reach_the_rows(tmp_path: object) -> None:
    from pathlib import Path

    from gemma4vec.data.rows.rows import write_rows

    files = []
    for name, count in (("a", 10), ("b", 30)):
        files.append(Path(str(tmp_path)) / f"{name}.jsonl")
        write_rows(files[-1], part(name, count).rows)
    sources = [source_of(name=f.stem, path=str(f), weight=weight) for f, weight in zip(files, (3, 1), strict=True)]
    assert [p.share for p in load_sources(sources).rows.parts] == [0.75, 0.25]
    plain = [source.model_copy(update={"weight": None}) for source in sources]
    warm = load_sources(plain, Mixture(temperature=2.0, one_source_batches=True)).rows
    assert warm.one_source_batches and warm.parts[0].share == pytest.approx(10**0.5 / (10**0.5 + 30**0.5))
