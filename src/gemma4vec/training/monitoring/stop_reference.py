"""The reference of a stop rule, on the rule's own suite: a saved result, BM25, or another run's model.

An existing result is used. Otherwise the reference is evaluated now, before the training. Its result is stored where
`gemma4vec eval` stores it.
"""

import logging
from pathlib import Path

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.find_results import TRAINED, free_folder, results_by_suite
from gemma4vec.evaluation.planning.stop_question import BM25
from gemma4vec.evaluation.results.result import METRICS_FILE, Result, load_matching_result, load_result
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.files import home
from gemma4vec.ledger.run_folder import RunFolder, find_run
from gemma4vec.ledger.run_recipe import read_recipe
from gemma4vec.model.bases.weights import hash_weights
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.stop_rule import StopRule
from gemma4vec.training.monitoring.weight_snapshots import (
    WeightSnapshot,
    checkpoint_models,
    checkpoint_name,
    kept_checkpoints,
)

logger = logging.getLogger(__name__)


def check_reference(rule: StopRule, stage: int, suite: RetrievalSuite, key: str) -> None:
    """Refuse a reference that is missing or cannot be compared, without evaluating anything.

    Raises:
        InputError: one line that begins with `key`.
    """
    found = _result_folder(rule, key)
    if found is not None:
        _usable(_result_in(found, suite, key), rule, suite, key)
    elif rule.reference != BM25:
        run = _run(rule, key)
        if rule.reference_at == "same_place":
            _places(run, rule, stage, suite, key)
        elif not run.model.is_dir() and _known(run.path / "evals" / TRAINED, suite) is None:
            raise InputError(
                f"{key}.reference: {run.path} has no finished model and no result on {suite.name}; finish it by "
                f"gemma4vec train --resume {run.path}, or name another"
            )


def reference_results(rule: StopRule, stage: int, suite: RetrievalSuite, key: str) -> list[Result]:
    """Return the reference's results: one, or with `reference_at: same_place` one for each look.

    Raises:
        InputError: as `check_reference`, or the reference cannot be evaluated.
    """
    folder = _result_folder(rule, key)
    if folder is not None:
        found = [_result_in(folder, suite, key)]
    elif rule.reference == BM25:
        found = [_known(home() / "evals" / BM25, suite) or _bm25(suite)]
    elif rule.reference_at == "same_place":
        found = _at_places(_run(rule, key), rule, stage, suite, key)
    else:
        run = _run(rule, key)
        weights = hash_weights(run.model) if run.model.is_dir() else None
        found = [_known(run.path / "evals" / TRAINED, suite, weights) or _trained(run, suite)]
    for one in found:
        _usable(one, rule, suite, key)
    return found


def _result_folder(rule: StopRule, key: str) -> Path | None:
    """Return the folder that `reference` names if it holds results and is not a run; else None."""
    path = Path(rule.reference).expanduser()
    if not path.is_dir() or not ((path / METRICS_FILE).is_file() or results_by_suite(path)):
        return None
    if rule.reference_at == "same_place":
        raise InputError(f"{key}.reference_at: {path} is a saved result, which has one place; leave reference_at out")
    return path


def _result_in(folder: Path, suite: RetrievalSuite, key: str) -> Result:
    if (folder / METRICS_FILE).is_file():
        return load_result(folder)
    found = results_by_suite(folder)
    if suite.name not in found:
        raise InputError(f"{key}.reference: {folder} has results on {', '.join(found)}, none on {suite.name}")
    return load_result(found[suite.name])


def _usable(result: Result, rule: StopRule, suite: RetrievalSuite, key: str) -> None:
    """Refuse a result on other contents, or without the metric."""
    if result.contents != suite.fingerprint:
        raise InputError(
            f"{key}.reference: {result.model} was evaluated on {result.suite}, the rule looks at {suite.name}, which "
            "has other queries or documents; name a run or bm25, or let evaluation.max_queries and max_documents fit it"
        )
    if rule.metric not in result.metrics:
        raise InputError(f"{key}.metric: {result.model} has no {rule.metric}; it has {', '.join(result.metrics)}")


def _run(rule: StopRule, key: str) -> RunFolder:
    try:
        return find_run(rule.reference, home())
    except InputError as error:
        raise InputError(f"{key}.reference: {error}; or bm25, or the folder of a saved result") from error


def _known(folder: Path, suite: RetrievalSuite, weights: str | None = None) -> Result | None:
    """Load a result on these contents below `folder`, not of other weights; None if there is none."""
    return load_matching_result(folder / suite.name, suite.fingerprint, weights=weights)


def _bm25(suite: RetrievalSuite) -> Result:
    model = Bm25Model()
    return evaluate(model, suite, free_folder(home() / "evals" / BM25, suite.name, model))


def _trained(run: RunFolder, suite: RetrievalSuite) -> Result:
    """Evaluate the finished model of a run now."""
    logger.info(f"evaluating the stop rule's reference, {run.run_id}, on {suite.name}")
    model = CachedEmbedder(Embedder.load(run.path))
    folder = free_folder(run.path / "evals" / TRAINED, suite.name, model, replaces_other_weights=True)
    return evaluate(model, suite, folder, run=run)


def _at_places(run: RunFolder, rule: StopRule, stage: int, suite: RetrievalSuite, key: str) -> list[Result]:
    """Return results of the reference's checkpoints at the looks; missing ones are evaluated from its kept weights."""
    places = _places(run, rule, stage, suite, key)
    missing = [kept for kept in places.values() if isinstance(kept, WeightSnapshot)]
    made: dict[int, Result] = {}
    for one, model in checkpoint_models(run, read_recipe(run), missing):
        logger.info(f"evaluating the stop rule's reference, {one.name} of {run.run_id}, on {suite.name}")
        out = run.evaluation(one.name, suite.name)
        made[one.step] = evaluate(CachedEmbedder(model), suite, out, name=one.name, run=run)
    return [made[step] if isinstance(found, WeightSnapshot) else found for step, found in places.items()]


def _places(
    run: RunFolder, rule: StopRule, stage: int, suite: RetrievalSuite, key: str
) -> dict[int, Result | WeightSnapshot]:
    """Return step -> the reference's result at that step, or its kept weights; steps are shares of its own budget."""
    ends = [event for event in run.events("stage_finished") if event.get("stage") == stage]
    if not ends:
        raise InputError(f"{key}.reference: {run.path} has not finished its stage {stage}, so it has no such places")
    weights = {one.step: one for one in kept_checkpoints(run, read_recipe(run)) if one.stage == stage}
    places: dict[int, Result | WeightSnapshot] = {}
    for step in rule.steps(int(ends[-1].get("steps_of_budget") or ends[-1]["steps"])):
        found = _known(run.path / "evals" / checkpoint_name(stage, step), suite) or weights.get(step)
        if found is None:
            raise InputError(
                f"{key}.reference_at: {run.path} kept no weights after step {step} of stage {stage} (it has "
                f"{', '.join(map(str, sorted(weights))) or 'none'}); use reference_at: end, or train it again with "
                "snapshot_at_shares"
            )
        places[step] = found
    if len(places) < len(rule.grid):
        raise InputError(f"{key}: two looks fall on one step of {run.path}; plan fewer")
    return places
