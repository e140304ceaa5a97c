"""The training loop: the only one. It trains any task that gives batches and a loss (see `training.engine.task`).

Read top to bottom: a stage is optimizer steps until its budget is spent; every step is `accumulate` batches; between
steps it evaluates and saves. A run that is killed goes on from the last checkpoint to the same result, because batches,
draws and rates depend on seed and step alone and the rest stands in the checkpoint.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gemma4vec.errors import WorkError
from gemma4vec.files import write_json
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.prefetch import Prefetcher
from gemma4vec.model import upstream
from gemma4vec.model.backbone import attention_probe as probe
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.compilation import (
    CompileChoice,
    choose_compile,
    failed_to_compile,
    run_compiled,
    run_with_eager_fallback,
    use_compile_cache,
)
from gemma4vec.model.backbone.kernel_options import fast_paths
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.recipe import schema
from gemma4vec.training.engine.checkpoint import (
    Progress,
    latest_checkpoint,
    load_checkpoint,
    random_state,
    read_progress,
    save_checkpoint,
    set_random_state,
    trained_weights,
)
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.optimizer import MasterAdamW, learning_rate
from gemma4vec.training.engine.process_memory import keep_freed_memory, peak_memory_bytes
from gemma4vec.training.engine.step_bar import StepBar
from gemma4vec.training.engine.step_budget import StepBudget, known_steps, step_budget
from gemma4vec.training.engine.task import Loss, MemoryPlan, Task
from gemma4vec.training.monitoring.stop_rule import StopRuleMonitor
from gemma4vec.training.monitoring.weight_snapshots import evaluation_due, hash_of_weights, save_snapshot, snapshot_due
from gemma4vec.training.tasks.micro_batches import can_share_prefix

logger = logging.getLogger(__name__)

# Tokens in the first compiled forward. Few, because memory is planned only afterwards; one graph serves any height.
_PROBED = 2048

# Gives a score (higher is better) and the fields of its event.
Evaluate = Callable[[], tuple[float, dict[str, Any]]]


@dataclass
class Stage:
    """A stage that is being trained."""

    number: int
    settings: schema.Stage
    task: Task
    built: EmbeddingModel
    run: RunFolder
    evaluate: Evaluate | None
    bar: StepBar
    before: Path | None = None  # checkpoints of the stage before this one
    random: dict[str, Any] | None = None  # torch's generators as they were after the last whole step
    world: World = field(default_factory=World)  # the processes that train this together
    rule: StopRuleMonitor | None = None  # when this is given up

    @property
    def folder(self) -> Path:
        """Where this stage's checkpoints are."""
        return self.run.checkpoints / f"{self.number}-{self.settings.name}"


def train_stage(stage: Stage, seed: int) -> Progress:
    """Train one stage to the end of its budget, from its last checkpoint where there is one.

    Raises:
        WorkError: the loss is not finite (the batch is written to a file), the probe fails, the disk is full.
    """
    finished = _finished(stage)
    if finished is not None:
        return finished
    plan = prepare_model(stage)
    optimizer = MasterAdamW(stage.built.trainable(), stage.settings.optimizer, stage.task.extra_parameters())
    torch.manual_seed(stage.world.seed(seed))
    progress = _resume(stage, optimizer)
    stage.random = random_state()
    accumulate = stage.settings.batch.accumulate
    written = stage.folder if stage.world.first else None
    budget = step_budget(stage.settings, stage.task.rows_per_batch * accumulate, written, _known_budget(stage.folder))
    first = progress.batch
    ahead = Prefetcher(
        stage.task.batches(first, plan), lambda: None if budget.total is None else budget.total * accumulate - first
    )
    settings = stage.settings.evaluation
    saved, pause = time.monotonic(), settings.checkpoint_seconds
    try:
        _asked(stage, optimizer, progress, budget.total)  # a look that Ctrl-C cut off
        while not _ended(progress, budget):
            rate = learning_rate(stage.settings.optimizer, progress.step, budget.total, budget.watched)
            waited = ahead.waited
            batches = [ahead.take() for _ in range(accumulate)]
            _step(stage, optimizer, batches, progress, budget, rate, ahead.waited - waited)
            asked = _asked(stage, optimizer, progress, budget.total)
            if not asked and stage.evaluate and evaluation_due(settings, progress.step, budget.total):
                _evaluate(stage, optimizer, progress)
            if stage.world.first and snapshot_due(settings, progress.step, budget.total):
                save_snapshot(stage.folder, progress.step, optimizer)
            done = _ended(progress, budget)
            if done or stage.world.from_first(lambda: time.monotonic() - saved >= pause):  # noqa: B023  # called at once
                _save(stage, optimizer, progress)
                saved = time.monotonic()
    except KeyboardInterrupt:
        _save_interrupted(stage, optimizer, progress)
        raise KeyboardInterrupt(
            f"stopped after step {progress.step}; go on with: {resume_command(stage.run)}"
        ) from None
    finally:
        ahead.close()
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


