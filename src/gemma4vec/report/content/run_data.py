"""Contents of the page about one run, read from its folder. A missing or damaged part is listed in `missing`."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.kinds import name_items
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.comparable import check_comparable
from gemma4vec.evaluation.comparison.comparison_count import NotComparedError, check_compared, contents
from gemma4vec.evaluation.comparison.corrected import compare_pairs
from gemma4vec.evaluation.comparison.paired import Comparison, LargestDifferences
from gemma4vec.evaluation.results.result import OpenedAs, Result, load_result, load_top
from gemma4vec.evaluation.results.task_scores import PAIRED
from gemma4vec.files import home
from gemma4vec.ledger.comparison_count import ComparisonFamily
from gemma4vec.ledger.records import CHECKPOINT, decision_record
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.report.content.stop_looks import StopLooks, read_looks
from gemma4vec.report.content.training_log import TrainingLog, read_training
from gemma4vec.text.counted import counted

MODELS = {
    "bm25": "BM25",
    "untrained": "untrained base",
    "public": "all-MiniLM-L6-v2",
    "trained": "trained model",
}
# A run need not have these to be complete.
OPTIONAL = frozenset({"public"})
METRICS = {"ndcg@10": "nDCG@10", "recall@100": "Recall@100", "mrr@10": "MRR@10", "map": "MAP"}
PRIMARY = "ndcg@10"
VALUE_CHARACTERS = 2000

CheckpointResults = dict[str, dict[tuple[int, int], Result]]

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
    largest: dict[str, LargestDifferences] = field(default_factory=dict)
    """Queries for the examples of two results that this page does not compare."""
    names: dict[str, str] = field(default_factory=dict)
    """Names of models on the page that replace `label`."""
    family: ComparisonFamily | None = None
    """The ledger's count of comparisons, which corrects these."""
    kept: frozenset[str] = frozenset()
    """Models whose results are not the run's own, but were found below `HOME/evals/`."""


@dataclass
class RunData:
    """The contents of the page about one run."""

    path: Path
    manifest: dict[str, Any]
    recipe_text: str
    training: TrainingLog
    suites: list[SuiteResults]
    missing: list[str]
    """One sentence for each missing part."""
    decision: tuple[str, str] | None = None
    """The last decision about the run, and its reason."""
    checkpoints: CheckpointResults = field(default_factory=dict)
    """Suite -> (stage, step) -> result of that checkpoint."""
    stop: StopLooks | None = None
    """The stop rule and its looks, if the recipe has one."""

    @property
    def hypothesis(self) -> str:
        """The effect that the recipe predicted before training; may be empty."""
        return str(self.manifest.get("hypothesis") or "")

    @property
    def run_id(self) -> str:
        """The run's unique name."""
        return str(self.manifest["run_id"])


def read_run(path: Path, *, compared: bool = True, only_known: bool = False) -> RunData:
    """Read a run folder. With `compared`, compare its models; the ledger records these comparisons.

    With `only_known`, comparisons that the ledger has already are shown, and nothing is recorded.

    Raises:
        InputError: `path` is not a run folder.
        NotComparedError: `only_known`, and the ledger lacks a comparison.
    """
    run = RunFolder.open(path)
    missing: list[str] = []
    try:
        recipe_text = run.recipe_text
    except (OSError, InputError) as error:
        recipe_text = ""
        missing.append(f"The recipe cannot be read ({type(error).__name__}).")
    events = run.events()
    if events.torn:
        torn = counted(len(events.torn), "line of events.jsonl is", "lines of events.jsonl are")
        missing.append(f"{torn} torn; a killed process leaves such lines.")
    training = read_training(events)
    if not training.steps:
        missing.append("No training step was recorded.")
    elif training.finished is None:
        missing.append(f"Training stopped before its end: the last recorded step is {training.steps[-1].step:,}.")
    ended = run.manifest.get("ended") or {}
    if ended.get("by") == "stop rule":
        missing.append(f"The rest of the budget: the stop rule ended the training after step {ended.get('step')}.")
    if training.skipped_losses:
        skipped = counted(training.skipped_losses, "step has", "steps have")
        missing.append(f"{skipped} a loss that is not finite.")
    suites = _read_suites(path / "evals", missing, compared=compared, only_known=only_known)
    made = decision_record(path)
    decision = (str(made.body.get("decision")), str(made.body.get("words") or "")) if made else None
    checkpoints = _read_checkpoints(path / "evals", missing)
    stop = read_looks(events)
    return RunData(path, run.manifest, recipe_text, training, suites, missing, decision, checkpoints, stop)


def _read_checkpoints(evals: Path, missing: list[str]) -> CheckpointResults:
    """Read the results of the run's checkpoints, by suite and (stage, step)."""
    found: CheckpointResults = {}
    for metrics in sorted(evals.glob(f"{CHECKPOINT}-*/*/metrics.json")):
        try:
            _, stage, step = metrics.parent.parent.name.split("-")
            place, result = (int(stage), int(step)), load_result(metrics.parent)
        except (InputError, OSError, ValueError) as error:
            missing.append(f"The result of a checkpoint cannot be read: {error}.")
            continue
        found.setdefault(result.suite, {})[place] = result
    return found


