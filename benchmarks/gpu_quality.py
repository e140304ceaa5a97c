"""The quality part of `gpu.py`: train on the rows of a folder for some minutes, and evaluate on its suites."""

import json
from pathlib import Path
from typing import Any

from gpu_models import train_files
from record import say

from gemma4vec.data.suites import load_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.evaluate import evaluate
from gemma4vec.model.embedder import Embedder
from gemma4vec.recipe.load import load_recipe, parse_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.run import start_run, train_run

# What trained best on a CPU (see results/matrix-*), with the batch and the micro-batches that a GPU has room for.
DEFAULT = {
    "name": "gpu-quality",
    "model": {"attention": "causal", "readout": {"name": "last_token"}, "max_tokens": 256, "lora": {"rank": 16}},
    "stages": [
        {
            "task": {"temperature": 0.05},
            "batch": {"rows": 512, "query_tokens": 64, "document_tokens": 256},
            "layout": {"row_tokens": 256, "tokens_per_forward": 32_768},
            "optimiser": {"learning_rate": 5e-4, "warmup_steps": 20, "schedule": "linear"},
        }
    ],
}


def quality_recipe(base: str, data: Path, minutes: float, given: Path | None, smoke: bool) -> Recipe:
    """The recipe given (its data and budget replaced), or `DEFAULT`, on all row files of the folder.

    Raises:
        InputError: the folder has no rows, or the recipe is wrong.
    """
    import yaml

    sources = [
        {"name": file.name.split(".")[0].replace("-", "_"), "source": "jsonl", "path": str(file.resolve())}
        for file in train_files(data)
    ]
    budget = {"steps": 2} if smoke else {"minutes": minutes}
    changes = [f"stages.0.data={json.dumps(sources)}", f"stages.0.budget={json.dumps(budget)}", f"model.base={base}"]
    if smoke:
        changes += ["stages.0.batch.rows=4", "stages.0.layout.tokens_per_forward=512", "stages.0.layout.compile=false"]
    if given is not None:
        return load_recipe(given, changes)
    tree = {**DEFAULT, "stages": [{**DEFAULT["stages"][0], "data": sources, "budget": budget}]}  # type: ignore[dict-item, index]
    return parse_recipe(yaml.safe_dump(tree), "gpu_quality.py", changes)


def suites_of(data: Path, named: list[str]) -> list[Path]:
    """The suites of `data/retrieval`, all or those named.

    Raises:
        InputError: one is not there.
    """
    there = sorted(folder.parent for folder in data.glob("retrieval/*/corpus.jsonl*"))
    names = [folder.name for folder in there]
    missing = [name for name in named if name not in names]
    if missing or not there:
        raise InputError(
            f"{data}/retrieval holds no suite {missing[0] if missing else ''}; it holds {', '.join(names)}"
        )
    return [folder for folder in there if not named or folder.name in named]


def quality(recipe: Recipe, suites: list[Path], folder: Path, found: dict[str, Any]) -> None:
    """Train, then evaluate each suite; everything goes into `found`."""
    run = start_run(recipe, folder)
    model = train_run(run, say)
    finished = run.events("finished")[-1]
    steps = run.events("step")
    scores: dict[str, float] = {}
    found |= {
        "ndcg@10": scores,
        "tokens": finished["tokens"],
        "seconds": finished["seconds"],
        "tokens_per_second": finished["tokens"] / max(1e-9, finished["seconds"]),
        "peak_memory_gb": finished["peak_memory_bytes"] / 1e9,
        "steps": len(steps),
        "losses": [round(float(step["loss"]), 4) for step in steps][:: max(1, len(steps) // 50)],
        "recipe": recipe.model_dump(mode="json")["model"] | {"base": Path(recipe.model.base).name},
    }
    embedder = Embedder.load(model, notice=say)
    for path in suites:
        suite = load_suite(path)
        scores[suite.name] = evaluate(embedder, suite, run=run).interval("ndcg@10").mean
        say(f"  {suite.name}: nDCG@10 {scores[suite.name]:.4f}")
    found["mean"] = sum(scores.values()) / len(scores)
