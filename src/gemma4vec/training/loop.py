"""The training loop, the only one: it trains any task that makes batches and a loss (`training.engine.task`).

A stage is optimizer steps until its budget is spent. A step is `accumulate` batches and one update. Between steps the
loop checks the stop rule, evaluates, and saves. A killed run continues from its last checkpoint to the same result,
because batches, draws and learning rates depend on the seed and the step alone; everything else is in the checkpoint.
"""

import logging
import math
import time
from dataclasses import asdict
from typing import Any

import torch

from gemma4vec.errors import Interrupted, WorkError
from gemma4vec.files import write_json
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.dtype import is_wide
from gemma4vec.model.backbone.compilation import run_with_eager_fallback
from gemma4vec.training.batch_feed import BatchFeed
from gemma4vec.training.engine.checkpoint import Progress, random_state, set_random_state
from gemma4vec.training.engine.optimizer import MasterAdamW, learning_rate
from gemma4vec.training.engine.process_memory import peak_memory_bytes
from gemma4vec.training.engine.step_budget import StepBudget
from gemma4vec.training.engine.task import Loss
from gemma4vec.training.monitoring.weight_snapshots import evaluation_due, hash_of_weights, save_snapshot, snapshot_due
from gemma4vec.training.prepare_model import prepare_model
from gemma4vec.training.stage import Stage
from gemma4vec.training.stage_checkpoints import (
    load_finished,
    load_latest,
    save_interrupted,
    save_progress,
    stored_budget,
)

logger = logging.getLogger(__name__)


def train_stage(stage: Stage, seed: int) -> Progress:
    """Train one stage until its budget is spent or its stop rule ends it, from its last checkpoint if there is one.

    Raises:
        WorkError: the loss is not finite (the batch is written to a file), the probe fails, the disk is full.
        Interrupted: a signal asked one of the processes to stop; all of them have, at a checkpoint.
    """
    finished = load_finished(stage)
    if finished is not None:
        return finished

    plan = prepare_model(stage)
    optimizer = MasterAdamW(
        stage.built.trainable(), stage.settings.optimizer, stage.task.extra_parameters(), stage.quantization
    )
    torch.manual_seed(stage.world.seed(seed))
    progress = load_latest(stage, optimizer)
    optimizer.quantize_weights()
    stage.random = random_state()
    budget = stored_budget(stage)
    batches = BatchFeed(stage, plan, progress, budget)

    settings = stage.settings.evaluation
    saved_at = time.monotonic()
    try:
        with stage.signals.noted_only():
            if progress.step == 0:
                _measure_held_out(stage, progress)
            _make_up_evaluation(stage, optimizer, progress, budget.total)
            if _ask_all(stage, saved_at)[1]:
                raise _interruption(stage, progress)
            while not _is_done(progress, budget):
                if not batches.renew(progress):
                    raise _interruption_before_clusters(stage, optimizer, progress)
                _train_step(stage, optimizer, batches, progress, budget)
                looked = _check_stop_rule(stage, optimizer, progress, budget.total)
                if not looked and stage.evaluate and evaluation_due(settings, progress.step, budget.total):
                    _evaluate(stage, optimizer, progress)
                if stage.world.first and snapshot_due(settings, progress.step, budget.total):
                    save_snapshot(stage.folder, progress.step, optimizer)
                due, stop = _ask_all(stage, saved_at)
                if stop or due or _is_done(progress, budget):
                    save_progress(stage, optimizer, progress)
                    saved_at = time.monotonic()
                if stop:
                    raise _interruption(stage, progress)
            _measure_held_out(stage, progress)
    except Interrupted:
        raise
    except KeyboardInterrupt:
        save_interrupted(stage, optimizer, progress)
        raise KeyboardInterrupt(
            f"stopped after step {progress.step}; go on with: {resume_command(stage.run)}"
        ) from None
    finally:
        batches.close()
        stage.bar.close()

    stage.run.event(
        "stage_finished",
        stage=stage.number,
        steps=progress.step,
        seconds=progress.seconds,
        tokens=progress.tokens,
        rows=progress.rows,
        texts=stage.built.tokenizer.counts.as_dict(),
        peak_memory_bytes=peak_memory_bytes(),
        stopped=progress.stopped,
        steps_of_budget=budget.total,
    )
    return progress


def _is_done(progress: Progress, budget: StepBudget) -> bool:
    """Whether the budget is spent, or the stop rule has ended the stage."""
    return progress.stopped is not None or (budget.total is not None and progress.step >= budget.total)


def _ask_all(stage: Stage, saved_at: float) -> tuple[bool, bool]:
    """Whether a checkpoint is due by the clock of the first process, and whether a signal has come to any process.

    One tiny sum over all processes answers both, so that all save, or stop, after the same step.
    """
    due = stage.world.first and time.monotonic() - saved_at >= stage.settings.evaluation.checkpoint_seconds
    save, stop = stage.world.any([due, stage.signals.name is not None])
    return save, stop


