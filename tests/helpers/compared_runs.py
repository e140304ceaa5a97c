"""Runs of different recipes with results on one dev suite, recorded as training and evaluation record them."""

import json
from pathlib import Path

from open_window import recorded
from synthetic_run import add_result, make_run

from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.ledger.recording import record_evaluation
from gemma4vec.ledger.run_folder import RunFolder


def make_runs(home: Path, skills: dict[str, float], *, queries: int = 40, role: str | None = "dev") -> list[str]:
    """One run of each name, whose trained model is better with more skill; returns their ids."""
    ids = []
    for number, (name, skill) in enumerate(skills.items()):
        path = make_run(home, queries=queries, steps=5)
        run, suite = RunFolder(path), load_suite(home / "data" / "pycode" / "test")
        (path / "recipe.yaml").write_text(f"name: {name}\nseed: 0\nstages: [{{budget: {{steps: {5 + number}}}}}]\n")
        run_id = recorded(path, name=name, recipe_id=f"recipe{number}", seed=0)
        add_result(run, suite, "trained", skill, 10 + number)
        for model in ("bm25", "untrained", "trained"):
            _own(run, suite, model, f"fp-{number}" if model == "trained" else model, role)
        ids.append(run_id)
    return ids


def _own(run: RunFolder, suite: RetrievalSuite, model: str, fingerprint: str, role: str | None) -> None:
    """Say whose the result is, and which role its suite has."""
    file = run.evaluation(model, suite.name) / "metrics.json"
    value = json.loads(file.read_text())
    recipe = run.manifest["recipe_id"] if model == "trained" else None
    value["settings"] |= {"model_fingerprint": fingerprint, "run": {"run_id": run.run_id, "recipe_id": recipe}}
    value["settings"]["suite"]["role"] = role
    file.write_text(json.dumps(value))
    record_evaluation(file.parent)
