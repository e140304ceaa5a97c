"""Every way to a verdict, and that it is no more than the evidence."""

import numpy as np
import pytest

from gemma4vec.statistics.bootstrap import Interval, Method, mean_interval
from gemma4vec.statistics.equivalence import equivalence_test, non_inferiority_test
from gemma4vec.statistics.multiplicity import adjust
from gemma4vec.statistics.paired import SignFlip, sign_flip_test
from gemma4vec.statistics.seeds import SeedInterval, seed_interval
from gemma4vec.statistics.student import t_interval
from gemma4vec.statistics.verdict import Verdict, decide, evidence, format_p


def verdict_of(differences: np.ndarray, margin: float | None = None) -> Verdict:
    return decide(sign_flip_test(differences), mean_interval(differences), margin=margin)


def made(
    mean: float, low: float, high: float, p: float, margin: float | None = None, method: Method = "bca"
) -> Verdict:
    test = SignFlip(mean, p, n=100, nonzero=90, flips=10_001, exact=False)
    return decide(test, Interval(mean, low, high, 0.95, method, 100), margin=margin)


def test_a_clear_difference() -> None:
    differences = np.random.default_rng(1).normal(0.5, 0.3, 60)
    assert verdict_of(differences).word == "better"
    assert verdict_of(-differences).word == "worse"


def test_thousands_of_queries() -> None:
    assert verdict_of(np.random.default_rng(4).normal(0.1, 0.3, 3000)).word == "better"


def test_noise_is_undetermined_and_not_equal() -> None:
    verdict = verdict_of(np.random.default_rng(2).normal(0.0, 0.3, 60))
    assert verdict.word == "undetermined"
    assert "includes zero" in verdict.reason


@pytest.mark.parametrize("n", [1, 2, 5])
def test_too_few_queries_cannot_say_anything_however_clear_they_look(n: int) -> None:
    verdict = verdict_of(np.full(n, 0.9), margin=2.0)
    assert verdict.word == "undetermined"
    assert "cannot reach p < 0.05" in verdict.reason
    assert ("1 query" if n == 1 else f"{n} queries") in verdict.reason


def test_six_queries_that_agree_are_enough() -> None:
    assert verdict_of(np.linspace(0.1, 0.6, 6)).word == "better"


def test_few_queries_that_differ_among_many_that_do_not() -> None:
    differences = np.zeros(300)
    differences[:5] = 1.0
    verdict = verdict_of(differences)
    assert verdict.word == "undetermined"
    assert "only 5 of 300 queries differ" in verdict.reason


def test_equivalent_needs_a_stated_margin_around_the_whole_interval() -> None:
    assert made(0.001, -0.004, 0.006, p=0.7).word == "undetermined"
    assert made(0.001, -0.004, 0.006, p=0.7, margin=0.01).word == "equivalent"
    assert made(0.001, -0.004, 0.006, p=0.7, margin=0.005).word == "undetermined"
    assert made(-0.001, -0.012, 0.006, p=0.7, margin=0.01).word == "undetermined"


def test_a_detectable_difference_inside_the_margin_is_equivalent_and_says_both() -> None:
    verdict = made(0.004, 0.002, 0.006, p=0.001, margin=0.01)
    assert verdict.word == "equivalent"
    assert "detectable (p = 0.001)" in verdict.reason
    assert made(0.004, 0.002, 0.006, p=0.001).word == "better"


def test_identical_results() -> None:
    assert verdict_of(np.zeros(50)).word == "undetermined"
    verdict = verdict_of(np.zeros(50), margin=0.01)
    assert verdict.word == "equivalent"
    assert "all 50 differences are zero" in verdict.reason


def test_an_interval_without_width_proves_no_equivalence() -> None:
    assert made(0.001, 0.001, 0.001, p=0.7, margin=0.01, method="degenerate").word != "equivalent"


@pytest.mark.parametrize(("low", "p"), [(0.001, 0.06), (-0.001, 0.04)])
def test_a_test_and_an_interval_that_disagree_are_undetermined(low: float, p: float) -> None:
    verdict = made(0.05, low, 0.1, p=p)
    assert verdict.word == "undetermined"
    assert "disagree" in verdict.reason


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan")])
def test_a_margin_must_be_above_zero(margin: float) -> None:
    with pytest.raises(ValueError):
        made(0.0, -0.1, 0.1, p=0.5, margin=margin)


def test_p_is_never_shown_as_zero() -> None:
    assert [format_p(p) for p in (0.0499, 0.00012, 0.0000312)] == ["0.0499", "0.00012", "3.1e-05"]


def drawn(seed: int, mean: float, sd: float) -> np.ndarray:
    """60 differences with exactly this mean and standard deviation."""
    values = np.random.default_rng(seed).normal(size=60)
    return mean + sd * (values - values.mean()) / values.std(ddof=1)


def of_family(differences: np.ndarray, family: int, margin: float | None = None) -> Verdict:
    test = sign_flip_test(differences)
    (adjusted,) = adjust([test.p], "holm", family)
    same = None if margin is None else equivalence_test(differences, margin)
    return decide(test, t_interval(differences), equivalence=same, adjusted=adjusted, smallest_detectable=0.03)