def _interruption(stage: Stage, progress: Progress) -> Interrupted:
    return stage.signals.agreed(f"after step {progress.step}; go on with: {resume_command(stage.run)}")


def _interruption_before_clusters(stage: Stage, optimizer: MasterAdamW, progress: Progress) -> Interrupted:
    if progress.step:
        save_progress(stage, optimizer, progress)
    return _interruption(stage, progress)


def _make_up_evaluation(stage: Stage, optimizer: MasterAdamW, progress: Progress, total: int | None) -> None:
    """Take the look, or make the evaluation, that a signal or Ctrl-C cut off after the last saved step."""
    if _check_stop_rule(stage, optimizer, progress, total) or progress.step == 0 or stage.evaluate is None:
        return
    if not evaluation_due(stage.settings.evaluation, progress.step, total):
        return

    def is_recorded() -> bool:
        events = stage.run.events("evaluation")
        return any(event.get("stage") == stage.number and event.get("step") == progress.step for event in events)

    if not stage.world.from_first(is_recorded):
        _evaluate(stage, optimizer, progress)


def _measure_held_out(stage: Stage, progress: Progress) -> None:
    """Record the task's loss on texts that it never trains on, if it keeps any; once for a step."""

    def measure() -> None:
        done = stage.run.events("held_out")
        if any(event["stage"] == stage.number and event["step"] == progress.step for event in done):
            return
        started = time.perf_counter()
        found = run_with_eager_fallback(
            stage.built.encoder.backbone,
            lambda: stage.task.held_out(stage.built),
            lambda reason: logger.warning(f"layers run uncompiled from here on: {reason}"),
        )
        if found is None:
            return
        where = {"stage": stage.number, "step": progress.step, "tokens": progress.tokens}
        stage.run.event("held_out", **where, **asdict(found), seconds=time.perf_counter() - started)
        parts = ", ".join(f"{name}: {value:.2f}" for name, value in found.parts.items())
        logger.info(
            f"step {progress.step}: held-out loss {found.value:.4f} ({found.texts} texts, {found.predicted:,} tokens"
            + (f"; {parts})" if parts else ")")
        )

    stage.world.from_first(measure)


def _train_step(
    stage: Stage, optimizer: MasterAdamW, prefetched: BatchFeed, progress: Progress, budget: StepBudget
) -> None:
    """Make one optimizer step: forward and backward of each batch, the update, and its event.

    The step's seconds do not include the time that it waited for batches; that is the event's `waited`.
    """
    waited_before = prefetched.waited
    batches = [prefetched.take() for _ in range(stage.settings.batch.accumulate)]
    waited = prefetched.waited - waited_before
    rate = learning_rate(stage.settings.optimizer, progress.step, budget.total, budget.watched)

    started = time.perf_counter()
    losses = run_with_eager_fallback(
        stage.built.encoder.backbone,
        lambda: _forward_backward(stage, batches, progress),
        lambda reason: _retry_uncompiled(stage, optimizer, progress, reason),
    )
    stage.world.sum_gradients(optimizer.parameters.values())
    norm = optimizer.step(rate)
    if not math.isfinite(norm):
        raise _not_finite(stage, progress, batches[-1], norm, "gradient")
    seconds = stage.world.from_first(lambda: time.perf_counter() - started)

    tokens = sum(loss.tokens for loss in losses)
    _count_step(stage, progress, len(batches), sum(loss.rows for loss in losses), tokens, seconds)
    if budget.seen(progress.step - 1, seconds, progress.tokens):
        stage.run.event("budget", stage=stage.number, steps=budget.total, affordable=budget.affordable)
        pace = budget.pace()
        if pace is not None and stage.world.first:
            logger.info(pace)
    mean_loss = sum(float(loss.value) for loss in losses) / len(losses)
    stage.run.event(
        "step",
        stage=stage.number,
        step=progress.step,
        loss=mean_loss,
        **_mean_terms(losses),
        learning_rate=rate,
        gradient_norm=norm,
        tokens=progress.tokens,
        rows=progress.rows,
        seconds=progress.seconds,
        tokens_per_second=tokens / seconds,
        waited=waited,
        padding_share=sum(loss.padding_share * loss.tokens for loss in losses) / max(1, tokens),
    )
    stage.bar.step(progress.step, budget.total, mean_loss, tokens / seconds, progress.seconds / max(1, progress.step))


def _forward_backward(stage: Stage, batches: list[Any], progress: Progress) -> list[Loss]:
    """Run forward and backward of each batch. Losses are read only afterwards: reading one waits for the GPU."""
    losses: list[Loss] = []
    for batch in batches:
        loss = stage.task.loss(stage.built, batch)
        losses.append(stage.world.whole(loss))
        (loss.value / len(batches)).backward()
    for batch, loss in zip(batches, losses, strict=True):
        if not torch.isfinite(loss.value):
            raise _not_finite(stage, progress, batch, loss.value.item(), "loss")
    return losses


