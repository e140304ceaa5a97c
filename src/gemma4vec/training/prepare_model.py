"""Prepare a stage's model for its first step: fast kernels, gradient checkpointing, compilation, the memory plan."""

import logging

from gemma4vec.model import upstream
from gemma4vec.model.backbone import attention_probe as probe
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.compilation import (
    CompileChoice,
    choose_compile,
    failed_to_compile,
    run_compiled,
    use_compile_cache,
)
from gemma4vec.model.backbone.kernel_options import fast_paths
from gemma4vec.training.batches.micro_batches import can_share_prefix
from gemma4vec.training.engine.process_memory import keep_freed_memory
from gemma4vec.training.engine.step_budget import known_steps
from gemma4vec.training.engine.task import MemoryPlan
from gemma4vec.training.stage import Stage

logger = logging.getLogger(__name__)

# Width of the three rows in the first compiled forward, at most. Small, because memory is planned only afterwards; one
# graph serves any height and width, but attention differs beyond `model.backbone.attention.LONGEST_ROW`.
_PROBED_COLUMNS = 680


def prepare_model(stage: Stage) -> MemoryPlan:
    """Set the model up as the recipe's layout says, check its attention, and plan the memory of its batches.

    Memory is planned last, for the model as it will run, and before any full micro-batch does.

    Raises:
        WorkError: the attention probe fails.
    """
    backbone, layout, budget = stage.built.encoder.backbone, stage.settings.layout, stage.settings.budget
    stage.built.encoder.train()
    backbone.fast = fast_paths(backbone.device.type, layout.fast_paths)
    keep_freed_memory(backbone.fast.keep_freed_memory)
    found = probe.check(backbone)
    backbone.use_gradient_checkpointing(layout.gradient_checkpointing)
    steps = known_steps(budget, stage.task.rows_per_batch * stage.settings.batch.accumulate)
    choice = choose_compile(layout.compile, steps=steps, minutes=budget.minutes, least_steps=budget.least_steps)
    if choice.on and backbone.compile_failed:
        choice = CompileChoice(False, "it failed before")
    if choice.on and not backbone.compiled:
        use_compile_cache()
        logger.info("compiling the decoder layers (a minute or more, once on a machine)")
        try:
            found = run_compiled(backbone, _training_probe(stage).check, compile_for_training)
        except upstream.compiler_errors() as error:  # slower, but the same result
            choice = failed_to_compile(error)
    if not choice.on:
        logger.warning(f"layers run uncompiled: {choice.reason}")
    # A resumed stage takes no more memory than it began with.
    earlier = [event for event in stage.run.events("prepared") if event["stage"] == stage.number]
    plan = stage.task.plan_memory(stage.built, earlier[-1] if earlier else None)
    if plan.remark:
        logger.warning(plan.remark)
    chosen = {"compile": choice.on, "compile_reason": choice.reason, **plan.fields()}
    stage.run.event("prepared", stage=stage.number, **chosen, probe=vars(found))
    return plan


def compile_for_training(backbone: Backbone) -> None:
    """Compile the decoder layers. With `fused_lora`, each adapter is first fused with its weight into one product."""
    if backbone.fast.fused_lora:
        from gemma4vec.model.adapters.fused_lora import fuse_lora  # imports peft, which only LoRA needs

        fuse_lora(backbone)
    backbone.compile_layers()


def _training_probe(stage: Stage) -> probe.TrainingProbe:
    """The check of compiled layers, in the width of training; only vectors are read from last tokens and shared."""
    encoder, layout = stage.built.encoder, stage.settings.layout
    vectors = stage.settings.task.kind == "contrast"
    columns = min(layout.row_tokens, _PROBED_COLUMNS)
    return probe.TrainingProbe(
        encoder.backbone,
        columns,
        share=vectors and can_share_prefix(layout, encoder),
        last_token_only=vectors and encoder.readout.last_token_only,
    )
