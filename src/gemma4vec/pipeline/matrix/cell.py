"""One cell of a matrix, in its own process: train, score on dev, score on the final suites.

Each step stores its result in the run folder and is skipped if the result exists.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import WorkError
from gemma4vec.evaluation.comparison.find_results import TRAINED
from gemma4vec.evaluation.planning.stop_question import StopQuestion
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.ledger.recording import record_rule_stop
from gemma4vec.ledger.records import SHARE
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.pipeline.matrix.rows_hash import rows_hash
from gemma4vec.recipe.schema import Recipe
from gemma4vec.text.text_embedder import TextEmbedder
from gemma4vec.training.engine.checkpoint import latest_checkpoint, trained_weights
from gemma4vec.training.engine.flops import flops_per_token
from gemma4vec.training.loop import Evaluate
from gemma4vec.training.preflight import refuse_early
from gemma4vec.training.run import Trainer, load_data, recipe_of, recorded
from gemma4vec.training.tasks.make_task import data_seed

logger = logging.getLogger(__name__)

STOPPED = "stopped"  # name of the event


class StoppedError(WorkError):
    """The stop rule ended this training."""


@dataclass(frozen=True)
class CellSpec:
    """The work of a cell's process.

    Attributes:
        run: the run folder.
        dev, final: folders of suites; `final` is empty if only the dev score is needed.
        metric: metric of the stop rule.
        margin: how far below the control the stop rule allows a cell; None: no rule.
        control: the control's run folder, for the stop rule.
        at_end: apply the rule after training, not during it.
        save: write the merged model and evaluate that one on the final suites.
        look_again: suite folder -> reason to score an unfrozen recipe on that final suite.
    """

    run: str
    dev: list[str]
    final: list[str]
    metric: str
    margin: float | None = None
    control: str | None = None
    at_end: bool = False
    save: bool = False
    look_again: Mapping[str, str] = field(default_factory=dict)


def run_cell(spec: CellSpec) -> None:
    """Do all steps of `spec` that its run lacks.

    Raises:
        StoppedError: the stop rule ended the run; also recorded as an event.
        InputError, WorkError: from training and evaluation.
    """
    run = RunFolder.open(Path(spec.run))
    if run.events(STOPPED):
        raise StoppedError(str(run.events(STOPPED)[-1]["reason"]))
    with recorded(run):
        _steps(spec, run)


def _steps(spec: CellSpec, run: RunFolder) -> None:
    recipe = recipe_of(run)
    trainer: Trainer | None = None
    if not _is_trained(run, recipe):
        trainer = _train(spec, run, recipe)
    if _has_missing_results(run, spec.dev) or (_has_missing_results(run, spec.final) and not spec.save):
        trainer = trainer or _reopen_trainer(run, recipe)
        _evaluate_all(spec, run, trainer.embedder(TRAINED), spec.dev if spec.save else [*spec.dev, *spec.final])
    if spec.at_end:
        _stop_if_below_control(spec, run)
    if spec.save and spec.final and _has_missing_results(run, spec.final):
        if not (run.model / "gemma4vec.json").exists():
            (trainer or Trainer(run, resolve_base(recipe.model.base))).save()
        del trainer
        _evaluate_all(spec, run, Embedder.load(run.path), spec.final)


def _train(spec: CellSpec, run: RunFolder, recipe: Recipe) -> Trainer:
    base = resolve_base(recipe.model.base)
    loaded = [load_data(run, recipe, number) for number in range(len(recipe.stages))]
    refuse_early(recipe, base.path, loaded)
    trainer = Trainer(run, base)
    for number, stage in enumerate(recipe.stages):
        _record_cost(run, trainer, recipe, number, loaded[number])
        trainer.train(number, loaded[number], _make_stop_check(spec, run, trainer, stage.evaluation.at_shares))
        # The matrix exports the last checkpoint; the one with the best score is not needed.
        shutil.rmtree(run.checkpoints / f"{number}-{stage.name}" / "best", ignore_errors=True)
    return trainer


def _record_cost(run: RunFolder, trainer: Trainer, recipe: Recipe, number: int, loaded: TrainingData) -> None:
    stage = recipe.stages[number]
    contrast = stage.task.kind == "contrast"
    run.event(
        "cell",
        stage=number,
        contrast=contrast,
        rows_hash=rows_hash(loaded.rows, stage, data_seed(recipe, number)) if contrast else None,
        flops_per_token=flops_per_token(trainer.built.encoder, recomputed=stage.layout.gradient_checkpointing is True),
    )


def _make_stop_check(spec: CellSpec, run: RunFolder, trainer: Trainer, shares: Sequence[float]) -> Evaluate | None:
    """The evaluation at the stop rule's share of the budget: scores on dev, and stops if too far below the control."""
    if not shares:
        return None

    def look() -> tuple[float, dict[str, Any]]:
        results = _evaluate_all(spec, run, trainer.embedder(SHARE), spec.dev, name=SHARE)
        score = sum(result.mean[spec.metric] for result in results) / len(results)
        fields: dict[str, Any] = {"suite": results[0].suite, spec.metric: score}
        reason = _explain_stop(spec, results, SHARE)
        if reason:
            raise _record_stop(run, reason, **fields)
        return score, fields

    return look