def _retry_uncompiled(stage: Stage, optimizer: MasterAdamW, progress: Progress, reason: str) -> None:
    """Restore the state from before a step in which the compiler failed: no gradients, the same random state.

    Raises:
        WorkError: several processes train; the others are in the middle of the step and cannot repeat it.
    """
    if stage.world.size > 1:
        raise WorkError(
            f"step {progress.step + 1}: {reason}; start again with stages.{stage.number}.layout.compile=false"
        )
    for parameter in optimizer.parameters.values():
        parameter.grad = None
    if stage.random is not None:
        set_random_state(stage.random)
    stage.run.event("uncompiled", stage=stage.number, step=progress.step + 1, reason=reason)
    logger.warning(f"layers run uncompiled from step {progress.step + 1} on: {reason}")


def _count_step(stage: Stage, progress: Progress, batches: int, rows: int, tokens: int, seconds: float) -> None:
    """Count a whole step, all of it or nothing: Ctrl-C arrives at a call, and below the first line there is none."""
    random = random_state()
    stage.random = random
    progress.batch += batches
    progress.rows += rows
    progress.tokens += tokens
    progress.seconds += seconds
    progress.step += 1


def _mean_terms(losses: list[Loss]) -> dict[str, Any]:
    """Fields of the step's event: the mean of each term of the loss over the batches, unweighted, and other values."""
    names = losses[0].terms
    terms = {name: sum(float(x.terms[name]) for x in losses) / len(losses) for name in names}
    return {**({"terms": terms} if names else {}), **{name: float(value) for name, value in losses[-1].noted.items()}}


def _check_stop_rule(stage: Stage, optimizer: MasterAdamW, progress: Progress, total: int | None) -> bool:
    """Take a look at the model if one is due, and stop if the rule says so. Return whether a look was taken.

    A look evaluates the model, so no other evaluation is needed after the same step. A signal cuts it off.
    """
    rule = stage.stop_rule
    number = rule.due(progress.step, total, progress.looks) if rule else None
    if rule is None or number is None:
        return False
    seen = stage.world.from_first(
        lambda: stage.signals.unless_stopped(lambda: rule.check(number, progress.step, hash_of_weights(optimizer)))
    )
    if seen is None:
        return False
    progress.looks, progress.stopped = number, seen.stopped
    _record_score(stage, optimizer, progress, seen.score, seen.fields)
    stage.run.event("look", stage=stage.number, step=progress.step, **seen.look)
    logger.info(f"{seen.sentence}: {f'stopped, since {seen.stopped}' if seen.stopped else 'training continues'}")
    return True


def _evaluate(stage: Stage, optimizer: MasterAdamW, progress: Progress) -> None:
    """Evaluate the model in the first process; a signal cuts it off, and it is made when the run goes on."""
    evaluate = stage.evaluate
    assert evaluate is not None
    found = stage.world.from_first(lambda: stage.signals.unless_stopped(evaluate))
    if found is None:
        return
    score, fields = found
    _record_score(stage, optimizer, progress, score, fields)


def _record_score(
    stage: Stage, optimizer: MasterAdamW, progress: Progress, score: float, fields: dict[str, Any]
) -> None:
    """Record an evaluation, and save the checkpoint if its score is the best so far."""
    stage.run.event("evaluation", stage=stage.number, step=progress.step, tokens=progress.tokens, **fields)
    logger.info(f"step {progress.step}: nDCG@10 {score:.4f} on {fields['suite']}")
    if progress.best_score is None or score > progress.best_score:
        progress.best_score, progress.best_step = score, progress.step
        save_progress(stage, optimizer, progress, keep_as="best")


def _not_finite(stage: Stage, progress: Progress, batch: Any, value: float, what: str) -> WorkError:
    """Write the batch to a file, and return the error that names it."""
    file = stage.run.path / f"bad-batch-step-{progress.step + 1}.json"
    texts = getattr(batch, "texts", None)
    if stage.world.first:
        write_json(file, vars(texts) if texts is not None else {"batch": repr(batch)})
    kind = "NaN" if math.isnan(value) else "infinite"
    wider = "" if is_wide(stage.built.encoder.backbone.dtype) else " or model.dtype=fp32"
    return WorkError(
        f"the {what} is {kind} at step {progress.step + 1}; its batch is in {file}; the last checkpoint is kept; "
        f"try a lower optimizer.learning_rate{wider}"
    )


def resume_command(run: RunFolder) -> str:
    """The command that continues a run."""
    return f"gemma4vec train --resume {run.path}"