def _ended(progress: Progress, budget: StepBudget) -> bool:
    """Whether the budget is spent, or the stop rule has ended the stage."""
    return progress.stopped is not None or (budget.total is not None and progress.step >= budget.total)


def resume_command(run: RunFolder) -> str:
    """What a person types to go on with a run."""
    return f"gemma4vec train --resume {run.path}"


def compile_for_training(backbone: Backbone) -> None:
    """Compile the layers with their adapters, each made one product with its weight where that is chosen."""
    if backbone.fast.fused_lora:
        from gemma4vec.model.adapters.fused_lora import (
            fuse_lora,  # brings peft: here it is needed, for --help it is not
        )

        fuse_lora(backbone)
    backbone.compile_layers()


def prepare_model(stage: Stage) -> MemoryPlan:
    """Checkpointing, compilation and the start-up probe; then the memory plan, before any full micro-batch runs."""
    backbone, layout, budget = stage.built.encoder.backbone, stage.settings.layout, stage.settings.budget
    stage.built.encoder.train()
    backbone.fast = fast_paths(backbone.device.type, layout.fast_paths)
    keep_freed_memory(backbone.fast.keep_freed_memory)
    found = probe.check(backbone)
    backbone.use_gradient_checkpointing(layout.gradient_checkpointing)
    steps = known_steps(budget, stage.task.rows_per_batch * stage.settings.batch.accumulate)
    choice = choose_compile(layout.compile, steps=steps, minutes=budget.minutes)
    if choice.on and backbone.compile_failed:
        choice = CompileChoice(False, "it failed before")
    if choice.on and not backbone.compiled:
        use_compile_cache()
        logger.info("compiling the decoder layers (a minute or more, once on a machine)")
        try:
            found = run_compiled(backbone, lambda: _probe_compiled(stage.built.encoder, layout), compile_for_training)
        except upstream.compiler_errors() as error:  # slower, but the same result
            choice = failed_to_compile(error)
    if not choice.on:
        logger.warning(f"layers run uncompiled: {choice.reason}")
    begun = [event for event in stage.run.events("prepared") if event["stage"] == stage.number]
    plan = stage.task.plan_memory(stage.built, begun[-1] if begun else None)
    if plan.remark:
        logger.warning(plan.remark)
    chosen = {"compile": choice.on, "compile_reason": choice.reason, **plan.fields()}
    stage.run.event("prepared", stage=stage.number, **chosen, probe=vars(found))
    return plan