def test_a_family_of_comparisons_asks_for_more() -> None:
    differences = drawn(5, 0.1, 0.3)
    alone, among_many = of_family(differences, 1), of_family(differences, 40)
    assert alone.word == "better"
    assert among_many.word == "undetermined"
    assert "Holm, 40 comparisons" in among_many.reason
    assert "of this comparison alone excludes zero" in among_many.reason
    assert among_many.p == pytest.approx(40 * alone.p)
    assert (among_many.family, among_many.correction, among_many.smallest_detectable) == (40, "holm", 0.03)
    assert (alone.family, alone.p) == (1, sign_flip_test(differences).p)


def test_a_clear_difference_survives_a_family() -> None:
    verdict = of_family(np.random.default_rng(6).normal(0.5, 0.3, 60), 40)
    assert verdict.word == "better"
    assert "40 comparisons" in verdict.reason


def test_equivalence_in_a_family_needs_its_own_p() -> None:
    differences = drawn(7, 0.0, 0.02)
    margin = 2.5 * 0.02 / np.sqrt(60)
    assert of_family(differences, 1, margin).word == "equivalent"
    many = of_family(differences, 200, margin)
    assert many.word == "undetermined"
    assert "not for 200 comparisons" in many.reason
    assert of_family(differences, 200, 0.05).word == "equivalent"


def test_what_does_not_belong_together_is_refused() -> None:
    differences = np.random.default_rng(8).normal(0.0, 0.3, 60)
    test, interval = sign_flip_test(differences), t_interval(differences)
    (family,) = adjust([test.p], "holm", 3)
    (other,) = adjust([test.p / 2], "none")
    for keywords in (
        {"adjusted": other},
        {"adjusted": family, "margin": 0.1},
        {"equivalence": non_inferiority_test(differences, 0.1)},
        {"equivalence": equivalence_test(differences, 0.1), "margin": 0.2},
    ):
        with pytest.raises(ValueError):
            decide(test, interval, **keywords)


def over_seeds(
    run_sd: float, runs: int = 6, gain: float = 0.1, **settings: str
) -> tuple[SignFlip, Interval, SeedInterval]:
    """Test, interval and seed interval of a recipe's advantage over a fixed model."""
    generator = np.random.default_rng(9)
    rows = 0.1 + generator.normal(0.0, run_sd, (runs, 1)) + generator.normal(0.0, 0.05, 60)
    seeds = seed_interval(rows, **settings)
    span = Interval(seeds.mean, seeds.low, seeds.high, 0.95, "percentile", 60)
    return sign_flip_test(rows.mean(axis=0)), span, seeds


def test_the_p_of_the_seeds_decides_and_not_that_of_the_queries() -> None:
    test, span, seeds = over_seeds(0.2)
    assert test.p < 0.001 < 0.05 < seeds.p == evidence(test, seeds)
    verdict = decide(test, span, seeds=seeds)
    assert (verdict.word, verdict.p) == ("undetermined", seeds.p)
    assert verdict.reason.endswith("over 6 seeds and the queries")
    test, span, seeds = over_seeds(0.01)
    (adjusted,) = adjust([seeds.p], "holm", 20)
    verdict = decide(test, span, seeds=seeds, adjusted=adjusted)
    assert (verdict.word, verdict.p) == ("better", 20 * seeds.p)
    with pytest.raises(ValueError, match="the evidence's is"):
        decide(test, span, seeds=seeds, adjusted=adjust([test.p], "holm", 20)[0])


def test_of_chosen_or_few_runs_the_sign_flips_decide() -> None:
    for found in (over_seeds(0.2, no_sample="others exist"), over_seeds(0.2, runs=5)):
        test, _, seeds = found
        assert evidence(test, seeds) == test.p != seeds.p


def test_tasks_of_one_query_are_never_equivalent() -> None:
    differences = np.r_[np.random.default_rng(10).normal(0.0, 0.001, 40), 0.0]
    for tasks, word in ((["a"] * 41, "equivalent"), (["a"] * 40 + ["b"], "undetermined")):
        test, same = sign_flip_test(differences, tasks), equivalence_test(differences, 0.05, tasks)
        verdict = decide(test, t_interval(differences, tasks), equivalence=same)
        assert verdict.word == word and same.shown == (word == "equivalent")
        assert decide(test, t_interval(differences, tasks), margin=0.05).word == word
    assert "1 of 2 tasks have one query" in verdict.reason
    nothing = np.zeros(41)
    verdict = decide(sign_flip_test(nothing, tasks), t_interval(nothing, tasks), margin=0.05)
    assert verdict.word == "undetermined"
    # Their spread is in no standard error: the sign flips must agree with the seeds.
    rows = 0.1 + np.random.default_rng(11).normal(0.0, 0.01, (6, 41))
    rows[:, 40] = -3.0
    seeds, test = seed_interval(rows, strata=tasks), sign_flip_test(rows.mean(axis=0), tasks)
    assert evidence(test, seeds) == test.p > seeds.p
