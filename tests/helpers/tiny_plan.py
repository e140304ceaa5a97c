"""A plan of tiny models on made-up rows of two sources."""

from pathlib import Path
from typing import Any

import yaml
from tiny_matrix import THINGS, VERBS, write_suites

from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.pipeline.plan.jobs import Outline, make_outline
from gemma4vec.recipe.plans.plan import load_plan
from gemma4vec.text.prompts import Document


def write_recipes(root: Path, base: str | None = None) -> Path:
    """A folder with rows of the sources `one` and `two` and the recipes `pairs` and `last`; no base is written."""
    for name, verbs in (("one", VERBS[:3]), ("two", VERBS[3:])):
        rows = [Row(f"{verb} the {thing}", [Document(f"def {thing}_{verb}")]) for verb in verbs for thing in THINGS]
        write_rows(root / f"{name}.jsonl", rows)
    for name, readout in (("pairs", "mean"), ("last", "last_token")):
        recipe = _recipe(root, name, readout, base or str(root / "base"))
        (root / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return root


def write_plan_place(root: Path) -> Path:
    """As `write_recipes`, with a tiny base and suites."""
    from tiny_gemma import write_tiny_gemma

    write_tiny_gemma(root / "base")
    write_suites(root / "suites")
    return write_recipes(root)


def _recipe(root: Path, name: str, readout: str, base: str) -> dict[str, Any]:
    stage = {
        "data": [{"name": source, "path": str(root / f"{source}.jsonl")} for source in ("one", "two")],
        "task": {"terms": [{"kind": "nce", "matryoshka": [16]}]},
        "batch": {"rows": 4},
        "layout": {"row_tokens": 32, "tokens_per_forward": 256, "compile": False},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 1},
        "budget": {"steps": 2},
        "evaluation": {"checkpoint_seconds": 0},
    }
    model = {
        "base": base,
        "dtype": "fp32",
        "readout": {"name": readout},
        "max_tokens": 48,
        "lora": {"rank": 2},
    }
    return {"name": name, "model": model, "stages": [stage]}


STEPS: dict[str, Any] = {
    "first": {"train": "pairs.yaml"},
    "mixed": {
        "train": "pairs",
        "start": "first",
        "mixtures": {"a": {"one": 3, "two": 1}, "b": {"one": 1, "two": 3}},
        "share": 3,
    },
    "soup": {"soup": {"of": "mixed", "also": "greedy"}},
}


def write_plan(root: Path, steps: dict[str, Any] | None = None, **changes: Any) -> Path:
    """The plan's file; `changes` replace its keys."""
    plan = {
        "name": "tiny",
        "suites": {"dev": [str(root / "suites" / "tune")]},
        "steps": STEPS if steps is None else steps,
    } | changes
    file = root / "plan.yaml"
    file.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    return file


def outline_of(root: Path, steps: dict[str, Any] | None = None, **changes: Any) -> Outline:
    """The outline of that plan."""
    return make_outline(load_plan(write_plan(root, steps, **changes)), root)
