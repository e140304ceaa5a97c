"""One cell of a matrix, in its own process: train, score on dev, score on the final suites.

Every step stores its result in the run folder and is skipped if the result exists.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import WorkError
from gemma4vec.evaluation.comparison.find_results import TRAINED
from gemma4vec.evaluation.planning.stop_question import StopQuestion
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.ledger.recording import record_rule_stop
from gemma4vec.ledger.records import SHARE
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.pipeline.matrix.rows_hash import rows_hash
from gemma4vec.pipeline.worker import STOPPED_CODE
from gemma4vec.recipe.schema import Recipe
from gemma4vec.text.text_embedder import TextEmbedder
from gemma4vec.training.engine.checkpoint import latest_checkpoint, trained_weights
from gemma4vec.training.engine.flops import flops_per_token
from gemma4vec.training.outcome import record_outcome
from gemma4vec.training.prepare_run import prepare_run, reopen_run
from gemma4vec.training.processes.stop_signals import StopSignals
from gemma4vec.training.run import Trainer, recipe_of
from gemma4vec.training.stage import Evaluate
from gemma4vec.training.tasks.make_task import data_seed

logger = logging.getLogger(__name__)

STOPPED = "stopped"  # name of the event


class StoppedError(WorkError):
    """The matrix's stop rule ends this training."""

    exit_code = STOPPED_CODE


@dataclass(frozen=True)
class CellSpec:
    """The work of a cell's process.

    Attributes:
        run: the run folder.
        dev, final: folders of suites; `final` is empty if only the dev score is wanted.
        metric: the metric that the stop rule compares.
        margin: how far below the control the stop rule lets a cell be; None: no rule.
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
    """Run all steps of `spec` that its run lacks.

    Raises:
        StoppedError: the stop rule ended it; recorded as an event. InputError, WorkError: as training and evaluation.
        Interrupted: SIGTERM or SIGUSR1; the run goes on from its last checkpoint.
    """
    run = RunFolder.open(Path(spec.run))
    if run.events(STOPPED):
        raise StoppedError(str(run.events(STOPPED)[-1]["reason"]))
    signals = StopSignals("the matrix's command")
    with signals.caught(), record_outcome(run):
        _steps(spec, run, signals)


def _steps(spec: CellSpec, run: RunFolder, signals: StopSignals) -> None:
    recipe = recipe_of(run)
    trainer: Trainer | None = None
    if not _is_trained(run, recipe):
        trainer = _train(spec, run, recipe, signals)
    if _has_missing_results(run, spec.dev) or (_has_missing_results(run, spec.final) and not spec.save):
        trainer = trainer or _reopen_trainer(run, recipe)
        _evaluate_all(spec, run, trainer.embedder(TRAINED), spec.dev if spec.save else [*spec.dev, *spec.final])
    if spec.at_end:
        _stop_if_below_control(spec, run)
    if spec.save and spec.final and _has_missing_results(run, spec.final):
        if not (run.model / "gemma4vec.json").exists():
            (trainer or Trainer(reopen_run(run, recipe))).save()
        del trainer
        _evaluate_all(spec, run, Embedder.load(run.path), spec.final)


def _train(spec: CellSpec, run: RunFolder, recipe: Recipe, signals: StopSignals) -> Trainer:
    trainer = Trainer(prepare_run(run, recipe, stop_rules=False), signals)  # `_make_stop_check` is the matrix's own
    for number, stage in enumerate(recipe.stages):
        _record_cost(trainer, number)
        trainer.train(number, _make_stop_check(spec, run, trainer, stage.evaluation.at_shares))
        # The loop also keeps the checkpoint with the best score, which a matrix does not use.
        shutil.rmtree(run.checkpoints / f"{number}-{stage.name}" / "best", ignore_errors=True)
    return trainer


def _record_cost(trainer: Trainer, number: int) -> None:
    recipe = trainer.recipe
    stage, loaded = recipe.stages[number], trainer.prepared.data[number]
    contrast = stage.task.kind == "contrast"
    trainer.run.event(
        "cell",
        stage=number,
        contrast=contrast,
        rows_hash=rows_hash(loaded.rows, stage, data_seed(recipe, number)) if contrast else None,
        flops_per_token=flops_per_token(trainer.built.encoder, recomputed=stage.layout.gradient_checkpointing is True),
    )


def _make_stop_check(spec: CellSpec, run: RunFolder, trainer: Trainer, shares: Sequence[float]) -> Evaluate | None:
    """Return the loop's evaluation at the rule's share of the budget: on dev; it stops a cell far below the control."""
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
    """Why the rule ends this recipe's rate; None if it does not, or if the control has no such scores.

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
    """Record that the rule ended a training, in the run and as a decision in the ledger."""
    run.event(STOPPED, reason=reason, **fields)
    record_rule_stop(run, reason)
    return StoppedError(reason)


def _is_trained(run: RunFolder, recipe: Recipe) -> bool:
    finished = {event["stage"] for event in run.events("stage_finished")}
    return finished >= set(range(len(recipe.stages)))


def _reopen_trainer(run: RunFolder, recipe: Recipe) -> Trainer:
    """Load the trained model from the last checkpoint: the same weights that training ended with."""
    trainer = Trainer(reopen_run(run, recipe))
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