def _probe_compiled(encoder: TextEncoder, layout: schema.Layout) -> probe.Probe:
    """Run compiled layers for the first time: the probe in the width that is trained, and a small backward pass."""
    backbone, shares = encoder.backbone, can_share_prefix(layout, encoder)
    rows = min(layout.tokens_per_forward // layout.row_tokens, max(2, _PROBED // layout.row_tokens))
    found = probe.check(backbone, max(1, rows), layout.row_tokens)
    probe.warm_up_backward(backbone, layout.row_tokens, share=shares, last_token_only=encoder.readout.last_token_only)
    return found


def _step(
    stage: Stage,
    optimizer: MasterAdamW,
    batches: list[Any],
    progress: Progress,
    budget: StepBudget,
    rate: float,
    waited: float,
) -> None:
    """One optimizer step: forward and backward of each batch, update, and what is noted about it.

    `waited` are the seconds that the batches were waited for; they are not part of the step's.
    """
    started = time.perf_counter()
    losses = run_with_eager_fallback(
        stage.built.encoder.backbone,
        lambda: _passes(stage, batches, progress),
        lambda reason: _begin_anew(stage, optimizer, progress, reason),
    )
    stage.world.sum_gradients(optimizer.parameters.values())
    norm = optimizer.step(rate)
    if not math.isfinite(norm):
        raise _not_finite(stage, progress, batches[-1], norm, "gradient")
    seconds = stage.world.from_first(lambda: time.perf_counter() - started)
    tokens, rows = sum(loss.tokens for loss in losses), sum(loss.rows for loss in losses)
    mean_loss = sum(float(loss.value) for loss in losses) / len(losses)
    _advance(stage, progress, len(batches), rows, tokens, seconds)
    if budget.seen(progress.step - 1, seconds, progress.tokens):
        stage.run.event("budget", stage=stage.number, steps=budget.total)
    stage.run.event(
        "step",
        stage=stage.number,
        step=progress.step,
        loss=mean_loss,
        **_terms(losses),
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


def _passes(stage: Stage, batches: list[Any], progress: Progress) -> list[Loss]:
    """Forward and backward of each batch; only then are losses looked at, for which a GPU has to be waited for."""
    losses: list[Loss] = []
    for batch in batches:
        loss = stage.task.loss(stage.built, batch)
        losses.append(stage.world.whole(loss))
        (loss.value / len(batches)).backward()
    for batch, loss in zip(batches, losses, strict=True):
        if not torch.isfinite(loss.value):
            raise _not_finite(stage, progress, batch, loss.value.item(), "loss")
    return losses


def _begin_anew(stage: Stage, optimizer: MasterAdamW, progress: Progress, reason: str) -> None:
    """After the compiler gave up in a step: as before it, without its gradients, with its random draws.

    Raises:
        WorkError: several processes train; the others are somewhere in the step and cannot be called back.
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


def _terms(losses: list[Loss]) -> dict[str, Any]:
    """The event's field of what the loss is made of: each term's mean over the batches, unweighted; and notes."""
    names = losses[0].terms
    terms = {name: sum(float(x.terms[name]) for x in losses) / len(losses) for name in names}
    return {**({"terms": terms} if names else {}), **{name: float(value) for name, value in losses[-1].noted.items()}}


def _advance(stage: Stage, progress: Progress, batches: int, rows: int, tokens: int, seconds: float) -> None:
    """Count a whole step. Ctrl-C falls between calls, and there is none below the first line: all of it or nothing."""
    random = random_state()
    stage.random = random
    progress.batch += batches
    progress.rows += rows
    progress.tokens += tokens
    progress.seconds += seconds
    progress.step += 1


def _evaluate(stage: Stage, optimizer: MasterAdamW, progress: Progress) -> None:
    assert stage.evaluate is not None
    score, fields = stage.world.from_first(stage.evaluate)
    _note_score(stage, optimizer, progress, score, fields)


def _asked(stage: Stage, optimizer: MasterAdamW, progress: Progress, total: int | None) -> bool:
    """Ask the stop rule where a look is due; its evaluation counts like any other. Gives whether it was."""
    rule = stage.rule
    number = rule.due(progress.step, total, progress.looks) if rule else None
    if rule is None or number is None:
        return False
    seen = stage.world.from_first(lambda: rule.check(number, progress.step, hash_of_weights(optimizer)))
    progress.looks, progress.stopped = number, seen.stopped
    _note_score(stage, optimizer, progress, seen.score, seen.fields)
    stage.run.event("look", stage=stage.number, step=progress.step, **seen.look)
    logger.info(f"{seen.sentence}: {f'stopped, since {seen.stopped}' if seen.stopped else 'it goes on'}")
    return True


def _note_score(stage: Stage, optimizer: MasterAdamW, progress: Progress, score: float, fields: dict[str, Any]) -> None:
    """Record what an evaluation found, and keep the checkpoint where it is the best so far."""
    stage.run.event("evaluation", stage=stage.number, step=progress.step, tokens=progress.tokens, **fields)
    logger.info(f"step {progress.step}: nDCG@10 {score:.4f} on {fields['suite']}")
    if progress.best_score is None or score > progress.best_score:
        progress.best_score, progress.best_step = score, progress.step
        _save(stage, optimizer, progress, keep_as="best")


def _save(stage: Stage, optimizer: MasterAdamW, progress: Progress, keep_as: str | None = None) -> None:
    """Write a checkpoint, with the random state of every process."""
    random = stage.world.gather(random_state())
    if stage.world.first:
        save_checkpoint(stage.folder, progress, optimizer, keep_as, random)
    stage.world.wait()


def _resume(stage: Stage, optimizer: MasterAdamW) -> Progress:
    checkpoint = latest_checkpoint(stage.folder)
    if checkpoint is None:
        _go_on_from_the_stage_before(stage, optimizer)
        return Progress(stage=stage.number)
    progress = read_progress(checkpoint)
    load_checkpoint(checkpoint, optimizer, stage.world.rank)
    stage.run.event("resumed", stage=stage.number, step=progress.step)
    logger.info(f"going on from step {progress.step}")
    return progress


def _finished(stage: Stage) -> Progress | None:
    """Where a stage ended that an earlier process finished; its weights are put back for the stage after it."""
    checkpoint = latest_checkpoint(stage.folder)
    if checkpoint is None or not any(e["stage"] == stage.number for e in stage.run.events("stage_finished")):
        return None
    stage.built.load_trained(trained_weights(checkpoint))
    return read_progress(checkpoint)


def _go_on_from_the_stage_before(stage: Stage, optimizer: MasterAdamW) -> None:
    """Start from the full-precision weights that the last stage ended with; the model itself holds them rounded."""
    checkpoint = latest_checkpoint(stage.before) if stage.before else None
    if checkpoint is not None:
        optimizer.load_weights(trained_weights(checkpoint))


def _known_budget(folder: Path) -> dict[str, Any] | None:
    file = folder / "budget.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def _save_interrupted(stage: Stage, optimizer: MasterAdamW, progress: Progress) -> None:
    """Ctrl-C falls anywhere, also into the update; only weights and moments between two steps are worth saving.

    Of several processes none can ask the others any more: their last checkpoint has to do.
    """
    if stage.world.size > 1:
        return
    checkpoint = latest_checkpoint(stage.folder)
    steps = {int(entry["step"]) for entry in optimizer.state()["state"].values()}
    if steps == {progress.step} and (checkpoint is None or read_progress(checkpoint).step < progress.step):
        save_checkpoint(stage.folder, progress, optimizer, random=[stage.random] if stage.random else [])


def _not_finite(stage: Stage, progress: Progress, batch: Any, value: float, what: str) -> WorkError:
    file = stage.run.path / f"bad-batch-step-{progress.step + 1}.json"
    texts = getattr(batch, "texts", None)
    if stage.world.first:
        write_json(file, vars(texts) if texts is not None else {"batch": repr(batch)})
    kind = "NaN" if math.isnan(value) else "infinite"
    return WorkError(
        f"the {what} is {kind} at step {progress.step + 1}; its batch is in {file}; the last checkpoint is kept; "
        "try a lower optimizer.learning_rate or model.dtype=fp32"
    )
