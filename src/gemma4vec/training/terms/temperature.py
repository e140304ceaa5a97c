"""The temperature of a contrast: a number, or a parameter that is trained next to the model.

A learned temperature is updated with the model and stored in checkpoints, as `objective.temperature`. It is not part of
the saved model, and a later stage starts with its own.
"""

import math

import torch
from torch import Tensor, nn

from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import LearnedTemperature
from gemma4vec.training.engine.task import ExtraParameter


class Temperature:
    """The temperature of terms that have none of their own.

    A learned one is `low * (high / low) ** sigmoid(u)`: it moves by factors, and no update leads beyond its bounds, as
    one could where it is only clamped.
    """

    def __init__(self, task: schema.Contrast, device: torch.device):
        self.start = task.temperature
        self.bounds = task.learn_temperature
        self.parameter: ExtraParameter | None = None
        if self.bounds is not None:
            bounds = self.bounds
            share = math.log(task.temperature / bounds.minimum) / math.log(bounds.maximum / bounds.minimum)
            free = nn.Parameter(torch.tensor(math.log(share / (1 - share)), device=device))
            self.parameter = ExtraParameter(free, bounds.learning_rate)

    def now(self) -> float | Tensor:
        """Its current value; a scalar with a graph where it is learned."""
        if self.bounds is None or self.parameter is None:
            return self.start
        return between(self.parameter.parameter, self.bounds)

    def now_or(self, own: float | None) -> float | Tensor:
        """A term's own temperature, or this one where it has none."""
        return self.now() if own is None else own


def between(free: Tensor, bounds: LearnedTemperature) -> Tensor:
    """The temperature of an unbounded parameter."""
    return bounds.minimum * (bounds.maximum / bounds.minimum) ** torch.sigmoid(free)
