"""What the training loop needs of a task. A new objective is a new task, never a second loop."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.recipe import schema


@dataclass(frozen=True)
class Loss:
    """The loss of one batch and what it cost: this process's part, where several train together.

    Attributes:
        value: scalar with a graph; the loss is the sum over processes.
        tokens: real tokens that went through the backbone.
        rows: rows that were encoded.
        padding_share: share of computed cells that held no real token.
        terms: the terms that `value` is the weighted sum of, by name, unweighted and without a graph; empty where
            there is one term.
        noted: other values for the step's event.
    """

    value: Tensor
    tokens: int
    rows: int
    padding_share: float
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    noted: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ExtraParameter:
    """A parameter trained next to the model: its own learning rate (on the stage's schedule), no weight decay."""

    parameter: nn.Parameter
    learning_rate: float


@dataclass(frozen=True)
class HeldOutLoss:
    """The loss on texts that a task never trains on.

    Attributes:
        value: mean over all predicted tokens, in nats.
        texts: number of texts.
        predicted: number of predicted tokens.
        parts: the same mean for each part of the task, by its name.
    """

    value: float
    texts: int
    predicted: int
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MemoryPlan:
    """How the batches of a stage are laid out and encoded, so that they fit into memory.

    Attributes:
        layout: the recipe's, with a token budget that fits.
        grad_cache: whether activations are computed again instead of kept; None: the task has no such choice.
        remark: a line for people; empty where everything is as the recipe says.
    """

    layout: schema.Layout
    grad_cache: bool | None = None
    remark: str = ""

    def fields(self) -> dict[str, Any]:
        """The choices, for the event `prepared`."""
        if self.grad_cache is None:
            return {}
        return {"grad_cache": self.grad_cache, "tokens_per_forward": self.layout.tokens_per_forward}


class Task(Protocol):
    """Batches and a loss. A task is complete when it is made: nothing of it changes afterwards."""

    @property
    def rows_per_batch(self) -> int:
        """Rows in one batch."""
        ...

    def batches(self, start: int = 0, plan: MemoryPlan | None = None) -> Iterator[Any]:
        """Endless batches from number `start` on; the same number always gives the same rows.

        They are laid out as `plan` says; None: as the recipe says.
        """
        ...

    def extra_parameters(self) -> Mapping[str, ExtraParameter]:
        """What is trained next to the model, by names that begin with `objective.`."""
        ...

    def plan_memory(self, built: EmbeddingModel, before: Mapping[str, Any] | None = None) -> MemoryPlan:
        """Choose before the first step what depends on the model as it will run and on the memory.

        `before` are the choices that a resumed run began with (`MemoryPlan.fields`).
        """
        ...

    def held_out(self, built: EmbeddingModel) -> HeldOutLoss | None:
        """The loss of the model as it is now on texts that are never trained on; None: the task keeps none."""
        ...

    def loss(self, built: EmbeddingModel, batch: Any) -> Loss:
        """Loss of one batch, with a graph."""
        ...
