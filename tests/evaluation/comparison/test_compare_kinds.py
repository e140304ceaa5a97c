"""Two models compared on every kind of task."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare_seeds import ResultGroup
from gemma4vec.evaluation.comparison.corrected import compare_groups
from gemma4vec.evaluation.comparison.paired import _compare_uncorrected
from gemma4vec.evaluation.results.result import Result
from gemma4vec.evaluation.results.task_scores import task_scores
from gemma4vec.statistics.correlation import pair_metric_difference, pair_metric_interval, spearman_difference

SETTINGS = {"suite": {"fingerprint": "x"}, "model": {}}


def sts(noise: float, tasks=("a",), seed=0, n=120, kind="sts") -> Result:
    gold = np.random.default_rng(5).integers(0, 6 if kind == "sts" else 2, (len(tasks), n)).astype(float)
    values = gold + np.random.default_rng(seed).normal(0, noise, gold.shape)
    items = {
        task: {f"p{i}": {"similarity": float(values[t, i]), "gold": float(gold[t, i])} for i in range(n)}
        for t, task in enumerate(tasks)
    }
    return Result(f"noise-{noise}", "pairs", items, {**SETTINGS, "kind": kind, "model_fingerprint": str(noise)})


def loss(shift: float) -> Result:
    values = np.random.default_rng(0).normal(1, 0.2, 60)
    other = np.random.default_rng(1).normal(shift, 0.1, 60)
    items = {"rows": {str(i): {"loss": float(values[i] + (other[i] if shift else 0))} for i in range(60)}}
    return Result(f"loss+{shift}", "rows", items, {**SETTINGS, "kind": "loss", "model_fingerprint": str(shift)})


def test_spearman_is_compared_by_its_own_test():
    good, poor = sts(0.5), sts(3.0, seed=1)
    found = _compare_uncorrected(good, poor)
    assert (found.metric, found.verdict.word, found.wins > found.losses) == ("spearman", "better", True)
    gold = [one["gold"] for one in good.per_query["a"].values()]
    values = [[one["similarity"] for one in side.per_query["a"].values()] for side in (good, poor)]
    alone = spearman_difference(*values, gold)
    assert (found.difference, found.test.p) == (alone.difference, alone.p)
    assert (found.interval.low, found.interval.high) == (alone.low, alone.high)
    assert found.mean_a - found.mean_b == pytest.approx(found.difference)
    assert 0.0 < found.smallest_detectable < found.difference
    assert _compare_uncorrected(poor, good).verdict.word == "worse"
    assert _compare_uncorrected(good, good).verdict.word == "undetermined"


def test_margins_hold_for_figures_too():
    good, same = sts(0.5), sts(0.5, seed=7)
    found = _compare_uncorrected(good, same, margin=0.2, no_worse_than=0.2)
    assert found.verdict.word == "equivalent" and found.no_worse.shown
    assert not _compare_uncorrected(sts(3.0), good, no_worse_than=0.01).no_worse.shown


def test_several_tasks_are_averaged_and_resampled_within():
    good, poor = sts(0.5, ("a", "b")), sts(3.0, ("a", "b"), seed=1)
    found = _compare_uncorrected(good, poor)
    assert found.difference == pytest.approx(good.mean["spearman"] - poor.mean["spearman"])
    assert found.test.n == 240 and found.verdict.word == "better"


def test_average_precision_of_pairs_equals_scikit_learns():
    good, poor = sts(0.5, kind="pair-classification"), sts(3.0, seed=1, kind="pair-classification")
    for result in (good, poor):
        items = result.per_query["a"]
        expected = average_precision_score(
            [one["gold"] for one in items.values()], [round(one["similarity"], 1) for one in items.values()]
        )
        rounded = {key: {**one, "similarity": round(one["similarity"], 1)} for key, one in items.items()}
        assert task_scores("pair-classification", rounded)["ap"] == pytest.approx(expected, abs=1e-12)
    assert (_compare_uncorrected(good, poor).metric, _compare_uncorrected(good, poor).verdict.word) == ("ap", "better")


def test_of_a_loss_less_is_better():
    low, high = loss(0.0), loss(0.3)
    found = _compare_uncorrected(low, high, no_worse_than=0.1)
    assert found.difference < 0 and found.verdict.word == "better" and found.no_worse.shown
    assert _compare_uncorrected(high, low).verdict.word == "worse"
    sides = ResultGroup([high], [None]), ResultGroup([low], [None])
    assert compare_groups([sides]).comparisons[0].verdict.word == "worse"


def test_results_of_different_kinds_are_not_compared():
    with pytest.raises(InputError, match="not the same queries"):
        _compare_uncorrected(
            sts(0.5), replace(loss(0.0), settings={**loss(0.0).settings, "suite": {"fingerprint": "y"}})
        )


def test_runs_of_one_side_have_no_mean_of_a_figure():
    runs = []
    for number, noise in enumerate((0.5, 0.6)):
        one = sts(noise)
        one.settings["run"] = {"run_id": str(number), "recipe_id": "r"}
        runs.append(one)
    with pytest.raises(InputError, match="one figure of all pairs"):
        compare_groups([(ResultGroup(runs, [0, 1]), ResultGroup([sts(3.0)], [None]))])


def test_under_the_null_figures_reject_as_often_as_they_say():
    generator, rejected, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        gold = generator.integers(0, 2, 40).astype(float)
        a, b = (gold + generator.normal(0, 1.5, 40) for _ in range(2))
        rejected += pair_metric_difference("ap", [(a, b, gold)], resamples=200).p < 0.05
    assert rejected / trials < 0.09


def test_an_interval_of_equal_similarities_says_nothing():
    assert pair_metric_interval("spearman", [(np.ones(8), np.arange(8.0))]).method == "degenerate"
