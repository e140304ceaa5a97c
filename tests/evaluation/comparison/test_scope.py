"""What a verdict speaks of, and what it must not be shown without."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ledger_samples import look, make_run

from gemma4vec.evaluation.comparison.compare_seeds import ResultGroup
from gemma4vec.evaluation.comparison.corrected import compare_groups, compare_pairs
from gemma4vec.evaluation.comparison.paired import Comparison
from gemma4vec.evaluation.results.marks import REPEATED, count_repeated
from gemma4vec.evaluation.results.result import Result
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.run_folder import RunFolder

CONTENTS = "f" * 64
QUERIES = 60
EASE = np.random.default_rng(0).uniform(0.2, 0.7, QUERIES)


def result(run: RunFolder | None, mean: float, *, run_sd: float = 0.0, number: int = 0, **settings: Any) -> Result:
    """A result of a run, or of a model without one."""
    recipe = run.manifest["recipe_id"] if run else "none"
    random = np.random.default_rng([number, *recipe.encode()])
    values = EASE + mean + run_sd * random.standard_normal() + 0.03 * random.standard_normal(QUERIES)
    name = run.run_id if run else settings.pop("name", "bm25")
    owner = {"run_id": run.run_id, "recipe_id": recipe} if run else {"run_id": None, "recipe_id": None}
    return Result(
        name,
        "s",
        {"s": {f"q{row:02}": {"ndcg@10": float(value)} for row, value in enumerate(values)}},
        {
            "model_fingerprint": name,
            "suite": {"fingerprint": CONTENTS},
            "run": owner,
            "created": f"2026-01-01T00:00:{number:02}",
            **settings,
        },
    )


def side(runs: Sequence[RunFolder], mean: float, run_sd: float = 0.0) -> ResultGroup:
    results = [result(run, mean, run_sd=run_sd, number=number) for number, run in enumerate(runs)]
    return ResultGroup(results, [run.manifest["seed"] for run in runs])


def recipe(name: str, seeds: Sequence[int]) -> list[RunFolder]:
    return [make_run(home(), name, recipe_id=name, seed=seed) for seed in seeds]


def compared(a: ResultGroup, b: ResultGroup, **settings: Any) -> Comparison:
    return compare_groups([(a, b)], **settings).comparisons[0]


def test_six_seeds_of_each_speak_of_the_recipes_by_their_own_p() -> None:
    found = compared(side(recipe("a", range(6)), 0.02, 0.05), side(recipe("b", range(10, 16)), 0.0, 0.05))
    assert found.scope is not None and found.seeds is not None
    assert (found.scope.of, found.scope.left_out) == ("recipes", {})
    assert found.verdict.p == found.seeds.p * found.verdict.family > found.test.p
    assert "of these runs" not in found.sentence() and "over 6 and 6 seeds" in found.sentence()
    assert found.as_dict()["scope"]["of"] == "recipes"
    with open_ledger(home()) as ledger:
        assert (
            ledger.value("SELECT json_extract(body, '$.speaks_of') FROM records WHERE kind = 'comparison'") == "recipes"
        )


def test_left_out_runs_are_named_and_the_verdict_leaves_the_recipe() -> None:
    ours, theirs = recipe("a", range(8)), recipe("b", range(10, 16))
    running = RunFolder.create(home(), "a", "name: a\n", recipe_id="a", status="started", seed=99)  # not finished
    found = compared(side(ours[:6], 0.3, 0.05), side(theirs, 0.0, 0.05))
    assert found.scope is not None and found.seeds is not None
    left = [run.run_id for run in ours[6:]]
    assert found.scope.of == "runs" and found.scope.left_out == {"a": left}
    assert not found.seeds.over_seeds and found.interval.method == "t"
    assert all(run in found.scope.sentence for run in left) and "not of the recipe" in found.scope.sentence
    assert found.verdict.p == pytest.approx(found.test.p * found.verdict.family)
    assert running.run_id not in str(found.as_dict())
    whole = compared(side(ours, 0.3, 0.05), side(theirs, 0.0, 0.05))
    assert whole.scope is not None and whole.scope.of == "recipes"


def test_a_run_that_was_scored_and_deleted_was_left_out_too() -> None:
    ours = recipe("a", range(8))
    scored, unseen = ours[6], ours[7]
    look(None, "trained", "x", contents=CONTENTS, run=scored)
    kept = side(ours[:6], 0.3)
    for run in (scored, unseen):
        (run.path / "manifest.json").unlink()
    found = compared(kept, ResultGroup([result(None, 0.0)], [None]))
    assert found.scope is not None and found.scope.left_out == {"a": [scored.path.name]}


def test_runs_of_one_seed_are_no_six_seeds() -> None:
    found = compared(side(recipe("a", [1, 2, 3, 4, 5, 5]), 0.3), ResultGroup([result(None, 0.0)], [None]))
    assert found.scope is not None and found.scope.of == "runs"
    assert "several runs of recipe a have the seed 5" in found.scope.sentence


@pytest.mark.parametrize(("seeds", "words"), [([1], "1 run each: with fewer"), ([1, 2], "2 runs (their means")])
def test_few_seeds_say_so_in_sentence_json_and_lines(seeds: list[int], words: str) -> None:
    found = compared(side(recipe("a", seeds), 0.3), side(recipe("b", seeds), 0.0))
    assert found.scope is not None and found.scope.of == "runs"
    assert found.scope.sentence.startswith(words) and "speaks only of these runs" in found.scope.sentence
    assert found.sentence().endswith(", of these runs only.")
    assert found.warnings()[0] == found.as_dict()["scope"]["sentence"] == found.scope.sentence


def test_models_without_a_recipe_have_no_seeds() -> None:
    found = compare_pairs([(result(None, 0.3, name="other"), result(None, 0.0))]).comparisons[0]
    assert found.scope is not None and found.scope.of == "models" and "of these runs" not in found.sentence()


def test_equivalence_over_seeds_has_their_error_and_is_corrected() -> None:
    a, b = side(recipe("a", range(6)), 0.0, 0.03), side(recipe("b", range(10, 16)), 0.0, 0.03)
    wide = compared(a, b, margin=0.2, no_worse_than=0.2)
    assert wide.seeds is not None and wide.equivalence is not None and wide.no_worse is not None
    assert wide.equivalence.interval.high - wide.equivalence.interval.low > 2 * 1.7 * wide.seeds.uncertainty.error
    assert wide.verdict.word == "equivalent" and wide.no_worse.shown
    margin = abs(wide.seeds.mean) + 2.6 * wide.seeds.uncertainty.error
    alone = compared(a, b, no_worse_than=margin).no_worse
    for number in range(40):
        look(None, f"m{number}", f"m{number}", contents=CONTENTS)
    among = compared(a, b, no_worse_than=margin).no_worse
    assert alone is not None and among is not None and among.p == alone.p
    assert alone.shown and not among.shown and among.family >= 40 and among.adjusted > 0.05


def test_touched_queries_decide_nothing() -> None:
    mark = {"sources": [], "unchecked": [], "touched_queries": {"s": [f"q{row:02}" for row in range(20)]}}
    (run,) = recipe("a", [1])
    ours, theirs = result(run, 0.0), result(None, 0.0)
    for row in range(20):  # learned by heart
        ours.per_query["s"][f"q{row:02}"]["ndcg@10"] = 1.0  # type: ignore[index]
    plain = compare_pairs([(ours, theirs)]).comparisons[0]
    assert plain.verdict.word == "better" and plain.touched is None
    ours.settings["contamination"] = mark
    found = compare_pairs([(ours, theirs)], margin=0.001).comparisons[0]
    assert found.verdict.word == "undetermined" and found.touched is not None
    assert (found.touched.touched, found.touched.left, found.test.n, found.wins + found.losses) == (20, 40, 40, 40)
    assert found.mean_a == pytest.approx(np.mean([ours.per_query["s"][f"q{r:02}"]["ndcg@10"] for r in range(20, 60)]))
    assert "on the 40 queries that no training data touches" in found.sentence()
    mark["touched_queries"] = {"s": [f"q{row:02}" for row in range(QUERIES)]}
    (none,), family = compare_pairs([(ours, theirs)], no_worse_than=0.9)
    assert (none.verdict.word, none.verdict.p, none.verdict.family) == ("undetermined", 1.0, family.size)
    assert none.no_worse is not None and not none.no_worse.shown
    with open_ledger(home()) as ledger:
        words = [row["verdict"] for row in ledger.rows("SELECT verdict FROM comparisons ORDER BY seq")]
    assert words == ["better", "undetermined", "undetermined"]


def test_what_one_run_of_a_side_touches_is_left_out_of_all() -> None:
    a, b = side(recipe("a", [1, 2]), 0.3), side(recipe("b", [3]), 0.0)
    for group, keys in ((a.results[1], ["q00"]), (b.results[0], ["q00", "q01"])):
        group.settings["contamination"] = {"touched_queries": {"s": keys}}
    found = compared(a, b)
    assert found.touched is not None and (found.touched.touched, found.test.n) == (2, QUERIES - 2)


def test_marks_of_the_scores_stay_in_a_comparison() -> None:
    (run,) = recipe("a", [1])
    ours = result(run, 0.3, look_again="the reviewer asked", ranking={REPEATED: 7})
    found = compare_pairs([(ours, result(None, 0.0, ranking={"degenerate": True}))]).comparisons[0]
    assert any(line.startswith("bm25: degenerate") for line in found.cautions)
    assert f"{run.run_id}: a further look at a final suite, since: the reviewer asked" in found.cautions
    assert any(line.startswith("7 of 60 queries repeat the text of another") for line in found.cautions)
    assert list(found.cautions) == list(found.as_dict()["cautions"]) and set(found.cautions) < set(found.warnings())


def test_repeated_texts_are_counted_apart_from_white_space() -> None:
    assert count_repeated(["open a file", "sort", " open  a\nfile", "sort", "sort", "Sort"]) == 3
    assert count_repeated([("a", "b"), ("b", "a"), ("a", " b ")]) == 1


def test_a_margin_stated_after_the_comparison_is_said_to_be_so() -> None:
    ours, theirs = result(None, 0.001, name="other"), result(None, 0.0)
    compare_pairs([(ours, theirs)], margin=0.02)
    again = compare_pairs([(ours, theirs)], margin=0.02).comparisons[0]
    assert again.cautions == ()
    (late,) = compare_pairs([(ours, theirs)], margin=0.05).comparisons[0].cautions
    assert late.startswith("the margin 0.05 was stated after this pair had been compared (with 0.02, 20")
    (other_side,) = compare_pairs([(theirs, ours)], margin=0.05).comparisons[0].cautions
    assert "the margin 0.05 was stated after" in other_side
    (no_worse,) = compare_pairs([(ours, theirs)], no_worse_than=0.05).comparisons[0].cautions
    assert no_worse.startswith('"no worse than 0.05" was stated after this pair had been compared (without one, 20')


def test_a_margin_after_single_runs_were_compared_is_late_for_their_groups() -> None:
    a, b = side(recipe("a", [1, 2]), 0.3), side(recipe("b", [1, 2]), 0.0)
    compare_pairs([(a.results[0], b.results[1])])
    assert any("was stated after" in caution for caution in compared(a, b, margin=0.1).cautions)
    other = side(recipe("c", [1, 2]), 0.1)
    assert not any("was stated after" in caution for caution in compared(a, other, margin=0.1).cautions)


def test_p_near_its_level_gets_more_flips_in_the_family_too() -> None:
    ours, theirs = result(None, 0.0, name="other"), result(None, 0.0)
    values = np.random.default_rng(3).normal(size=QUERIES)
    values = (values - values.mean()) / values.std(ddof=1)
    for number in range(20):
        look(None, f"m{number}", f"m{number}", contents=CONTENTS)

    def flips(t: float) -> int:
        for row in range(QUERIES):
            key = f"q{row:02}"
            ours.per_query["s"][key]["ndcg@10"] = theirs.per_query["s"][key]["ndcg@10"] + (  # type: ignore[index]
                values[row] + t / QUERIES**0.5
            )
        return compare_pairs([(ours, theirs)]).comparisons[0].test.flips

    assert flips(2.0) == 10_001  # p = .05, which is far from what decides here
    assert flips(3.2) > 100_000  # p = .0023, and .05 / 21 = .0024


def test_an_average_of_runs_that_were_seen_has_no_look_of_its_own() -> None:
    a, b = recipe("a", [1, 2]), recipe("b", [1, 2])
    for run in (*a, *b):
        look(None, "trained", run.run_id, contents=CONTENTS, run=run)
    found = compared(side(a, 0.3), side(b, 0.0))
    assert found.family is not None and found.family.unrecorded == 0
    unseen = compared(side(a, 0.3), ResultGroup([result(None, 0.0)], [None]))
    assert unseen.family is not None and unseen.family.unrecorded == 1
