"""What the training loop asks of a task. A new objective is a new task, never a second loop."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from gemma4vec.model.encoder.build import EmbeddingModel


@dataclass(frozen=True)
class Loss:
    """The loss of one batch and what it cost: this process's part, where several train together.

    Attributes:
        value: scalar with a graph; the loss is the sum over processes.
        tokens: real tokens that went through the backbone.
        rows: rows that were encoded.
        padding_share: share of computed cells that held no real token.
        terms: what `value` is the weighted sum of, by name, unweighted and without a graph; empty where it is one term.
        noted: what else the log says of a step.
    """

    value: Tensor
    tokens: int
    rows: int
    padding_share: float
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    noted: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ExtraParameter:
    """What a task trains beside the model, with its own learning rate (on the stage's schedule) and no weight decay."""

    parameter: nn.Parameter
    learning_rate: float


class Task(Protocol):
    """Batches and a loss."""

    @property
    def rows_per_batch(self) -> int:
        """Rows in one batch."""
        ...

    def batches(self, start: int = 0) -> Iterator[Any]:
        """Endless batches from number `start` on; the same number always gives the same batch."""
        ...

    def extra_parameters(self) -> Mapping[str, ExtraParameter]:
        """What is trained beside the model, by names that begin with `objective.`."""
        ...

    def plan_memory(self, built: EmbeddingModel, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Make the choices that need the model as it will run, before the first step; gives them for the log.

        `before` are those that a resumed run began with.
        """
        ...

    def loss(self, built: EmbeddingModel, batch: Any) -> Loss:
        """Loss of one batch, with a graph."""
        ...
