"""Comparing two results: the figures, and when it refuses."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.paired import _compare_uncorrected
from gemma4vec.evaluation.results.result import Result


def result(values: list[float], name: str = "m", **settings: Any) -> Result:
    scores = {f"q{row}": {"ndcg@10": value, "map": value / 2} for row, value in enumerate(values)}
    return Result(name, "suite", {"suite": scores}, settings)


BASE = np.random.default_rng(1).uniform(0.2, 0.6, 60)
HIGHER = (BASE + np.random.default_rng(2).normal(0.1, 0.05, 60)).tolist()


def test_a_minus_b_and_its_mirror_image() -> None:
    found = _compare_uncorrected(result(HIGHER, "new"), result(BASE.tolist(), "old"))
    assert found.difference == pytest.approx(np.mean(HIGHER) - BASE.mean())
    assert found.interval.low < found.difference < found.interval.high
    assert found.verdict.word == "better"
    gain = f"new is better than old by {found.difference:.4f} on suite: ndcg@10 {found.mean_a:.4f} against "
    assert found.sentence().startswith(gain) and f"difference A - B {found.difference:+.4f};" in found.sentence()
    mirrored = _compare_uncorrected(result(BASE.tolist(), "old"), result(HIGHER, "new"))
    assert mirrored.difference == pytest.approx(-found.difference)
    assert mirrored.verdict.word == "worse"
    assert mirrored.sentence().startswith(gain)  # the better one is named first, whichever side it is
    assert f"difference A - B {mirrored.difference:+.4f};" in mirrored.sentence()
    assert mirrored.test.p == found.test.p


def test_wins_losses_and_the_largest_of_each() -> None:
    b = [0.5] * 8
    a = [0.5, 0.9, 0.6, 0.1, 0.5, 0.7, 0.4, 0.5]
    found = _compare_uncorrected(result(a), result(b))
    assert (found.wins, found.losses, found.ties) == (3, 2, 3)
    assert [query.query_id for query in found.largest_wins] == ["q1", "q5", "q2"]
    assert [query.query_id for query in found.largest_losses] == ["q3", "q6"]
    assert found.largest_losses[0].difference == pytest.approx(-0.4)


def test_another_metric_and_one_that_is_missing() -> None:
    found = _compare_uncorrected(result(HIGHER), result(BASE.tolist()), "map")
    assert found.difference == pytest.approx((np.mean(HIGHER) - BASE.mean()) / 2)
    with pytest.raises(InputError, match=r"no metric 'mrr@10'; it has ndcg@10, map"):
        _compare_uncorrected(result(HIGHER), result(BASE.tolist()), "mrr@10")


def test_the_margin_allows_equivalent() -> None:
    close = (BASE + np.random.default_rng(3).normal(0.0, 0.005, 60)).tolist()
    assert _compare_uncorrected(result(close), result(BASE.tolist())).verdict.word == "undetermined"
    assert _compare_uncorrected(result(close), result(BASE.tolist()), margin=0.01).verdict.word == "equivalent"


def test_tasks_count_the_same() -> None:
    def two_tasks(large: float, small: float) -> Result:
        many = {f"q{row}": {"ndcg@10": large} for row in range(90)}
        few = {f"q{row}": {"ndcg@10": small} for row in range(10)}
        return Result("m", "suite", {"large": many, "small": few})

    found = _compare_uncorrected(two_tasks(0.6, 0.2), two_tasks(0.5, 0.4))
    assert found.difference == pytest.approx((0.1 - 0.2) / 2)
    assert found.mean_a == pytest.approx(0.4)


def test_other_queries_are_refused() -> None:
    with pytest.raises(InputError, match=r"0 only in A, 1 only in B \(first: 'q2' of suite\)"):
        _compare_uncorrected(result([0.1, 0.2]), result([0.1, 0.2, 0.3]))


def test_other_contents_of_a_suite_of_the_same_name_are_refused() -> None:
    a, b = (result([0.1, 0.2], suite={"fingerprint": mark}) for mark in ("aaaa", "bbbb"))
    with pytest.raises(InputError, match="not the same queries, documents and judgments"):
        _compare_uncorrected(a, b)
    _compare_uncorrected(a, replace(b, settings=a.settings))


def test_other_truncation_limits_are_refused_unless_allowed() -> None:
    a = result(HIGHER, "long", model={"max_tokens": {"query": 64, "document": 512}, "dtype": "fp32"})
    b = result(BASE.tolist(), "short", model={"max_tokens": {"query": 64, "document": 256}, "dtype": "bf16"})
    with pytest.raises(InputError, match=r"max_tokens\.document 512 and short with 256.*--allow-different-settings"):
        _compare_uncorrected(a, b)
    found = _compare_uncorrected(a, b, allow_different_settings=True)
    assert found.differing_settings == {"max_tokens.document": (512, 256), "dtype": ("fp32", "bf16")}


def test_a_model_without_limits_compares_with_any() -> None:
    a = result(HIGHER, "new", model={"max_tokens": 256})
    b = result(BASE.tolist(), "bm25", model={"k1": 0.9})
    assert _compare_uncorrected(a, b).differing_settings == {}


def test_everything_is_json() -> None:
    plain = _compare_uncorrected(result(HIGHER, "new"), result(BASE.tolist(), "old")).as_dict()
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert again["direction"] == "A - B"
    assert again["verdict"]["word"] == "better"
    assert again["largest_wins"][0].keys() == {"task", "query_id", "a", "b", "difference"}
    assert again["test"]["p"] == plain["test"]["p"]


def test_one_query_says_that_it_cannot_know() -> None:
    found = _compare_uncorrected(result([0.9]), result([0.1]))
    assert found.verdict.word == "undetermined"
    assert "1 query cannot reach" in found.verdict.reason
