"""Our side of `training_speed.py`: the parts that `gemma4vec train` is made of, stepped from outside.

Nothing is left out of a step but what is written and shown after it (an event of one line).
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peer_trainer import read_clock
from record import say

from gemma4vec.data.rows import Row
from gemma4vec.ledger.runs import RunFolder
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.bases import ResolvedBase
from gemma4vec.model.build import Built, build
from gemma4vec.recipe.load import dump_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.contrast import ContrastBatch, ContrastTask
from gemma4vec.training.loop import Stage, prepare_model
from gemma4vec.training.optimiser import MasterAdamW, learning_rate
from gemma4vec.training.progress import ProgressLine


@dataclass
class Ours:
    """The first stage of a recipe; `tokens`, `losses` and `padding_shares` have one entry a step done."""

    stage: Stage
    batches: Iterator[ContrastBatch]
    optimiser: MasterAdamW
    dtype: torch.dtype
    device: str
    total_steps: int
    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    padding_shares: list[float] = field(default_factory=list)
    rotation: Any = None

    @property
    def built(self) -> Built:
        """The model."""
        return self.stage.built

    def prepare(self) -> None:
        """Probe and, as the recipe says, compile."""
        with self._own_rotation():
            prepare_model(self.stage)

    @contextmanager
    def _own_rotation(self) -> Iterator[None]:
        """Compiled layers change a function of the library's module (`model.rotary`); the peer must have its own."""
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
        """Train some steps; gives seconds, making the batches included."""
        settings = self.stage.settings.optimiser
        started = read_clock()
        with self._own_rotation():
            for _ in range(steps):
                loss = self.stage.task.loss(self.built, next(self.batches))
                loss.value.backward()
                self.optimiser.step(learning_rate(settings, len(self.tokens), self.total_steps))
                self.tokens.append(loss.tokens)
                self.losses.append(float(loss.value.detach()))
                self.padding_shares.append(loss.padding_share)
        return read_clock() - started


def build_ours(recipe: Recipe, base: ResolvedBase, rows: Sequence[Row], folder: Path, total_steps: int) -> Ours:
    """Load the base and put everything together as `gemma4vec train` does; `folder` takes the run folder."""
    settings = recipe.stages[0]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    choice = choose_dtype(device, recipe.model.dtype)
    say(f"dtype: {choice.dtype} ({choice.reason})")
    built = build(recipe.model, base.path, dtype=choice.dtype, device=device, seed=recipe.seed)
    task = ContrastTask(settings, rows, built, max_tokens=recipe.model.max_tokens, seed=recipe.seed)
    run = RunFolder.create(folder / "runs", recipe.name, dump_recipe(recipe))
    stage = Stage(0, settings, task, built, run, None, ProgressLine("ours"))
    optimiser = MasterAdamW(built.trainable(), settings.optimiser)
    return Ours(stage, task.batches(0), optimiser, choice.dtype, device, total_steps)
