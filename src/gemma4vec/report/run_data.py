"""What a run folder holds, read for the report. A part that is missing or damaged is named, not fatal."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.evaluation.compare import Comparison, compare
from gemma4vec.evaluation.result import Result, load_result, load_top
from gemma4vec.ledger.runs import RunFolder
from gemma4vec.report.training_log import TrainingLog, read_training

MODELS = {"bm25": "BM25", "untrained": "untrained base", "trained": "trained model"}
METRICS = {"ndcg@10": "nDCG@10", "recall@100": "Recall@100", "mrr@10": "MRR@10", "map": "MAP"}
PRIMARY = "ndcg@10"
VALUE_CHARACTERS = 2000

Top = Mapping[str, list[tuple[str, float]]]
"""Query id -> (document id, score), best first."""


@dataclass
class SuiteResults:
    """The results of all models on one suite, in the order of `MODELS`, then by name."""

    name: str
    results: dict[str, Result]
    tops: dict[str, Top]
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    """The trained model minus each of the others on nDCG@10, by the other's name."""


@dataclass
class RunData:
    """All that the report shows."""

    path: Path
    manifest: dict[str, Any]
    recipe_text: str
    training: TrainingLog
    suites: list[SuiteResults]
    missing: list[str]
    """One sentence for each part that is not there."""

    @property
    def run_id(self) -> str:
        """The run's unique name."""
        return str(self.manifest["run_id"])


def read_run(path: Path) -> RunData:
    """Read a run folder.

    Raises:
        InputError: `path` is no run folder.
    """
    run = RunFolder.open(path)
    missing: list[str] = []
    try:
        recipe_text = run.recipe_text
    except (OSError, UnicodeDecodeError) as error:
        recipe_text = ""
        missing.append(f"The recipe cannot be read ({type(error).__name__}).")
    events = run.events()
    if events.torn:
        missing.append(f"{len(events.torn)} line(s) of events.jsonl are torn, as a killed process leaves them.")
    training = read_training(events)
    if not training.steps:
        missing.append("No training step was recorded.")
    elif training.finished is None:
        missing.append(f"Training was stopped before its end: the last step recorded is {training.steps[-1].step:,}.")
    if training.skipped_losses:
        missing.append(f"{training.skipped_losses:,} step(s) have a loss that is not a finite number.")
    suites = _read_suites(path / "evals", missing)
    return RunData(path, run.manifest, recipe_text, training, suites, missing)


def _read_suites(evals: Path, missing: list[str]) -> list[SuiteResults]:
    """Results grouped by suite, with the comparisons that they allow."""
    found: dict[str, dict[str, Path]] = {}
    for metrics in sorted(evals.glob("*/*/metrics.json")):
        found.setdefault(metrics.parent.name, {})[metrics.parent.parent.name] = metrics.parent
    if not found:
        missing.append("No evaluation of this run was found.")
    suites = []
    for name, folders in sorted(found.items()):
        suite = SuiteResults(name, {}, {})
        for model in sorted(folders, key=lambda model: (_place(model), model)):
            try:
                suite.results[model] = load_result(folders[model])
                suite.tops[model] = load_top(folders[model])
            except (InputError, OSError, ValueError, KeyError) as error:
                missing.append(f"The result of {label(model)} on {name} cannot be read: {error}.")
        absent = [label(model) for model in MODELS if model not in suite.results]
        if absent:
            missing.append(f"Not evaluated on {name}: {', '.join(absent)}.")
        _compare_all(suite, missing)
        if suite.results:
            suites.append(suite)
    return suites


def _place(model: str) -> int:
    return list(MODELS).index(model) if model in MODELS else len(MODELS)


def _compare_all(suite: SuiteResults, missing: list[str]) -> None:
    """The trained model against every other; a comparison that would not be fair is named instead."""
    trained = suite.results.get("trained")
    if trained is None:
        return
    for model, result in suite.results.items():
        if model == "trained":
            continue
        try:
            suite.comparisons[model] = compare(trained, result, PRIMARY)
        except InputError as error:
            missing.append(f"The trained model is not compared with {label(model)} on {suite.name}: {error}.")


def label(model: str) -> str:
    """A model's name for people."""
    return MODELS.get(model, model)


def suite_folder(run: RunData, name: str) -> Path | None:
    """Where the suite's texts stand, if the manifest says so."""
    suites = run.manifest.get("suites")
    entry = suites.get(name) if isinstance(suites, dict) else None
    place = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(place, str):
        return None
    return Path(place) if Path(place).is_absolute() or Path(place).exists() else run.path / place


def shortened(text: str, characters: int) -> str:
    """The text, cut with an ellipsis where it is longer than `characters`."""
    return text if len(text) <= characters else text[: characters - 3] + "..."


def as_text(value: Any) -> str:
    """A JSON value for a table cell: strings as they are, what is long shortened."""
    if isinstance(value, str):
        return shortened(value, VALUE_CHARACTERS)
    if isinstance(value, list) and len(value) > 12:
        return f"{as_text(value[:12])} and {len(value) - 12:,} more"
    if isinstance(value, float):
        return f"{value:.6g}"
    return shortened(json.dumps(value, ensure_ascii=False), VALUE_CHARACTERS)
