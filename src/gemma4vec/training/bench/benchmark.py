"""Speed of a stage of a recipe on this machine, and its share of what the machine can do.

The steps are those of a real run: batches prefetched by a thread, layouts, compilation, loss and optimizer. Nothing is
saved.

The roofline (Williams et al. 2009, doi 10.1145/1498765.1498785): a step takes at least its operations over the rate of
a large matrix product on this machine, and at least its bytes over the rate of a large copy; the larger is the floor.
Operations are those that the documents need (`training.engine.flops.document_flops`). Bytes are the weights: each
micro-batch reads all layers once forward, and those that a gradient reaches once backward.
"""

import logging
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import temporary_folder
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.machine.prefetch import Prefetcher
from gemma4vec.machine.rates import matmul_rate, memory_bandwidth
from gemma4vec.model.backbone.compilation import run_with_eager_fallback
from gemma4vec.model.backbone.lm_head import load_head
from gemma4vec.model.bases.start import resolve_model
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.recipe import schema
from gemma4vec.recipe.load import dump_recipe
from gemma4vec.training.bench.advice import Observations, advise
from gemma4vec.training.bench.time_split import split
from gemma4vec.training.engine.flops import document_flops, first_trained_layer, prediction_flops
from gemma4vec.training.engine.optimizer import MasterAdamW, learning_rate
from gemma4vec.training.engine.process_memory import peak_memory_bytes, peak_since_start, start_peak
from gemma4vec.training.engine.step_bar import StepBar
from gemma4vec.training.engine.task import Loss, MemoryPlan
from gemma4vec.training.preflight import check_base, check_stages
from gemma4vec.training.prepare_model import prepare_model
from gemma4vec.training.stage import Stage, quantize_stage
from gemma4vec.training.tasks.make_task import load_stage_data, make_task

logger = logging.getLogger(__name__)

_WARM_UP = 2
_LEAST_STEPS = 3
_ADVISED = 2  # batches that are laid out in other ways for advice
MATRIX = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True)
class Step:
    """One optimizer step, in seconds."""

    seconds: float
    waited: float
    update: float
    tokens: int
    floor_operations: float
    micro_batches: int
    padding_share: float


def bench(recipe: schema.Recipe, number: int, seconds: float) -> dict[str, Any]:
    """Train stage `number` for about `seconds` after a warm-up; returns plain values (docs/guides/speed.md).

    Raises:
        InputError: there is no such stage, or a run of the recipe would be refused.
        WorkError: a loss or gradient is not finite.
    """
    if number >= len(recipe.stages):
        raise InputError(f"--stage {number}: the recipe has {len(recipe.stages)} stages, counted from 0")
    settings = recipe.stages[number]
    base = resolve_model(recipe.model)
    outline = check_base(recipe, base.path)
    loaded = [load_stage_data(stage) for stage in recipe.stages]
    check_stages(recipe, base.path, loaded, outline)
    where = choose_device()
    choice = choose_dtype(where.name, recipe.model.dtype)
    built = build(
        recipe.model,
        base.path,
        dtype=choice.dtype,
        device=where.name,
        seed=recipe.seed,
        tokenizer=outline.tokenizer,
    )
    with temporary_folder("bench") as folder:
        task = make_task(
            settings,
            loaded[number],
            built,
            lambda: load_head(built.encoder.backbone, base.path, settings.task.kind),
            max_tokens=recipe.model.max_tokens,
            seed=recipe.seed,
            start=recipe.model.start,
        )
        run = RunFolder.create(Path(folder), recipe.name, dump_recipe(recipe))
        quantization = quantize_stage(settings, built, base.path)
        stage = Stage(number, settings, task, built, run, None, StepBar("bench"), quantization=quantization)
        logger.info("preparing: the probe, and compilation where the recipe has it")
        started = time.perf_counter()
        plan = prepare_model(stage)
        measured = _Measurement(stage, plan, seconds)
        try:
            measured.run(time.perf_counter() - started)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("bench was stopped before it had measured enough; it keeps nothing") from None
        why_compiled = measured.gave_up or run.events("prepared")[-1]["compile_reason"]
    reasons = {"device_reason": where.reason, "dtype_reason": choice.reason, "compile_reason": why_compiled}
    return _result(recipe, number, measured, choice.dtype, where.name) | reasons


