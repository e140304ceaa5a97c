"""The prefix-filtered join against a comparison of all pairs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.data.pycode.near_duplicates import find_near_pairs, function_tokens, keep_first

sets = st.lists(st.frozensets(st.sampled_from("abcdefghij"), max_size=10), max_size=14)


def jaccard(one, other):
    return len(one & other) / len(one | other)


@given(sets, st.sampled_from([0.5, 0.75, 0.8, 1.0]))
def test_the_join_is_exact(token_sets, threshold):
    expected = []
    for j, later in enumerate(token_sets):
        for i, earlier in enumerate(token_sets[:j]):
            if later and earlier and jaccard(earlier, later) >= threshold and earlier not in token_sets[:i]:
                expected.append((i, j))
    assert sorted(map(tuple, find_near_pairs(token_sets, threshold).tolist())) == sorted(expected)


@given(sets)
def test_what_is_kept_has_no_near_duplicate_and_what_is_dropped_has_one(token_sets):
    kept = keep_first(find_near_pairs(token_sets), len(token_sets))
    for j, later in enumerate(token_sets):
        near = [i for i in range(j) if kept[i] and later and token_sets[i] and jaccard(token_sets[i], later) >= 0.8]
        assert bool(near) == (not kept[j])


def test_join_over_more_rows_than_a_block(monkeypatch):
    monkeypatch.setattr("gemma4vec.data.pycode.near_duplicates.BLOCK", 3)
    token_sets = [
        frozenset(f"{number // 2}{letter}" for letter in "abcdefghij") | {f"only{number}"} for number in range(20)
    ]
    assert find_near_pairs(token_sets).tolist() == [[number, number + 1] for number in range(0, 20, 2)]


def test_nothing_gives_no_pairs():
    assert find_near_pairs([]).shape == find_near_pairs([frozenset()] * 3).shape == (0, 2)
    assert keep_first(np.empty((0, 2), dtype=np.int64), 2).tolist() == [True, True]


def test_function_tokens_ignore_layout_and_keywords():
    one = function_tokens("def f(a):\n    return a + 0x1F")
    assert one == function_tokens("def f( a ):  return 0x1F+a") == {"f", "a", "0x1F"}
