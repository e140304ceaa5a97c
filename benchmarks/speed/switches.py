"""What each switch is worth on this machine: trained real tokens per second with it one way over the other.

    python -m benchmarks.speed.switches [--only compile fused_rotary]

The recipe as it is against the recipe with one switch the other way: both in one process, a block of steps each in
turn. Both train the same batches; the program fails where the first loss, of the same weights, differs by more than
rounding. (Later ones may: Adam's first steps go by the signs of gradients, and rounding turns a few in a hundred.) A
ratio above 1 says that the default is the faster way. Where it lies below, the default should be the other one on such
a machine. What was measured is kept; a run that was stopped goes on with what is left.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.shared.our_trainer import Ours, build_ours
from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from benchmarks.shared.saved_measurements import SavedMeasurements
from benchmarks.speed.training_speed import PLAIN, QUICKSTART, chosen_rows
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.errors import InputError, WorkError
from gemma4vec.machine.device import choose_device
from gemma4vec.model.backbone.kernel_options import DEFAULTS
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.recipe.load import dump_recipe, load_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.engine.process_memory import keep_freed_memory, release_memory

LAYOUT = "stages.0.layout"
# Switches of the layout, each with the value that is not the recipe's.
OTHER_WAYS = {
    "compile": f"{LAYOUT}.compile=false",
    "packed": f"{LAYOUT}.kind=padded",
    "share_prefixes": f"{LAYOUT}.share_prefixes=false",
    "row_tokens 256": f"{LAYOUT}.row_tokens=256",
    "tokens_per_forward 1024": f"{LAYOUT}.tokens_per_forward=1024",
    "tokens_per_forward 4096": f"{LAYOUT}.tokens_per_forward=4096",
    "no selective checkpointing": f"{LAYOUT}.gradient_checkpointing=selective",
    "no checkpointing": f"{LAYOUT}.gradient_checkpointing=true",
    "no GradCache": f"{LAYOUT}.grad_cache=true",
}
# The two sides round in other places; a wrong switch is off by far more than this share of the first loss.
ROUNDING = 0.02


def main() -> None:
    arguments = parse_arguments()
    ways = other_ways(choose_device().name)
    unknown = sorted(set(arguments.only or ()) - set(ways))
    if unknown:
        raise InputError(f"--only {unknown[0]}: there are {', '.join(ways)}")
    recipe = recipe_of(arguments).model_dump(mode="json")
    about = {name: getattr(arguments, name) for name in ("repeats", "steps", "warm_up")} | {"recipe": recipe}
    kept = SavedMeasurements("switches", about, fresh=arguments.fresh)
    found: dict[str, Any] = {}
    for name in arguments.only or ways:
        found[name] = kept.take(name, lambda change=ways[name]: measure(arguments, change))  # type: ignore[misc]
        print(f"{name:<28} {shown(found[name]['ratio'], 2)}   ({ways[name]})", flush=True)
    measured = {
        "unit": "real tokens per second as the recipe is, over those with the switch the other way",
        "how": "blocks of steps in turn in one process, the same batches",
        "steps": arguments.steps,
        "switches": found,
        "recipe": recipe,
    }
    write_result("switches", measured, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=QUICKSTART, help="whose first stage is trained")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these switches alone")
    parser.add_argument("--repeats", type=int, default=5, help="blocks of each side")
    parser.add_argument("--steps", type=int, default=1, help="optimizer steps in a block")
    parser.add_argument("--warm-up", type=int, default=2, help="steps of each side before the first block")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override in the recipe")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if min(arguments.steps, arguments.repeats, arguments.warm_up) < 1:
        parser.error("--steps, --repeats and --warm-up must be 1 or more")
    return arguments


def other_ways(device: str) -> dict[str, str]:
    """Each switch by its name, as an override that turns it."""
    turned = {name: str(not on).lower() for name, on in asdict(DEFAULTS[device]).items()}
    if device == "cpu":
        del turned["flex_attention"]  # it cannot be trained there
    return OTHER_WAYS | {name: f"{LAYOUT}.fast_paths.{name}={value}" for name, value in turned.items()}


def recipe_of(arguments: argparse.Namespace, *changes: str) -> Recipe:
    """The recipe with what was asked for."""
    whole = load_recipe(arguments.recipe, ["stages.0.budget.minutes=60", PLAIN, *arguments.set])
    first = whole.model_copy(update={"stages": whole.stages[:1]})  # stages must have the same switches
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "first.yaml"
        file.write_text(dump_recipe(first), encoding="utf-8")
        return load_recipe(file, changes)


def measure(arguments: argparse.Namespace, change: str) -> dict[str, Any]:
    """One switch: both sides prepared, then timed in turn."""
    with tempfile.TemporaryDirectory(prefix="switches-") as folder:
        recipes = {"default": recipe_of(arguments), "other": recipe_of(arguments, change)}
        sides = {name: prepared(recipe, arguments, Path(folder) / name) for name, recipe in recipes.items()}
        speeds = in_turn(sides, arguments.repeats, arguments.steps)
    losses = {name: side.losses for name, side in sides.items()}
    apart = abs(losses["default"][0] / losses["other"][0] - 1)
    say(f"the first losses differ by {apart:.2%}")
    if not apart <= ROUNDING:
        raise WorkError(f"{change}: the first losses differ by {apart:.2%}; the two do not train the same")
    del sides
    torch._dynamo.reset()  # the next two compile the same code, and there is a limit to how often
    release_memory()
    ratios = [a / b for a, b in zip(speeds["default"], speeds["other"], strict=True)]
    return {
        "other_way": change,
        "ratio": summary(ratios),
        "default": summary(speeds["default"]),
        "other": summary(speeds["other"]),
        "losses": losses,
    }


def prepared(recipe: Recipe, arguments: argparse.Namespace, folder: Path) -> Ours:
    """A side after its first steps."""
    base = resolve_base(recipe.model.base)
    total = arguments.warm_up + arguments.steps * arguments.repeats
    rows = chosen_rows(load_sources(recipe.stages[0].data).rows, recipe, total + 1)
    ours = build_ours(recipe, base, rows, folder, total)
    ours.prepare()
    for _ in range(arguments.warm_up):
        ours.train(1)
    return ours


def in_turn(sides: dict[str, Ours], repeats: int, steps: int) -> dict[str, list[float]]:
    """Real tokens per second of each block of each side."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            with_its_allocator(side)
            seconds = side.train(steps)
            speeds[name].append(float(np.sum(side.tokens[-steps:])) / seconds)
    return speeds


def with_its_allocator(side: Ours) -> None:
    """The allocator is the process's own: set as this side wants it."""
    keep_freed_memory(side.built.encoder.backbone.fast.keep_freed_memory)


if __name__ == "__main__":
    as_program(main)
