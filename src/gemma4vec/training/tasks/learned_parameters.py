"""What a contrast trains beside the model: the temperature, and projections to the dimensions of teachers.

They are updated with the model and stand in its checkpoints, as `objective.…`; no model is saved with them, and a later
stage begins its own.

Shapes: D dimensions of the model, E of a teacher.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import LearnedTemperature, Matching
from gemma4vec.training.engine.checkpoint import BESIDE
from gemma4vec.training.engine.task import ExtraParameter


class ObjectiveParameters(nn.Module):
    """The trained parameters of a contrast; none where its recipe asks for none.

    The temperature is `low * (high / low) ** sigmoid(u)`: it moves by factors, and no update leads beyond its bounds,
    as one could where it is only clamped.
    """

    def __init__(
        self, task: schema.Contrast, dimension: int, teachers: Mapping[str, int], device: torch.device | str = "cpu"
    ):
        super().__init__()
        self.task = task
        self.own: dict[str, ExtraParameter] = {}
        if task.learn_temperature is not None:
            bounds = task.learn_temperature
            share = math.log(task.temperature / bounds.minimum) / math.log(bounds.maximum / bounds.minimum)
            start = nn.Parameter(torch.tensor(math.log(share / (1 - share)), device=device))
            self.own[f"{BESIDE}temperature"] = ExtraParameter(start, bounds.learning_rate)
        for term in task.terms:
            if isinstance(term, Matching) and term.form == "projection":
                start = nn.Parameter(_orthogonal(teachers[term.label], dimension).to(device))
                self.own[f"{BESIDE}{term.label}.projection"] = ExtraParameter(start, term.projection_learning_rate)

    def temperature(self) -> float | Tensor:
        """The task's temperature as it is now."""
        bounds = self.task.learn_temperature
        if bounds is None:
            return self.task.temperature
        return between(self.own[f"{BESIDE}temperature"].parameter, bounds)

    def projection(self, label: str) -> Tensor | None:
        """`[E, D]` of the term of that name, if it has one."""
        found = self.own.get(f"{BESIDE}{label}.projection")
        return None if found is None else found.parameter


def between(free: Tensor, bounds: LearnedTemperature) -> Tensor:
    """The temperature that a free parameter stands for."""
    return bounds.minimum * (bounds.maximum / bounds.minimum) ** torch.sigmoid(free)


def _orthogonal(rows: int, columns: int) -> Tensor:
    """A matrix that keeps lengths as far as its shape allows; the same one for every seed of the run."""
    generator = torch.Generator().manual_seed(0)
    return nn.init.orthogonal_(torch.empty(rows, columns), generator=generator)
