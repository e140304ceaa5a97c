"""Our side of `speed/training_speed.py`: the parts that `gemma4vec train` is made of, stepped from outside.

Nothing is left out of a step but what is written and shown after it (an event of one line). Batches are made ahead, in
a thread, as there; a block begins and ends with as many batches ready, so that it makes as many as it uses.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.shared.peer_trainer import read_clock
from benchmarks.shared.record import say
from gemma4vec.data.rows.rows import Row
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.machine.prefetch import DEPTH, Prefetcher
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.recipe.load import dump_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.engine.optimizer import MasterAdamW, learning_rate
from gemma4vec.training.engine.step_bar import StepBar
from gemma4vec.training.engine.task import MemoryPlan
from gemma4vec.training.prepare_model import prepare_model
from gemma4vec.training.stage import Stage
from gemma4vec.training.tasks.contrastive import ContrastBatch, ContrastTask


@dataclass
class Ours:
    """The first stage of a recipe; `tokens`, `losses` and `padding_shares` have one entry a step done.

    Attributes:
        first: the adapters' values before any training.
        waited: seconds that batches were waited for in each call of `train`.
        ready: batches that are made and not used yet, between two calls of `train`.
    """

    stage: Stage
    batches: Iterator[ContrastBatch]
    optimizer: MasterAdamW
    dtype: torch.dtype
    device: str
    total_steps: int
    first: dict[str, torch.Tensor]
    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    padding_shares: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    ready: list[ContrastBatch] = field(default_factory=list)
    rotation: Any = None
    plan: MemoryPlan | None = None

    @property
    def built(self) -> EmbeddingModel:
        """The model."""
        return self.stage.built

    @property
    def prepared(self) -> dict[str, Any]:
        """Why layers are compiled, or not, and what was settled about memory; known once they are prepared."""
        event = self.stage.run.events("prepared")[-1]
        return {key: event[key] for key in ("compile_reason", "grad_cache", "tokens_per_forward")}

    def prepare(self) -> None:
        """Probe and, as the recipe says, compile; then plan the memory of the batches."""
        with self._own_rotation():
            self.plan = prepare_model(self.stage)
        self.batches = self.first_batches()

    def first_batches(self) -> Iterator[ContrastBatch]:
        """The batches of the stage from the first on, as memory was planned."""
        return self.stage.task.batches(0, self.plan)

    @contextmanager
    def _own_rotation(self) -> Iterator[None]:
        """Compiled layers change a function of the library's module (`model.backbone.rotary`); the peer must have
        its own."""
        module = sys.modules[type(self.built.encoder.backbone.model).__module__]
        library = getattr(module, "rotate_half", None)
        if self.rotation is not None:
            module.rotate_half = self.rotation  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self.rotation = getattr(module, "rotate_half", None)
            if library is not None:
                module.rotate_half = library  # type: ignore[attr-defined]

    def train(self, steps: int) -> float:
        """Train some steps; gives seconds, making as many batches included.

        The clock starts with `DEPTH` batches ready, as a step of a long run finds them, and stops when as many are
        ready again: none comes free, and none is made while somebody else's clock runs.
        """
        while len(self.ready) < DEPTH:
            self.ready.append(next(self.batches))
        started = read_clock()
        ahead = Prefetcher(chain(self.ready, self.batches), lambda: DEPTH + steps)
        try:
            with self._own_rotation():
                for _ in range(steps):
                    self._step(ahead.take())
            self.waited.append(ahead.waited)
            self.ready = [ahead.take() for _ in range(DEPTH)]
            return read_clock() - started
        finally:
            ahead.close()

    def loss_of(self, batch: ContrastBatch) -> float:
        """Loss of a batch with the weights as they are."""
        with torch.no_grad(), self._own_rotation():
            return float(self.stage.task.loss(self.built, batch).value)

    def _step(self, batch: ContrastBatch) -> None:
        loss = self.stage.task.loss(self.built, batch)
        loss.value.backward()
        self.optimizer.step(learning_rate(self.stage.settings.optimizer, len(self.tokens), self.total_steps))
        self.tokens.append(loss.tokens)
        self.losses.append(float(loss.value.detach()))
        self.padding_shares.append(loss.padding_share)


def build_ours(
    recipe: Recipe, base: ResolvedBase, rows: Sequence[Row], folder: Path, total_steps: int, before: Ours | None = None
) -> Ours:
    """Load the base and put everything together as `gemma4vec train` does; `folder` takes the run folder.

    Instead of loading it, the model can be that of `before`, compiled or not, with its first adapters put back; layout,
    batches and optimizer are new. The two recipes must describe the same model.
    """
    settings = recipe.stages[0]
    device = choose_device().name
    choice = choose_dtype(device, recipe.model.dtype)
    say(f"dtype: {choice.dtype} ({choice.reason})")
    if before is None:
        built = build(recipe.model, base.path, dtype=choice.dtype, device=device, seed=recipe.seed)
        first = {name: parameter.detach().clone() for name, parameter in built.trainable().items()}
    else:
        built, first = before.built, before.first
        with torch.no_grad():
            for name, parameter in built.trainable().items():
                parameter.copy_(first[name])
                parameter.grad = None
    task = ContrastTask.make(settings, rows, built, max_tokens=recipe.model.max_tokens, seed=recipe.seed)
    run = RunFolder.create(folder / "runs", recipe.name, dump_recipe(recipe))
    stage = Stage(0, settings, task, built, run, None, StepBar("ours"))
    optimizer = MasterAdamW(built.trainable(), settings.optimizer)
    ours = Ours(stage, task.batches(0), optimizer, choice.dtype, device, total_steps, first)
    ours.rotation = before.rotation if before is not None else None
    return ours