class _Measurement:
    """The steps of one stage, timed one by one, and one more under the profiler."""

    def __init__(self, stage: Stage, plan: MemoryPlan, seconds: float):
        self.stage, self.plan, self.limit = stage, plan, seconds
        self.first_trained = first_trained_layer(stage.built)
        self.optimizer = MasterAdamW(
            stage.built.trainable(), stage.settings.optimizer, stage.task.extra_parameters(), stage.quantization
        )
        self.optimizer.quantize_weights()
        self.steps: list[Step] = []
        self.first_step = self.prepare_seconds = 0.0
        self.shares: dict[str, float] = {}
        self.gave_up: str | None = None
        self.done = 0
        self.peak_memory = 0

    def run(self, prepare_seconds: float) -> None:
        """Warm up, measure, profile."""
        self.prepare_seconds = prepare_seconds
        ahead = Prefetcher(self.stage.task.batches(0, self.plan), lambda: None)
        watched = start_peak()  # the peak of loading or unpacking the base does not count
        try:
            self.first_step = self._step(ahead).seconds
            for _ in range(_WARM_UP - 1):
                self._step(ahead)
            logger.info(f"measuring for {self.limit:g} s")
            started = time.perf_counter()
            while len(self.steps) < _LEAST_STEPS or time.perf_counter() - started < self.limit:
                known = self.gave_up
                step = self._step(ahead)
                if self.gave_up == known:
                    self.steps.append(step)
                else:  # earlier steps were compiled, and this one was both
                    self.steps.clear()
                    started = time.perf_counter()
            self.peak_memory = peak_since_start() if watched else peak_memory_bytes()
            logger.info("one more step under the profiler")
            batches = [ahead.take() for _ in range(self.stage.settings.batch.accumulate)]
            self.shares = split(lambda: self._work(batches)[0])
        finally:
            ahead.close()

    def _step(self, ahead: Prefetcher[Any]) -> Step:
        waited, started = ahead.waited, _clock()
        batches = [ahead.take() for _ in range(self.stage.settings.batch.accumulate)]
        taken = _clock() - started
        seconds, update, losses, norm = self._work(batches)
        if not (math.isfinite(norm) and all(torch.isfinite(loss.value) for loss in losses)):
            raise WorkError(
                f"{self.stage.settings.name}: loss or gradient is not finite in step {self.done + 1}, where a training "
                "would end: its speed would say nothing; try a smaller optimizer.learning_rate"
            )
        self.done += 1
        layouts = [layout for batch in batches for layout in batch.layouts]
        tokens = sum(loss.tokens for loss in losses)
        padding = sum(loss.padding_share * loss.tokens for loss in losses) / max(1, tokens)
        predicted = _prediction_flops(self.stage.task, batches)
        operations = predicted + document_flops(self.stage.built, layouts, predicts=predicted > 0).total
        return Step(
            taken + seconds,
            ahead.waited - waited,
            update,
            tokens,
            operations,
            len(layouts),
            padding,
        )

    def _work(self, batches: Sequence[Any]) -> tuple[float, float, list[Loss], float]:
        """(seconds of a step without its data, seconds of the update, losses, gradient norm)."""
        started = _clock()
        losses = run_with_eager_fallback(
            self.stage.built.encoder.backbone, lambda: self._passes(batches), self._given_up
        )
        before = _clock()
        norm = self.optimizer.step(learning_rate(self.stage.settings.optimizer, len(self.steps), None))
        ended = _clock()
        return ended - started, ended - before, losses, norm

    def _passes(self, batches: Sequence[Any]) -> list[Loss]:
        """Forward and backward of each batch."""
        losses = []
        for batch in batches:
            loss = self.stage.task.loss(self.stage.built, batch)
            (loss.value / len(batches)).backward()
            losses.append(loss)
        return losses

    def _given_up(self, reason: str) -> None:
        """Drop the gradients of a step in which the compiler gave up."""
        for parameter in self.optimizer.parameters.values():
            parameter.grad = None
        self.gave_up = reason
        logger.warning(f"layers run uncompiled from here on: {reason}")


