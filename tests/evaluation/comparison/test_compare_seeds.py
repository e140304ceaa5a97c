"""Several runs of one recipe compared with several of another: what the interval speaks of, and what is refused."""

from typing import Any

import numpy as np
import pytest

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare_seeds import ResultGroup, average_runs
from gemma4vec.evaluation.comparison.corrected import compare_groups as compare_all_sides
from gemma4vec.evaluation.comparison.corrected import compare_pairs
from gemma4vec.evaluation.comparison.paired import Comparison, _compare_uncorrected
from gemma4vec.evaluation.results.result import Result
from gemma4vec.files import home
from gemma4vec.ledger.comparison_count import ComparisonFamily
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.statistics.seeds import seed_interval


def compare_groups(a: ResultGroup, b: ResultGroup, **settings: Any) -> tuple[Comparison, ComparisonFamily]:
    (found,), family = compare_all_sides([(a, b)], **settings)
    return found, family


EASE = np.random.default_rng(0).uniform(0.2, 0.7, 80)


def result(recipe: str | None, seed: int, mean: float, spread: float = 0.02, n: int = 80) -> Result:
    random = np.random.default_rng([seed, 0 if recipe is None else sum(map(ord, recipe))])
    run = mean + spread * random.standard_normal()
    values = EASE[:n] + run + 0.05 * random.standard_normal(n)
    scores = {f"q{row:03}": {"ndcg@10": float(value)} for row, value in enumerate(values)}
    settings: dict[str, Any] = {
        "model_fingerprint": f"{recipe}-{seed}",
        "run": {"run_id": f"{recipe}-{seed}", "recipe_id": recipe},
        "created": f"2026-01-01T00:00:{seed:02}",
    }
    return Result(f"{recipe}-{seed}", "s", {"s": scores}, settings)


def side(recipe: str, seeds: list[int], mean: float = 0.0) -> ResultGroup:
    return ResultGroup([result(recipe, seed, mean) for seed in seeds], seeds)


def test_one_run_each_is_the_plain_comparison() -> None:
    a, b = result("a", 1, 0.1), result("b", 1, 0.0)
    found, family = compare_groups(ResultGroup([a], [1]), ResultGroup([b], [1]))
    plain = _compare_uncorrected(a, b)
    assert (found.interval, found.test, found.seeds, family.size) == (plain.interval, plain.test, None, 1)


def test_six_seeds_of_the_same_number_are_pairs_and_speak_of_the_recipe() -> None:
    a, b = side("a", list(range(6)), 0.05), side("b", list(range(6)))
    found, _ = compare_groups(a, b)
    rows = np.stack(
        [x.values("ndcg@10")[1] - y.values("ndcg@10")[1] for x, y in zip(a.results, b.results, strict=True)]
    )
    expected = seed_interval(rows, strata=["s"] * 80)
    assert found.seeds == expected and expected.over_seeds and expected.runs == (6,)
    assert (found.interval.low, found.interval.high) == (expected.low, expected.high)
    assert found.difference == pytest.approx(rows.mean())
    # The smallest detectable difference has the spread between seeds in it.
    alone = _compare_uncorrected(average_runs(a.results), average_runs(b.results))
    assert found.smallest_detectable > 1.3 * alone.smallest_detectable


def test_other_seeds_are_independent_and_order_does_not_matter() -> None:
    a, b = side("a", list(range(6)), 0.05), side("b", list(range(10, 16)))
    found, _ = compare_groups(a, b)
    assert found.seeds is not None and found.seeds.runs == (6, 6)
    turned = ResultGroup([*reversed(a.results)], [*reversed(a.seeds)])
    pairs, _ = compare_groups(turned, side("b", list(range(6))))
    straight, _ = compare_groups(a, side("b", list(range(6))))
    assert pairs.interval.mean == pytest.approx(straight.interval.mean)


def test_few_seeds_say_that_they_speak_of_these_runs_only() -> None:
    found, _ = compare_groups(side("a", [0, 1, 2], 0.3), side("b", [0, 1, 2]))
    assert found.seeds is not None and not found.seeds.over_seeds
    assert "speaks only of these runs" in found.seeds.statement
    assert found.interval.method == "t"


def test_a_model_that_is_no_run_is_held_fixed() -> None:
    found, _ = compare_groups(side("a", list(range(6)), 0.1), ResultGroup([result(None, 1, 0.0)], [None]))
    assert found.seeds is not None and found.seeds.over_seeds and found.seeds.runs == (6,)


