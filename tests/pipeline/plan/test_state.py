"""A plan's folder: what may change while it runs, and what is refused in one line."""

from pathlib import Path
from typing import Any

import pytest
from tiny_plan import STEPS, outline_of, write_recipes

from gemma4vec.errors import InputError
from gemma4vec.pipeline.plan.plan_state import PlanFolder, Record


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipes(tmp_path_factory.mktemp("state"), base="bundled:gemma-3-270m")


@pytest.fixture
def begun(place: Path, tmp_path: Path) -> PlanFolder:
    """A plan whose first two jobs have begun."""
    folder, outline = PlanFolder(tmp_path / "plan"), outline_of(place)
    folder.store(outline)
    for key in ("first", "mixed/a"):
        folder.write(Record(key, outline.jobs[key].step, "train", outline.jobs[key].definition()))
    return folder


def change(step: str, **keys: Any) -> dict[str, Any]:
    return STEPS | {step: STEPS[step] | keys}


NO_START = {key: value for key, value in STEPS["mixed"].items() if key != "start"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"steps": change("mixed", set={"stages.0.batch.rows": 8})},
            "mixed/a has begun: recipe.stages.0.batch.rows: 4 before, 8 now",
        ),
        (
            {"steps": change("mixed", mixtures={"a": {"one": 2, "two": 1}, "b": {"one": 1}})},
            "mixed/a has begun: recipe.stages.0.data.0.weight: 3.0 before, 2.0 now",
        ),
        ({"steps": {"first": STEPS["first"]}}, "mixed/a has begun and is not in it any more"),
        (
            {"steps": {"first": STEPS["first"], "mixed": NO_START}},
            'mixed/a has begun: needs: "first" before, "" now',
        ),
        ({"steps": {"first": {"train": "last.yaml"}}}, "first has begun: recipe.model.readout.name"),
        ({"metric": "map"}, 'metric: "ndcg@10" before, "map" now'),
        ({"suites": {"dev": ["elsewhere"]}}, "suites.dev.0.suite: "),
    ],
)
def test_a_plan_that_contradicts_what_has_begun_is_refused(
    place: Path, begun: PlanFolder, changes: dict[str, Any], said: str
) -> None:
    before = (begun.path / "plan.yaml").read_text()
    with pytest.raises(InputError) as caught:
        begun.store(outline_of(place, **changes))
    line = str(caught.value)
    assert line.startswith(f"the plan changed since it began in {begun.path} ({said}") and "\n" not in line
    assert line.endswith("; restore it, or use another --out")
    assert (begun.path / "plan.yaml").read_text() == before and len(begun.records()) == 2


def test_what_has_not_begun_may_change(place: Path, begun: PlanFolder) -> None:
    more = change("mixed", mixtures=STEPS["mixed"]["mixtures"] | {"b": {"one": 1}, "c": {"two": 1}})
    begun.store(outline_of(place, more, budget={"minutes": 5}, hypothesis="none", smallest_effect=0.1, lengths=[8]))
    plan = begun.plan
    assert plan is not None and list(plan.steps["mixed"].mixtures) == ["a", "b", "c"]


def test_a_damaged_record_is_named(begun: PlanFolder) -> None:
    (begun.path / "steps" / "mixed" / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"steps/mixed/a.json is damaged .*; delete it to do this step again"):
        begun.records()


def test_steps_and_models_never_share_a_file(tmp_path: Path) -> None:
    folder = PlanFolder(tmp_path)
    keys = ["a", "a/b", "a-b", "a--b", "b"]
    for place_of in (folder.model, folder.results, folder.made, folder.runs):
        assert len({place_of(key) for key in keys}) == len(keys)