def _prediction_flops(task: Any, batches: Sequence[Any]) -> float:
    """Operations of a vocabulary's products, in a task that predicts tokens."""
    head = getattr(task, "head", None)
    if head is None:
        return 0.0
    return prediction_flops(head.weight_VD, sum(len(targets) for batch in batches for targets in batch.targets))


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def layer_bytes(built: EmbeddingModel) -> float:
    """Bytes of weights that a micro-batch reads: all layers forward, those from the lowest trained one up backward."""
    lowest = first_trained_layer(built)
    sizes = [sum(p.nbytes for p in layer.parameters()) for layer in built.encoder.backbone.layers]
    return float(sum(sizes) + sum(sizes[lowest:]))


def _result(
    recipe: schema.Recipe, number: int, measured: _Measurement, dtype: torch.dtype, device: str
) -> dict[str, Any]:
    built, steps, settings = measured.stage.built, measured.steps, recipe.stages[number]
    seconds = statistics.median(step.seconds for step in steps)
    speeds = sorted(step.tokens / step.seconds for step in steps)
    rate = matmul_rate(dtype, MATRIX[device], 0.5, device) * 1e9
    bandwidth = memory_bandwidth(0.3, device) * 1e9
    read = layer_bytes(built)
    floors = [max(step.floor_operations / rate, read * step.micro_batches / bandwidth) for step in steps]
    waited = sum(step.waited for step in steps) / sum(step.seconds for step in steps)
    work = {part: share * (1 - waited) for part, share in measured.shares.items()}
    task: Any = measured.stage.task
    backbone = built.encoder.backbone
    faster = "bfloat16" if choose_dtype(device, "auto").dtype == torch.bfloat16 else "float32"
    groups = [getattr(b, "groups", [b.layouts]) for b in islice(task.batches(0, measured.plan), _ADVISED)]
    seen = Observations(
        groups=[group for batch in groups for group in batch],
        first_trained=measured.first_trained,
        compiled=backbone.compiled,
        shared=bool(getattr(task, "shares_prefix", False)),
        shareable=built.encoder.reason_not_to_share(training=True) is None,
        waited=waited,
        element_wise=work["element-wise"],
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        faster_dtype=faster,
    )
    return {
        "recipe": recipe.name,
        "stage": settings.name,
        "base": recipe.model.base,
        "device": device,
        "dtype": seen.dtype,
        "compiled": seen.compiled,
        "shares_prefixes": seen.shared,
        "steps": len(steps),
        "prepare_seconds": measured.prepare_seconds,
        "first_step_seconds": measured.first_step,
        "seconds_per_step": seconds,
        "tokens_per_step": statistics.median(step.tokens for step in steps),
        "tokens_per_second": {"median": statistics.median(speeds), "least": speeds[0], "most": speeds[-1]},
        "padding_share": statistics.median(step.padding_share for step in steps),
        "peak_memory_gb": measured.peak_memory / 1e9,
        "roofline": {
            "matrix_products_tflops": rate / 1e12,
            "memory_gb_per_second": bandwidth / 1e9,
            "needed_tflop_per_step": statistics.median(step.floor_operations for step in steps) / 1e12,
            "floor_seconds": statistics.median(floors),
            "share": statistics.median(floor / step.seconds for floor, step in zip(floors, steps, strict=True)),
        },
        "time": {**work, "data": work["data"] + waited},
        "update_share": sum(step.update for step in steps) / sum(step.seconds for step in steps),
        "advice": [asdict(one) for one in advise(recipe, number, built, seen)],
    }
