"""The stop rule: what it says, and how seldom it stops a branch that is worth its promise."""

import numpy as np
import pytest
from scipy import stats

from gemma4vec.statistics.stopping import should_stop
from gemma4vec.statistics.student import t_interval


def test_it_stops_when_the_best_case_is_too_small() -> None:
    d = np.random.default_rng(1).normal(-0.05, 0.1, 100)
    stop = should_stop(d, 0.01)
    assert stop.stop
    assert "ends below the smallest useful effect of +0.01" in stop.reason
    assert stop.interval.high == t_interval(d).high


def test_it_goes_on_while_a_useful_effect_is_possible() -> None:
    d = np.random.default_rng(2).normal(0.0, 0.3, 20)
    stop = should_stop(d, 0.01)
    assert not stop.stop
    assert "not below" in stop.reason


def test_more_looks_stop_less_easily() -> None:
    d = np.random.default_rng(3).normal(-0.01, 0.1, 50)
    one, ten = should_stop(d, 0.01), should_stop(d, 0.01, looks=10)
    assert ten.interval.high > one.interval.high
    assert ten.interval.confidence == pytest.approx(0.995)
    assert "each of 10 looks" in ten.reason


def test_a_useful_branch_is_seldom_stopped_however_many_checkpoints_it_has() -> None:
    generator, trials, looks = np.random.default_rng(4), 1000, 8
    stopped = 0
    for _ in range(trials):
        # Checkpoints of one branch are alike: half of a query's difference stays.
        stays = generator.normal(0.0, 0.1, 50)
        grid = [0.02 + stays + generator.normal(0.0, 0.1, 50) for _ in range(looks)]
        stopped += any(should_stop(d, 0.02, looks=looks).stop for d in grid)
    assert stopped <= stats.binom.ppf(0.999, trials, 0.025)


def test_no_spread_is_no_reason_to_stop() -> None:
    stop = should_stop(np.zeros(50), 0.01)
    assert not stop.stop
    assert "do not vary" in stop.reason


@pytest.mark.parametrize("keywords", [{"looks": 0}, {"confidence": 1.0}])
def test_unusable_input_is_refused(keywords: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        should_stop([0.1, 0.2], 0.01, **keywords)


def test_a_task_of_one_query_hides_a_spread_that_could_be_the_whole_effect() -> None:
    d = np.append(np.random.default_rng(1).normal(-0.05, 0.01, 100), 0.9)
    tasks = ["large"] * 100 + ["one query"]
    decision = should_stop(d, 0.5, tasks)
    assert not decision.stop and "1 of 2 tasks have one query" in decision.reason
    assert should_stop(d[:100], 0.5, tasks[:100]).stop
