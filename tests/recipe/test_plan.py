"""What a plan's file may say, and that each mistake in it is one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gemma4vec.errors import InputError
from gemma4vec.recipe.find import find_plan
from gemma4vec.recipe.plans.plan import Plan, dump_plan, load_plan

TRAIN = {"train": "a.yaml"}
MIXED = {"train": "a.yaml", "mixtures": {"x": {"s": 1}, "y": {"t": 1}}}


def load(folder: Path, steps: dict[str, Any], **changes: Any) -> Plan:
    file = folder / "plan.yaml"
    plan = {"name": "p", "suites": {"dev": ["suites/a"]}, "steps": steps} | changes
    file.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    return load_plan(file)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"a": TRAIN | {"start": "b"}, "b": TRAIN | {"start": "a"}}, "steps: a cycle: a needs b needs a"),
        ({"a": TRAIN | {"start": "a"}}, "steps: a cycle: a needs a"),
        ({"a": TRAIN | {"start": "b"}, "b": TRAIN}, "steps.a needs b, which comes later; move b up"),
        ({"first": TRAIN, "b": TRAIN | {"start": "frist"}}, "steps.b: there is no step 'frist'; did you mean 'first'?"),
        ({"a": MIXED, "b": TRAIN | {"start": "a"}}, "steps.b: a has several models; name one of a/x, a/y"),
        ({"a": MIXED, "b": TRAIN | {"start": "a/z"}}, "steps.b: there is no 'a/z'; the step a has a/x, a/y"),
        ({"a": TRAIN, "b": {"soup": {"of": "a"}}}, "steps.b.soup.of: a soup needs two models or more, a is one"),
        ({"a": MIXED, "b": {"soup": {"of": ["a/x"]}}}, "steps.b.soup.of: a soup needs two models or more, a/x is one"),
        (
            {"a": MIXED, "b": {"soup": {"of": "a", "also": "uniform"}}},
            "steps.b.soup: a method is given twice",
        ),
        (
            {"a": TRAIN, "b": {"quantize": {"of": "a", "schemes": ["q3"]}}},
            "steps.b.quantize.schemes.0: Input should be 'q8_0', 'q4_0' or 'mixed'",
        ),
        (
            {"a": TRAIN, "b": {"quantize": {"of": "a", "schemes": ["q4_0"], "control": True}}},
            "steps.b: quantize.control is a training without fake quantization; name a recipe in",
        ),
        ({"a": TRAIN | {"soup": {"of": "b"}}}, "steps.a: give exactly one of train, soup, quantize (found train and"),
        ({"a": {"start": "a"}}, "steps.a: give exactly one of train, soup, quantize (found none)"),
        ({"a": MIXED, "b": {"soup": {"of": "a"}, "keep": 1}}, "steps.b: keep is for a training; soup has no use"),
        ({"a": MIXED | {"keep": 2}}, "steps.a: keep: 2 of 2 runs chooses nothing"),
        # A step may be named as a key of another part.
        ({"soup": {"soup": {"of": "a", "metod": 1}}}, "unknown key 'steps.soup.soup.metod'; did you mean 'method'?"),
        ({"a": TRAIN | {"sahre": 1}}, "unknown key 'steps.a.sahre'; did you mean 'share'?"),
        ({}, "steps: Dictionary should have at least 1 item"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, steps: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, steps)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'plan.yaml'}: {said}") and "\n" not in line


def test_a_plan_without_a_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"suites.dev: Tuple should have at least 1 item"):
        load(tmp_path, {"a": TRAIN}, suites={"dev": []})
    with pytest.raises(InputError, match=r"suites: Field required"):
        (tmp_path / "plan.yaml").write_text("name: p\nsteps: {a: {train: a.yaml}}")
        load_plan(tmp_path / "plan.yaml")
    with pytest.raises(InputError, match=r"the variable suites is not set; give it with --set variables.suites="):
        load(tmp_path, {"a": TRAIN}, suites={"dev": ["${suites}/a"]}, variables={"suites": None})


def test_short_forms_mean_the_long_ones(tmp_path: Path) -> None:
    short = load(tmp_path, {"a": MIXED, "b": {"soup": {"of": "a", "also": "greedy"}}})
    assert short.suites.dev[0].suite == "suites/a" and short.suites.dev[0].max_queries is None
    assert short.steps["b"].soup is not None and short.steps["b"].soup.of == ("a",)
    (tmp_path / "again.yaml").write_text(dump_plan(short))
    assert load_plan(tmp_path / "again.yaml") == short


def test_a_step_says_which_models_it_makes(tmp_path: Path) -> None:
    drawn = MIXED | {"draw": {"dirichlet": 2, "around": {"s": 1, "t": 1}}, "keep": 3}
    quantize = {"of": "soup", "schemes": ["q8_0", "mixed"], "train": "a.yaml", "control": True}
    steps = {"a": TRAIN, "b": drawn, "soup": {"soup": {"of": "b", "also": "greedy"}}, "q": {"quantize": quantize}}
    plan = load(tmp_path, steps)
    assert plan.models("a") == [""] and plan.steps["b"].runs == 4
    assert plan.models("b") == ["x", "y", "draw-0", "draw-1"]
    assert plan.models("soup") == ["", "greedy"]
    assert plan.models("q") == [
        *("q8_0", "mixed", "q8_0-trained", "mixed-trained", "q8_0-control", "mixed-control", "control")
    ]


def test_a_plan_is_found_by_file_or_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^no plan 'embeddinggema/plan': neither a file"):
        find_plan("embeddinggema/plan")
    assert find_plan(tmp_path / "mine.yaml") == tmp_path / "mine.yaml"
