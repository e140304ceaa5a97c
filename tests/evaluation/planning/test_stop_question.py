"""The stop rule on results: the slow way, query by query, says the same."""

import numpy as np
import pytest
from scipy import stats

from gemma4vec.errors import WorkError
from gemma4vec.evaluation.planning.stop_question import StopQuestion, forecast_stop_rule
from gemma4vec.evaluation.results.result import Result
from gemma4vec.recipe.stop_rule import StopRule


def result(suite: str, values: dict[str, float]) -> Result:
    return Result("m", suite, {suite: {key: {"ndcg@10": value} for key, value in values.items()}})


def random_pair(seed: int, queries: int = 40) -> tuple[Result, Result]:
    random = np.random.default_rng(seed)
    names = [f"q{i}" for i in range(queries)]
    ours = dict(zip(names, random.uniform(0, 1, queries).tolist(), strict=True))
    theirs = {name: ours[name] + random.normal(0.05, 0.1) for name in reversed(names)}  # in another order
    return result(f"s{seed}", ours), result(f"s{seed}", theirs)


def test_it_judges_paired_differences_with_shared_confidence() -> None:
    ours, theirs = random_pair(1)
    found = StopQuestion("ndcg@10", -0.01, looks=4).answer([ours], [theirs]).decision
    a, b = ours.per_query["s1"], theirs.per_query["s1"]
    differences = [a[key]["ndcg@10"] - b[key]["ndcg@10"] for key in a]
    low, high = stats.t.interval(1 - 0.05 / 4, 39, np.mean(differences), stats.sem(differences))
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=1e-12)
    assert found.looks == 4 and found.stop == (high < -0.01)


def test_several_suites_count_alike() -> None:
    (a, b), (c, d) = random_pair(1, 40), random_pair(2, 10)
    found = StopQuestion("ndcg@10", 0.0).answer([a, c], [b, d])
    means = [
        np.mean([mine["ndcg@10"] - y.per_query[y.suite][key]["ndcg@10"] for key, mine in x.per_query[x.suite].items()])
        for x, y in ((a, b), (c, d))
    ]
    assert found.decision.interval.mean == pytest.approx(np.mean(means)) == found.score - found.reference


def test_other_queries_are_refused() -> None:
    (a, _), (_, b) = random_pair(1, 40), random_pair(1, 30)
    with pytest.raises(WorkError, match="different queries"):
        StopQuestion("ndcg@10", 0.0).answer([a], [b])


def test_the_forecast_is_the_power_of_the_rule() -> None:
    """Four out of five models that truly lie at `stopped_below` are stopped at a look."""
    rule = StopRule(reference="run", smallest_effect=0.02, at_shares=(0.25, 0.5, 0.75))
    said = forecast_stop_rule(rule, "s", "contents", 100)
    assert said.stopped_below == pytest.approx(0.02 - said.detectable)
    random, trials, stopped = np.random.default_rng(0), 600, 0
    zeros = result("s", {f"q{i}": 0.0 for i in range(100)})
    for _ in range(trials):
        drawn = random.normal(said.stopped_below, 0.1, 100)
        ours = result("s", {f"q{i}": float(value) for i, value in enumerate(drawn)})
        stopped += StopQuestion.of_rule(rule).answer([ours], [zeros]).stop
    assert stats.binom.ppf(0.001, trials, 0.8) <= stopped <= stats.binom.ppf(0.999, trials, 0.8)


def test_it_says_where_it_will_be_blind() -> None:
    rule = StopRule(reference="bm25", smallest_effect=0.01, at_steps=(5,))
    few, many = forecast_stop_rule(rule, "s", "c", 50).sentence(), forecast_stop_rule(rule, "s", "c", 50_000).sentence()
    assert "a model that equals the reference will mostly not be stopped" in few
    assert "mostly not be stopped" not in many
    assert "smallest useful effect +0.01, 1 look at step 5 (95% confidence)" in few
