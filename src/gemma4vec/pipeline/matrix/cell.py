"""One cell of a matrix, in a process of its own: train, score on dev, score on the final suites.

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
from gemma4vec.recipe.schema import Recipe
from gemma4vec.text.text_embedder import TextEmbedder
from gemma4vec.training.engine.checkpoint import latest_checkpoint, trained_weights
from gemma4vec.training.engine.flops import flops_per_token
from gemma4vec.training.prepare_run import prepare_run, reopen_run
from gemma4vec.training.run import Trainer, recipe_of, record_outcome
from gemma4vec.training.stage import Evaluate
from gemma4vec.training.tasks.make_task import data_seed

logger = logging.getLogger(__name__)

STOPPED = "stopped"  # the event


class StoppedError(WorkError):
    """The matrix's stop rule ends this training."""


@dataclass(frozen=True)
class CellJob:
    """The work of a cell's process.

    Attributes:
        run: the run folder.
        dev, final: folders of suites; `final` is empty if only the dev score is wanted.
        metric: the metric that the stop rule compares.
        margin: how far below the control the stop rule lets a cell be; None: no rule.
        control: the control's run folder, for the stop rule.
        at_end: the rule looks at the end of training, not during it.
        save: write the merged model, and evaluate it on the final suites.
        look_again: why an unfrozen recipe may be scored on a final suite, by the suite's folder.
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


def run_cell(job: CellJob) -> None:
    """Run all steps of `job` that its run lacks.

    Raises:
        StoppedError: the stop rule ended it; recorded as an event. InputError, WorkError: as training and evaluation.
    """
    run = RunFolder.open(Path(job.run))
    if run.events(STOPPED):
        raise StoppedError(str(run.events(STOPPED)[-1]["reason"]))
    with record_outcome(run):
        _steps(job, run)


def _steps(job: CellJob, run: RunFolder) -> None:
    recipe = recipe_of(run)
    trainer: Trainer | None = None
    if not _trained(run, recipe):
        trainer = _train(job, run, recipe)
    if _missing(run, job.dev) or (_missing(run, job.final) and not job.save):
        trainer = trainer or _reopened(run, recipe)
        _evaluate_all(job, run, trainer.embedder(TRAINED), job.dev if job.save else [*job.dev, *job.final])
    if job.at_end:
        _end_where_too_far_below(job, run)
    if job.save and job.final and _missing(run, job.final):
        if not (run.model / "gemma4vec.json").exists():
            (trainer or Trainer(reopen_run(run, recipe))).save()
        del trainer
        _evaluate_all(job, run, Embedder.load(run.path), job.final)


def _train(job: CellJob, run: RunFolder, recipe: Recipe) -> Trainer:
    trainer = Trainer(prepare_run(run, recipe, stop_rules=False))  # `_rule` is the matrix's own
    for number, stage in enumerate(recipe.stages):
        _record_cost(trainer, number)
        trainer.train(number, _rule(job, run, trainer, stage.evaluation.at_shares))
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


def _rule(job: CellJob, run: RunFolder, trainer: Trainer, shares: Sequence[float]) -> Evaluate | None:
    """Return the loop's evaluation at the rule's share of the budget: on dev; it stops a cell far below the control."""
    if not shares:
        return None

    def look() -> tuple[float, dict[str, Any]]:
        results = _evaluate_all(job, run, trainer.embedder(SHARE), job.dev, name=SHARE)
        score = sum(result.mean[job.metric] for result in results) / len(results)
        fields: dict[str, Any] = {"suite": results[0].suite, job.metric: score}
        reason = _too_far_below(job, results, SHARE)
        if reason:
            raise _stopped(run, reason, **fields)
        return score, fields

    return look


def _end_where_too_far_below(job: CellJob, run: RunFolder) -> None:
    results = [load_result(run.evaluation(TRAINED, load_suite(Path(path)).name)) for path in job.dev]
    reason = _too_far_below(job, results, TRAINED)
    if reason:
        raise _stopped(run, reason)


def _too_far_below(job: CellJob, ours: list[Result], name: str) -> str | None:
    """Why the rule ends this recipe's rate; None if it does not, or if the control has no such scores.

    `name`: in the control's `evals/`, the scores at the same share of the budget.
    """
    if job.control is None or job.margin is None:
        return None
    folders = [RunFolder(Path(job.control)).evaluation(name, result.suite) for result in ours]
    if not all((folder / "metrics.json").is_file() for folder in folders):
        return None
    answer = StopQuestion(job.metric, -job.margin).answer(ours, [load_result(folder) for folder in folders])
    return answer.reason("dev", "the control at the same share of the budget") if answer.stop else None


def _stopped(run: RunFolder, reason: str, **fields: Any) -> StoppedError:
    """Record that the rule ended a training, in the run and as a decision in the ledger."""
    run.event(STOPPED, reason=reason, **fields)
    record_rule_stop(run, reason)
    return StoppedError(reason)


def _trained(run: RunFolder, recipe: Recipe) -> bool:
    finished = {event["stage"] for event in run.events("stage_finished")}
    return finished >= set(range(len(recipe.stages)))


def _reopened(run: RunFolder, recipe: Recipe) -> Trainer:
    """Load the trained model from the last checkpoint: the same weights that training ended with."""
    trainer = Trainer(reopen_run(run, recipe))
    trainer.built.load_trained(trained_weights(_last_checkpoint(run, recipe)))
    return trainer


def _last_checkpoint(run: RunFolder, recipe: Recipe) -> Path:
    number = len(recipe.stages) - 1
    checkpoint = latest_checkpoint(run.checkpoints / f"{number}-{recipe.stages[number].name}")
    if checkpoint is None:
        raise WorkError(f"{run.path} is trained but its checkpoint is gone; delete the folder to train it again")
    return checkpoint


def _missing(run: RunFolder, suites: Sequence[str]) -> bool:
    return any(not (run.evaluation(TRAINED, load_suite(Path(path)).name) / "metrics.json").exists() for path in suites)


def _evaluate_all(
    job: CellJob, run: RunFolder, model: TextEmbedder, suites: Sequence[str], name: str = TRAINED
) -> list[Result]:
    results = []
    for path in suites:
        suite = load_suite(Path(path))
        folder = run.evaluation(name, suite.name)
        if not (folder / "metrics.json").exists() or name == SHARE:
            words = job.look_again.get(path, "")
            result = evaluate(model, suite, folder, name=name, run=run, look_again=words)
            logger.info(f"{suite.name}: nDCG@10 {result.mean['ndcg@10']:.4f}")
        results.append(load_result(folder))
    return results