def _read_suites(evals: Path, missing: list[str], *, compared: bool, only_known: bool) -> list[SuiteResults]:
    """Read results grouped by suite, and compare the models of each suite if `compared`."""
    found: dict[str, dict[str, Path]] = {}
    for metrics in sorted(evals.glob("*/*/metrics.json")):
        if not metrics.parent.parent.name.startswith(CHECKPOINT):
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
        _add_kept_bm25(suite)
        absent = [label(model) for model in MODELS if model not in suite.results and model not in OPTIONAL]
        if absent and compared:
            missing.append(f"Not evaluated on {name}: {', '.join(absent)}.")
        if compared:
            _compare_all(suite, missing, only_known)
        if suite.results:
            suites.append(suite)
    return suites


def find_bm25(like: Result) -> tuple[Path, Result] | None:
    """Find BM25's folder and result on the same contents below `HOME/evals/`, where `gemma4vec eval bm25` puts them."""
    for metrics in sorted((home() / "evals").glob("bm25*/*/metrics.json")):
        try:
            if contents(result := load_result(metrics.parent)) == contents(like):
                return metrics.parent, result
        except InputError:
            continue  # a damaged result outside the runs; BM25's row is optional
    return None


def _add_kept_bm25(suite: SuiteResults) -> None:
    """Add BM25's result where the run has none of its own."""
    like = suite.results.get("trained")
    if like is None or "bm25" in suite.results or (kept := find_bm25(like)) is None:
        return
    folder, result = kept
    with contextlib.suppress(InputError, OSError, ValueError, KeyError):  # found documents are optional
        suite.tops["bm25"] = load_top(folder)
    suite.results = {"bm25": result, **suite.results}
    suite.kept = frozenset({"bm25"})


def _place(model: str) -> int:
    return list(MODELS).index(model) if model in MODELS else len(MODELS)


def _compare_all(suite: SuiteResults, missing: list[str], only_known: bool) -> None:
    """Compare the trained model with every other; a pair that is not comparable goes to `missing`."""
    trained = suite.results.get("trained")
    if trained is None:
        return
    others = {}
    for model, result in suite.results.items():
        if model == "trained":
            continue
        try:
            check_comparable(trained, result, primary_metric(trained))
            others[model] = result
        except InputError as error:
            missing.append(f"The trained model is not compared with {label(model)} on {suite.name}: {error}.")
    if only_known and (unknown := _unknown_kept(suite, trained, others)):
        owner = (trained.settings.get("run") or {}).get("run_id") or "RUN"
        for model in unknown:
            del others[model]
            missing.append(
                f"The trained model has not been compared with {label(model)} on {suite.name} yet; compare them, which "
                f"the ledger counts, with: gemma4vec report {owner}"
            )
    if others:
        compared, suite.family = compare_pairs(
            [(trained, result) for result in others.values()], primary_metric(trained), only_known=only_known
        )
        suite.comparisons = dict(zip(others, compared, strict=True))


def _unknown_kept(suite: SuiteResults, trained: Result, others: Mapping[str, Result]) -> list[str]:
    """The results from outside of the run that the ledger does not have as compared with the trained model."""
    unknown = []
    for model in suite.kept & others.keys():
        try:
            check_compared([(trained, others[model])], primary_metric(trained))
        except NotComparedError:
            unknown.append(model)
    return unknown


def primary_metric(result: Result) -> str:
    """Return a result's main metric: nDCG@10 for retrieval, else the suite's own."""
    return PRIMARY if PRIMARY in result.metrics else result.metric


def select_columns(result: Result) -> dict[str, str]:
    """Return metric -> column title for a table of results like this one."""
    return {name: title for name, title in METRICS.items() if name in result.metrics} or {
        name: name for name in result.metrics
    }


def describe_method(kind: str, *, over_seeds: bool = False) -> str:
    """Name the methods behind a comparison's interval and p, for a table caption.

    Args:
        kind: of the suite's tasks.
        over_seeds: whether some comparisons of the table cover seeds.
    """
    if kind in PAIRED:
        return "Interval: 95%, bootstrap over pairs. p: test that swaps the two models' ranks"
    if over_seeds:
        items = name_items(kind)
        return (
            f"Interval and p: 95% bootstrap and Student's t over seeds and {items} where the verdict says so, else "
            f"Student's t and paired sign-flip test over {items}"
        )
    return f"Interval: 95%, over {name_items(kind)}. p: paired sign-flip test"


def label(model: str) -> str:
    """Return a model's display name."""
    return MODELS.get(model, model)


def suite_place(run: RunData, suite: str) -> OpenedAs | None:
    """The words by which the suite's texts open: the manifest's folder, else what a result of the run was opened by.

    None if neither says.
    """
    suites = run.manifest.get("suites")
    entry = suites.get(suite) if isinstance(suites, dict) else None
    place = entry.get("path") if isinstance(entry, dict) else None
    if isinstance(place, str):
        folder = Path(place) if Path(place).is_absolute() or Path(place).exists() else run.path / place
        return {"spec": str(folder.absolute()), "task": None, "mirror": None}
    results = [one.results for one in run.suites if one.name == suite]
    named = [one[name] for one in results for name in sorted(one, key=lambda name: name != "trained")]
    return next((one.opened for one in named if one.opened is not None), None)


def shorten(text: str, characters: int) -> str:
    """Cut the text to `characters`, with an ellipsis if it is longer."""
    return text if len(text) <= characters else text[: characters - 3] + "..."


def format_value(value: Any) -> str:
    """Format a JSON value for a table cell; long values are cut."""
    if isinstance(value, str):
        return shorten(value, VALUE_CHARACTERS)
    if isinstance(value, list) and len(value) > 12:
        return f"{format_value(value[:12])} and {len(value) - 12:,} more"
    if isinstance(value, float):
        return f"{value:.6g}"
    return shorten(json.dumps(value, ensure_ascii=False), VALUE_CHARACTERS)