def _stop_if_below_control(spec: CellSpec, run: RunFolder) -> None:
    results = [load_result(run.evaluation(TRAINED, load_suite(Path(path)).name)) for path in spec.dev]
    reason = _explain_stop(spec, results, TRAINED)
    if reason:
        raise _record_stop(run, reason)


def _explain_stop(spec: CellSpec, ours: list[Result], name: str) -> str | None:
    """Why the stop rule ends this cell; None if it does not, or if the control has no scores to compare with.

    `name`: folder in the control's `evals/` with the scores at the same share of the budget.
    """
    if spec.control is None or spec.margin is None:
        return None
    folders = [RunFolder(Path(spec.control)).evaluation(name, result.suite) for result in ours]
    if not all((folder / "metrics.json").is_file() for folder in folders):
        return None
    answer = StopQuestion(spec.metric, -spec.margin).answer(ours, [load_result(folder) for folder in folders])
    return answer.reason("dev", "the control at the same share of the budget") if answer.stop else None


def _record_stop(run: RunFolder, reason: str, **fields: Any) -> StoppedError:
    """Record in the run and in the ledger that the rule ended a training."""
    run.event(STOPPED, reason=reason, **fields)
    record_rule_stop(run, reason)
    return StoppedError(reason)


def _is_trained(run: RunFolder, recipe: Recipe) -> bool:
    finished = {event["stage"] for event in run.events("stage_finished")}
    return finished >= set(range(len(recipe.stages)))


def _reopen_trainer(run: RunFolder, recipe: Recipe) -> Trainer:
    """Load the trained model from the last checkpoint: the weights that training ended with."""
    trainer = Trainer(run, resolve_base(recipe.model.base))
    trainer.built.load_trained(trained_weights(_last_checkpoint(run, recipe)))
    return trainer


def _last_checkpoint(run: RunFolder, recipe: Recipe) -> Path:
    number = len(recipe.stages) - 1
    checkpoint = latest_checkpoint(run.checkpoints / f"{number}-{recipe.stages[number].name}")
    if checkpoint is None:
        raise WorkError(f"{run.path} is trained but its checkpoint is missing; delete the folder to train it again")
    return checkpoint


def _has_missing_results(run: RunFolder, suites: Sequence[str]) -> bool:
    return any(not (run.evaluation(TRAINED, load_suite(Path(path)).name) / "metrics.json").exists() for path in suites)


def _evaluate_all(
    spec: CellSpec, run: RunFolder, model: TextEmbedder, suites: Sequence[str], name: str = TRAINED
) -> list[Result]:
    results = []
    for path in suites:
        suite = load_suite(Path(path))
        folder = run.evaluation(name, suite.name)
        if not (folder / "metrics.json").exists() or name == SHARE:
            words = spec.look_again.get(path, "")
            result = evaluate(model, suite, folder, name=name, run=run, look_again=words)
            logger.info(f"{suite.name}: nDCG@10 {result.mean['ndcg@10']:.4f}")
        results.append(load_result(folder))
    return results