def test_sides_that_are_not_one_recipe_are_refused() -> None:
    mixed = ResultGroup([result("a", 0, 0.0), result("b", 1, 0.0)], [0, 1])
    with pytest.raises(InputError, match="of one recipe, found a, b"):
        compare_groups(mixed, side("c", [0]))
    with pytest.raises(InputError, match="named twice"):
        compare_groups(side("a", [0, 0]), side("c", [0]))
    with pytest.raises(InputError, match="different queries"):
        compare_groups(ResultGroup([result("a", 0, 0.0), result("a", 1, 0.0, n=70)], [0, 1]), side("c", [0]))


def test_runs_of_one_side_read_texts_to_one_length_and_none_stands_on_both() -> None:
    a, b, control = result("a", 1, 0.1), result("a", 2, 0.1), result("b", 1, 0.0)
    for one, tokens in ((a, 64), (b, 8)):
        one.settings["model"] = {"max_tokens": tokens}
    mixed, against = ResultGroup([a, b], [1, 2]), ResultGroup([control], [1])
    with pytest.raises(InputError, match="max_tokens 64 and a-2 with 8"):
        compare_groups(mixed, against)
    compare_groups(mixed, against, allow_different_settings=True)
    b.settings["model"] = {"max_tokens": 64}
    compare_groups(mixed, against)
    for number, one in enumerate((a, b)):
        one.settings["look"] = f"look-{number}"
    with pytest.raises(InputError, match="a-2 on s is on both sides"):
        compare_groups(mixed, ResultGroup([b], [2]))


def test_no_worse_than_is_a_question_of_its_own() -> None:
    a, b = result("a", 1, 0.0, 0.0), result("b", 2, 0.0, 0.0)
    found, _ = compare_groups(ResultGroup([a], [1]), ResultGroup([b], [2]), no_worse_than=0.05)
    assert found.verdict.word == "undetermined"
    assert found.no_worse is not None and found.no_worse.shown and found.no_worse.question == "non-inferiority"
    narrow, _ = compare_groups(ResultGroup([a], [1]), ResultGroup([b], [2]), no_worse_than=0.001)
    assert narrow.no_worse is not None and not narrow.no_worse.shown


def test_no_worse_than_and_equivalence_of_recipes_know_of_the_spread_between_seeds() -> None:
    a, b = side("a", list(range(6))), side("b", list(range(10, 16)))
    found, _ = compare_groups(a, b, no_worse_than=0.02, margin=0.02)
    assert found.seeds is not None and found.seeds.over_seeds and found.no_worse and found.equivalence
    alone = _compare_uncorrected(average_runs(a.results), average_runs(b.results), no_worse_than=0.02, margin=0.02)
    assert alone.no_worse and alone.equivalence
    # Runs of a recipe differ by .02: its means over 6 are not known to .005, as queries alone would have it.
    width = found.no_worse.interval.high - found.no_worse.interval.low
    assert width > 1.5 * (alone.no_worse.interval.high - alone.no_worse.interval.low)
    error = found.seeds.uncertainty
    assert width == pytest.approx(2 * error.critical(0.05) * error.error)
    ratio = error.critical(0.05) / error.critical(0.025)  # of a 90% and a 95% interval
    assert width == pytest.approx((found.interval.high - found.interval.low) * ratio, rel=0.02)
    assert found.equivalence.p > alone.equivalence.p


def test_pairs_that_are_shown_together_are_corrected_together_and_recorded() -> None:
    control = result("c", 0, 0.0)
    pairs = [(result("a", 1, 0.012, 0.0), control), (result("b", 2, 0.012, 0.0), control)]
    found, family = compare_pairs(pairs)
    assert (family.size, family.models, family.pairs) == (2, 3, 2)
    smaller, larger = sorted(found, key=lambda one: one.test.p)
    assert smaller.verdict.p == pytest.approx(min(1.0, 2 * smaller.test.p))
    assert larger.verdict.p == pytest.approx(max(smaller.verdict.p, larger.test.p))  # Holm's second step
    with open_ledger(home()) as ledger:
        assert ledger.value("SELECT count(*) FROM comparisons") == 2
    again, family = compare_pairs(pairs)
    assert family.size == 2 and [one.verdict for one in again] == [one.verdict for one in found]
    assert compare_pairs([(result("d", 3, 0.0), control)]).family.size == 3
