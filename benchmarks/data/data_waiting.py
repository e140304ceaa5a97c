"""How long training waits for data: the share of its time, with batches read ahead, and what reading costs by itself.

Trains a recipe for some steps and reads its events; the first steps, which compile and fill the queue, are left out.
Then as many batches are read once more by themselves, nothing else running. Example:

    python -m benchmarks.data.data_waiting src/gemma4vec/pipeline/quickstart.yaml --steps 14 \\
        --set 'stages.0.data=[{name: rows, path: /data/medquad.jsonl.gz}]'
"""

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.shared.record import as_program, say, summary, write_result
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.encoder.build import build
from gemma4vec.recipe.load import load_recipe
from gemma4vec.training.run import recipe_of, start_run, train_run
from gemma4vec.training.tasks.make_task import make_task

SKIPPED = 3


def trained(recipe_file: str, overrides: list[str], steps: int, folder: Path) -> dict[str, Any]:
    """Events of a short run: seconds of each step, and seconds that it waited before."""
    recipe = load_recipe(recipe_file, [*overrides, f"stages.0.budget={{steps: {steps}}}"])
    run = start_run(recipe, folder)
    train_run(run)
    events = run.events("step")
    totals = [event["seconds"] for event in events]
    seconds = [after - before for before, after in zip([0.0, *totals], totals, strict=False)][SKIPPED:]
    waited = [event["waited"] for event in events][SKIPPED:]
    tokens = [event["tokens"] for event in events]
    return {
        "recipe": recipe_of(run).model_dump(mode="json", include={"name": True, "stages": {0: {"batch", "layout"}}}),
        "step_seconds": summary(seconds),
        "waited_seconds": summary(waited),
        "waited_share": sum(waited) / (sum(waited) + sum(seconds)),
        "tokens_per_step": tokens[-1] / len(tokens),
        "padding_share": summary([event["padding_share"] for event in events]),
    }


def read_alone(recipe_file: str, overrides: list[str], steps: int) -> dict[str, Any]:
    """Seconds to draw, tokenize and lay out a batch, on an otherwise idle machine."""
    recipe = load_recipe(recipe_file, overrides)
    stage = recipe.stages[0]
    base = resolve_base(recipe.model.base)
    built = build(recipe.model, base.path, dtype=choose_dtype("cpu", recipe.model.dtype).dtype)
    loaded = load_sources(stage.data, stage.mixture)
    task = make_task(stage, loaded, built, lambda: None, max_tokens=recipe.model.max_tokens, seed=0)
    seconds = []
    started = time.perf_counter()
    for _ in islice(task.batches(), steps):
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return summary(seconds[SKIPPED:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="change a key of the recipe")
    parser.add_argument("--out", type=Path, help="folder of the result; by default benchmarks/results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = trained(given.recipe, given.overrides, given.steps, Path(folder))
    found["reading_alone_seconds"] = read_alone(given.recipe, given.overrides, given.steps)
    say(f"waited for data: {found['waited_share']:.2%} of the time; reading alone: {found['reading_alone_seconds']}")
    write_result("data-waiting", found, *[given.out] if given.out else [])
    return 0


if __name__ == "__main__":
    as_program(main)
