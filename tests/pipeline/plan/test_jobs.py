"""From a plan to its jobs: recipes, mixtures, choices, time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_plan import STEPS, outline_of, write_recipes

from gemma4vec.errors import InputError
from gemma4vec.pipeline.plan.budget import LEAST_SHARE, training_minutes
from gemma4vec.pipeline.plan.comparisons import list_comparisons, list_with_lengths
from gemma4vec.pipeline.plan.mixtures import draw_mixtures
from gemma4vec.pipeline.plan.plan_state import Record
from gemma4vec.recipe.plans.plan import Draw


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipes(tmp_path_factory.mktemp("jobs"), base="bundled:gemma-3-270m")


@dataclass
class Score:
    dev: float | None


def done(key: str, dev: float = 0.5, **fields: Any) -> Record:
    return Record(key, key.split("/")[0], "train", {}, status="done", dev=dev, **fields)


def test_a_mixture_becomes_the_weights_of_its_sources(place: Path) -> None:
    outline = outline_of(place)
    assert list(outline.jobs) == ["first", "mixed/a", "mixed/b", "soup", "soup/greedy"]
    weights = {key: [s.weight for s in job.recipe.stages[0].data] for key, job in outline.jobs.items() if job.recipe}
    assert weights == {"first": [None, None], "mixed/a": [3, 1], "mixed/b": [1, 3]}
    # A step's runs share its part.
    assert [job.share for job in outline.jobs.values()] == [1.0, 1.5, 1.5, 0.0, 0.0]
    assert outline.results == ["soup", "soup/greedy"]
    only_one = outline_of(place, {"a": {"train": "pairs", "mixtures": {"x": {"two": 1}}}}).jobs["a/x"]
    assert only_one.recipe and [source.weight for source in only_one.recipe.stages[0].data] == [0, 1]
    # A temperature of the recipe gives way to weights.
    warm = STEPS | {"mixed": STEPS["mixed"] | {"set": {"stages.0.mixture.temperature": 2.0}}}
    assert outline_of(place, warm).jobs["mixed/a"].recipe.stages[0].mixture.temperature is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        ({"three": 1}, "steps.a.mixtures: pairs.yaml has no source 'three'; it has one, two"),
        ({"one": 0}, "steps.a.mixtures: all sources of stage contrast of pairs.yaml have weight 0"),
    ],
)
def test_a_mixture_without_a_source_is_refused(place: Path, mixture: dict[str, float], said: str) -> None:
    with pytest.raises(InputError) as caught:
        outline_of(place, {"a": {"train": "pairs", "mixtures": {"x": mixture}}})
    assert str(caught.value).startswith(said)


def test_a_recipe_that_is_nowhere_and_a_wrong_key_name_the_step(place: Path) -> None:
    with pytest.raises(InputError, match=r"^steps.a.train: no recipe 'nowhere'"):
        outline_of(place, {"a": {"train": "nowhere.yaml"}})
    with pytest.raises(
        InputError, match=r"^steps.a \(.*pairs.yaml\): unknown key 'stages.0.bugdet'; did you mean 'budget'"
    ):
        outline_of(place, {"a": {"train": "pairs", "set": {"stages.0.bugdet": 1}}})


def test_draws_have_the_mean_and_the_variance_of_their_distribution() -> None:
    draw = Draw(dirichlet=1000, around={"a": 2.0, "b": 1.0, "c": 1.0, "none": 0.0}, concentration=7.0, seed=3)
    drawn_KS = np.array([[mix[name] for name in ("a", "b", "c")] for mix in draw_mixtures(draw).values()])
    mean_S = np.array([0.5, 0.25, 0.25])
    assert np.allclose(drawn_KS.sum(axis=1), 1.0) and np.allclose(drawn_KS.mean(axis=0), mean_S, atol=0.02)
    assert np.allclose(drawn_KS.var(axis=0), mean_S * (1 - mean_S) / 8.0, rtol=0.15)  # w (1 - w) / (concentration + 1)
    assert all(mix["none"] == 0.0 for mix in draw_mixtures(draw).values())
    few = draw.model_copy(update={"dirichlet": 2})
    assert draw_mixtures(few) == {name: draw_mixtures(draw)[name] for name in ("draw-0", "draw-1")}
    assert draw_mixtures(few.model_copy(update={"seed": 4})) != draw_mixtures(few)
    with pytest.raises(InputError, match=r"^draw.around: fewer than two sources have a weight"):
        draw_mixtures(Draw(dirichlet=2, around={"a": 1.0}))


def test_the_best_runs_are_kept_once_they_are_scored(place: Path) -> None:
    step = {"train": "pairs", "draw": {"dirichlet": 3, "around": {"one": 1, "two": 1}}, "keep": 2}
    outline = outline_of(
        place, {"a": step, "s": {"soup": {"of": "a"}}, "t": {"soup": {"of": ["a/draw-0", "a/draw-1"]}}}
    )
    scores = {"a/draw-0": Score(0.1), "a/draw-1": Score(0.3), "a/draw-2": Score(0.2)}
    assert outline.used("a", scores) == ["a/draw-1", "a/draw-2"]
    assert outline.parents(outline.jobs["s"], scores) == ["a/draw-1", "a/draw-2"]
    assert outline.parents(outline.jobs["t"], scores) == ["a/draw-0", "a/draw-1"]  # named ones are not chosen
    equal = {key: Score(0.1) for key in scores}
    assert outline.used("a", equal) == ["a/draw-0", "a/draw-1"]
    assert outline.used("a", scores | {"a/draw-1": Score(None)}) == ["a/draw-0", "a/draw-2"]
    assert outline.results == ["s", "t"]


def test_the_time_is_shared_among_stages_as_the_recipe_has_it(place: Path) -> None:
    two = {"stages.0.budget": {"minutes": 3}}
    job = outline_of(place, {"a": {"train": "pairs", "set": two}}).jobs["a"]
    outline = outline_of(place, {"a": {"train": "pairs", "set": two}})
    assert outline.final_recipe(job, 6.0, None).stages[0].budget.minutes == pytest.approx(6.0)
    assert outline.final_recipe(job, None, None) == job.recipe
    assert outline.final_recipe(job, 6.0, None).name == "tiny-a"


def test_the_least_steps_of_a_stage_are_kept_in_the_time_of_a_plan(place: Path) -> None:
    steps = {"a": {"train": "pairs", "set": {"stages.0.budget": {"minutes": 3, "least_steps": 40}}}}
    outline = outline_of(place, steps)
    budget = outline.final_recipe(outline.jobs["a"], 6.0, None).stages[0].budget
    assert (budget.minutes, budget.least_steps) == (pytest.approx(6.0), 40)


def test_what_is_left_is_passed_on(place: Path) -> None:
    jobs = list(outline_of(place).jobs.values())[:3]  # shares 1, 1.5, 1.5
    first, others = jobs[0], jobs[1:]
    assert training_minutes(40.0, 0.0, first, others, {}, 0.0) == pytest.approx(10.0)
    # Three evaluations of two minutes are paid for first.
    assert training_minutes(40.0, 0.0, first, others, {}, 2.0) == pytest.approx((40 - 6) / 4)
    # The first step took 5 minutes instead of 10, one of which was not training: the others get more, and pay for it.
    known = {"first": done("first", seconds=300.0, minutes=4.0, share=1.0)}
    assert training_minutes(40.0, 5.0, others[0], others[1:], known, 9.0) == pytest.approx((40 - 5 - 2) / 2)
    # Without time left, a job trains a tenth of its share.
    late = training_minutes(40.0, 60.0, others[0], others[1:], known, 0.0)
    assert late == pytest.approx(LEAST_SHARE * 40.0 * 1.5 / 4)


def test_the_definition_changes_with_the_recipe_not_with_the_time(place: Path) -> None:
    plain = outline_of(place).jobs["mixed/a"].definition()
    timed = outline_of(place, budget={"minutes": 9}).jobs["mixed/a"].definition()
    other = outline_of(place, set={"stages.0.batch.rows": 8}).jobs["mixed/a"].definition()
    assert plain == timed != other


def test_every_model_is_compared_with_what_it_was_made_from(place: Path) -> None:
    outline = outline_of(place)
    records = {key: done(key) for key in outline.jobs}
    records["mixed/b"].dev = 0.9
    found = [(one.key, one.against, one.words) for one in list_comparisons(outline, records)]
    both = ("mixed/a", "mixed/b")
    assert found == [
        ("first", (), "untrained"),
        ("mixed/a", ("first",), "first"),
        ("mixed/b", ("first",), "first"),
        ("soup", ("mixed/b",), "its best ingredient, mixed/b"),
        ("soup", both, "the mean of its 2 ingredients"),
        ("soup/greedy", ("mixed/b",), "its best ingredient, mixed/b"),
        ("soup/greedy", both, "the mean of its 2 ingredients"),
    ]
    del records["soup"]
    assert not any(one.key == "soup" for one in list_comparisons(outline, records))
    assert list_with_lengths(outline) == ["soup", "soup/greedy"]


def test_a_run_takes_over_what_its_recipe_leaves_out_and_contradicts_nothing(place: Path) -> None:
    tree = yaml.safe_load((place / "pairs.yaml").read_text())
    tree["model"] = {"lora": {"rank": 2}}
    (place / "short.yaml").write_text(yaml.safe_dump(tree))
    steps = {"first": {"train": "last"}, "next": {"train": "short", "start": "first"}}
    taken = outline_of(place, steps).jobs["next"].recipe
    assert taken is not None and taken.model.readout.name == "last_token"
    assert (taken.model.base, taken.model.max_tokens) == ("bundled:gemma-3-270m", 48)
    head = {"model.head": {"widths": [16]}}
    with pytest.raises(InputError) as caught:
        outline_of(
            place,
            {"first": {"train": "last", "set": head}, "next": {"train": "pairs", "start": "first"} | {"set": head}},
        )
    line = str(caught.value)
    assert line.startswith('steps.next: pairs.yaml has model.readout {"name": "mean"') and "\n" not in line
    assert 'and first, which it starts from, has {"name": "last_token"' in line and line.endswith("give both the same")
    # A start without weights of a head or readout takes new ones.
    new = outline_of(place, {"first": {"train": "last"}, "next": {"train": "pairs", "start": "first", "set": head}})
    added = new.jobs["next"].recipe
    assert added is not None and added.model.readout.name == "mean" and added.model.head is not None
