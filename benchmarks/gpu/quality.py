"""The quality part of `gpu`: train on the rows of a folder for some minutes, and evaluate on its dev suites.

Final suites are not opened here: they are for frozen recipes (docs/concepts/ledger.md). Their texts are read all the
same, to leave out of the training data what they hold; nothing is scored on them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.found import Found
from benchmarks.gpu.models import train_files
from benchmarks.shared.record import say
from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.data.loading.resolve_names import resolve_suites
from gemma4vec.data.quality.check import check_sources, make_records
from gemma4vec.data.quality.cleaning import write_clean
from gemma4vec.data.quality.contamination_record import write_record
from gemma4vec.data.quality.overlap import NEAR
from gemma4vec.data.suites.group import AnySuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.load import load_recipe, parse_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.recipe.sources import source_of
from gemma4vec.training.run import start_run, train_run

# The suites that guide choices; all others of a data folder are kept for the end.
DEV = ("cranfield", "cosqa", "dbpedia_entity_5k")
# What trained best on a CPU (see results/matrix-*), with the batch and the micro-batches that a GPU has room for.
DEFAULT = {
    "name": "gpu-quality",
    "model": {"attention": "causal", "readout": {"name": "last_token"}, "max_tokens": 256, "lora": {"rank": 16}},
    "stages": [
        {
            "task": {"temperature": 0.05},
            "batch": {"rows": 512, "query_tokens": 64, "document_tokens": 256},
            "layout": {"row_tokens": 256, "tokens_per_forward": 32_768},
            "optimizer": {"learning_rate": 5e-4, "warmup_steps": 20, "schedule": "linear"},
        }
    ],
}


def dev_suites(data: Path, named: list[str]) -> list[AnySuite]:
    """Those of `data/retrieval` that are `named`, or those of `DEV` that are there; opened as dev suites.

    Raises:
        InputError: one is not there, none is, or one says itself that it is final.
    """
    there = _suites_of(data)
    wanted = named or [name for name in DEV if name in there]
    missing = [name for name in wanted if name not in there]
    if missing or not wanted:
        raise InputError(
            f"{data}/retrieval holds {f'no suite {missing[0]}' if missing else 'none of the dev suites'}; it holds "
            f"{', '.join(there) or 'none'}; name those with --suites that may guide choices: they are looked at"
        )
    return [open_suite(str(there[name]), role="dev") for name in wanted]


def _suites_of(data: Path) -> dict[str, Path]:
    return {folder.parent.name: folder.parent for folder in sorted(data.glob("retrieval/*/corpus.jsonl*"))}


def clean_sources(data: Path, folder: Path, found: Found) -> list[dict[str, Any]]:
    """The folder's row files without what any of its suites holds, as `data check --clean` writes them."""
    sources = [
        source_of(name=file.name.split(".")[0].replace("-", "_"), source="jsonl", path=str(file.resolve()))
        for file in train_files(data)
    ]
    suites = resolve_suites([str(path) for path in _suites_of(data).values()])
    reports = check_sources(sources, suites)
    for stamp in make_records(reports, suites, NEAR):
        write_record(stamp)
    kept = write_clean(folder, reports)
    rows = {report.name: {"rows": len(report.rows), "kept": kept[report.name]} for report in reports}
    found.keep(sources=rows, checked_against=[suite.name for suite in suites])
    return [{"name": name, "source": "jsonl", "path": str(folder / f"{name}.jsonl.gz")} for name in kept if kept[name]]


def quality_recipe(
    base: str, sources: Sequence[dict[str, Any]], budget: dict[str, float], given: Path | None, more: list[str]
) -> Recipe:
    """The recipe given (its data and budget replaced), or `DEFAULT`, on these sources, with `more` changes.

    Raises:
        InputError: the recipe is wrong.
    """
    import yaml

    changes = [f"stages.0.data={json.dumps(sources)}", f"stages.0.budget={json.dumps(budget)}", f"model.base={base}"]
    changes += more
    if given is not None:
        return load_recipe(given, changes)
    stage: dict[str, Any] = DEFAULT["stages"][0]  # type: ignore[assignment, index]
    tree = {**DEFAULT, "stages": [{**stage, "data": list(sources), "budget": budget}]}
    return parse_recipe(yaml.safe_dump(tree), "gpu_quality.py", changes)


def quality(recipe: Recipe, suites: Sequence[AnySuite], folder: Path, found: Found) -> None:
    """Train, then evaluate each suite; everything goes into `found`. Looks go into the ledger of the outputs' home."""
    run = start_run(recipe, folder)
    model = train_run(run)
    finished = run.events("finished")[-1]
    steps = run.events("step")
    scores: dict[str, float] = {}
    found.keep(
        training={
            "tokens": finished["tokens"],
            "seconds": finished["seconds"],
            "tokens_per_second": finished["tokens"] / max(1e-9, finished["seconds"]),
            "peak_memory_gb": finished["peak_memory_bytes"] / 1e9,
            "steps": len(steps),
            "losses": [round(float(step["loss"]), 4) for step in steps][:: max(1, len(steps) // 50)],
            "prepared": [
                {key: event[key] for key in ("compile", "compile_reason")} for event in run.events("prepared")
            ],
        },
        recipe=recipe.model_dump(mode="json")["model"] | {"base": Path(recipe.model.base).name},
        recipe_id=run.manifest["recipe_id"],
    )
    embedder = Embedder.load(model)
    for suite in suites:
        scores[suite.name] = evaluate(embedder, suite, run=run).interval("ndcg@10").mean
        say(f"  {suite.name}: nDCG@10 {scores[suite.name]:.4f}")
        found.keep(**{"ndcg@10": scores, "mean": sum(scores.values()) / len(scores), "looks": looks_of(run.run_id)})


def looks_of(run_id: str) -> list[dict[str, Any]]:
    """What the ledger says that this run was looked at on."""
    with open_ledger(home()) as ledger:
        return ledger.rows(
            "SELECT DISTINCT time, suite, suite_fingerprint, role FROM looks WHERE run_id = ?", (run_id,)
        )
