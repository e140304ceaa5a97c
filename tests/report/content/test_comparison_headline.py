"""The headline of a comparison names the better run first, and says where suites disagree."""

from dataclasses import replace
from pathlib import Path

import pytest
from hostile_page import Page
from synthetic_run import add_result, make_suite

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.results.result import load_result, save_result
from gemma4vec.files import home
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.report.comparison_page import write_comparison
from gemma4vec.report.content.comparison_data import RunComparison, read_comparison
from gemma4vec.report.content.comparison_headline import format_comparison_headline, order_sentences

NAMES = {"old": "A old", "new": "B new", "third": "C third"}
ROLES = {"test": "dev", "other": "final"}


@pytest.fixture
def suites() -> dict[str, RetrievalSuite]:
    other = replace(make_suite(home() / "other", 50), name="other")
    return {"test": make_suite(home() / "suite", 60), "other": other}


def make(suites: dict[str, RetrievalSuite], name: str, skills: dict[str, float], seed: int) -> Path:
    """A run with a result on each suite; better with more skill."""
    run = RunFolder.create(home(), name, f"name: {name}\n", recipe_id=f"id-{name}", seed=0, status="finished")
    for suite, skill in skills.items():
        add_result(run, suites[suite], "trained", skill, seed)
        folder = run.evaluation("trained", suite)
        result = load_result(folder)
        owner = {"run_id": run.run_id, "recipe_id": f"id-{name}"}
        result.settings.update({"model_fingerprint": run.run_id, "run": owner, "created": "2026-01-01T00:00:00"})
        result.settings["suite"]["role"] = ROLES[suite]
        save_result(result, folder, [])
    return run.path


def compared(suites: dict[str, RetrievalSuite], skills: dict[str, dict[str, float]]) -> RunComparison:
    return read_comparison([make(suites, name, own, seed) for seed, (name, own) in enumerate(skills.items())])


@pytest.mark.parametrize(("old", "new", "start"), [(0.2, 0.9, "B new is better than A old"), (0.9, 0.2, "A old is")])
def test_the_better_run_is_named_first(suites: dict[str, RetrievalSuite], old: float, new: float, start: str) -> None:
    found = compared(suites, {"old": {"test": old}, "new": {"test": new}})
    one = found.suites[0].comparisons[0][2]
    low, high = sorted([abs(one.interval.low), abs(one.interval.high)])
    said = format_comparison_headline(found, NAMES)
    assert said.startswith(f"On test: {start}") and "worse" not in said
    assert f" by {abs(one.difference):.3f} (95% interval {low:.3f} to {high:.3f}" in said
    assert order_sentences(found, NAMES) == []


def test_a_difference_that_may_be_noise_says_who_leads_and_what_would_show(suites: dict[str, RetrievalSuite]) -> None:
    found = compared(suites, {"old": {"test": 0.5}, "new": {"test": 0.5}})
    one = found.suites[0].comparisons[0][2]
    leader = "B new" if one.difference > 0 else "A old"
    assert one.verdict.word == "undetermined"
    assert format_comparison_headline(found, NAMES) == (
        f"On test: undetermined whether A old or B new is better ({leader} is ahead by {abs(one.difference):.3f}; "
        f"differences from {one.smallest_detectable:.3f} would show)."
    )


def test_a_headline_names_the_winner_of_each_suite_where_they_differ(suites: dict[str, RetrievalSuite]) -> None:
    found = compared(suites, {"old": {"test": 0.2, "other": 0.9}, "new": {"test": 0.9, "other": 0.2}})
    said = format_comparison_headline(found, NAMES)
    start, on_other, rest = said.partition("On other: ")
    other, on_test, test = rest.partition("On test: ")
    assert start == "Neither is better on every suite. " and on_other and on_test
    by = {section.name: section.comparisons[0][2] for section in found.suites}
    assert (by["other"].verdict.word, by["test"].verdict.word) == ("worse", "better")
    assert other.startswith(f"A old is better than B new by {abs(by['other'].difference):.3f} (95% interval")
    assert test.startswith(f"B new is better than A old by {by['test'].difference:.3f} (95% interval")


def test_a_headline_is_of_one_suite_where_all_agree(suites: dict[str, RetrievalSuite]) -> None:
    found = compared(suites, {"old": {"test": 0.2, "other": 0.2}, "new": {"test": 0.9, "other": 0.9}})
    said = format_comparison_headline(found, NAMES)
    assert said.startswith("On other: B new is better") and "On test" not in said


def test_suites_that_put_two_runs_in_opposite_orders_are_remarked_on(
    suites: dict[str, RetrievalSuite], tmp_path: Path
) -> None:
    skills = {"old": {"test": 0.3, "other": 0.9}, "new": {"test": 0.9, "other": 0.3}, "third": {"test": 0.2}}
    found = compared(suites, skills)
    by = {section.name: section.comparisons[0][2].difference for section in found.suites}
    assert by["test"] > 0 > by["other"]
    (said,) = order_sentences(found, NAMES)
    assert said == (
        f"The suites disagree: A old is ahead on other (final, by {-by['other']:.3f}) and B new is ahead on test "
        f"(dev, by {by['test']:.3f}). Decide by the suite that is most like your use."
    )
    runs = [home() / run.run_id for group in found.groups for run in group.runs]
    page = write_comparison(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert said in Page(page).text
    for letter in "ABC":
        assert f'<b class="letter">{letter}</b>' in page, letter


def test_an_opposite_order_within_noise_says_so(suites: dict[str, RetrievalSuite]) -> None:
    found = compared(suites, {"old": {"test": 0.3, "other": 0.5}, "new": {"test": 0.9, "other": 0.5}})
    differences = {section.name: section.comparisons[0][2] for section in found.suites}
    other = differences["other"]
    assert other.verdict.word == "undetermined"
    said = order_sentences(found, NAMES)
    assert len(said) == (other.difference < 0)
    turned = compared(suites, {"old": {"test": 0.9, "other": 0.5}, "new": {"test": 0.3, "other": 0.5}})
    opposite = [*said, *order_sentences(turned, NAMES)]
    assert any(f"by {abs(other.difference):.3f}, undetermined)" in one for one in opposite)
