"""What tasks that predict tokens of texts have in common: batches of texts, in an order that a seed decides."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from gemma4vec.machine.memory import device_memory
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.tokenize.tokenizer import TextTokenizer
from gemma4vec.recipe import schema
from gemma4vec.training.batches.fit_memory import fit, measure_needs
from gemma4vec.training.batches.text_batches import DrawnTexts, draw_texts
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.task import ExtraParameter, HeldOutLoss, Loss, MemoryPlan


class LaidOut(Protocol):
    """A batch as rectangles of tokens."""

    @property
    def layouts(self) -> list[PackedBatch]:
        """All rectangles."""


Batch = TypeVar("Batch", bound=LaidOut)


@dataclass(frozen=True, eq=False)
class TextTask(ABC, Generic[Batch]):
    """A task on texts that are drawn one by one, each once an epoch.

    Attributes:
        stage: the recipe's.
        texts: the data.
        tokenizer: tokenizes texts.
        head: states to scores of the vocabulary.
        seed: of the texts' order, and of what is drawn for them.
        device: kind of device that computes.
        world: the processes that train together.
    """

    stage: schema.Stage
    texts: Sequence[str]
    tokenizer: TextTokenizer
    head: LanguageModelHead
    seed: int
    device: str
    world: World

    @property
    def rows_per_batch(self) -> int:
        """Texts in one batch."""
        return self.stage.batch.rows

    def batches(self, start: int = 0, plan: MemoryPlan | None = None) -> Iterator[Batch]:
        """Endless batches from number `start` on; the same number always has the same texts and the same draws."""
        for texts in self.draw(start):
            yield self.lay_out_batch(texts, plan or MemoryPlan(self.stage.layout))

    def draw(self, start: int = 0) -> Iterator[DrawnTexts]:
        """The texts of endless batches.

        Raises:
            InputError: fewer texts than a batch has.
        """
        return draw_texts(self.texts, self.rows_per_batch, self.seed, start)

    @abstractmethod
    def lay_out_batch(self, drawn: DrawnTexts, plan: MemoryPlan) -> Batch:
        """Tokenize and lay out a batch of texts, or this process's share of it."""

    @abstractmethod
    def loss(self, built: EmbeddingModel, batch: Batch) -> Loss:
        """Loss of one batch, with a graph."""

    def extra_parameters(self) -> Mapping[str, ExtraParameter]:
        """None: it trains the model alone."""
        return {}

    def held_out(self, built: EmbeddingModel) -> HeldOutLoss | None:
        """None: it trains on every text."""
        return None

    def plan_memory(self, built: EmbeddingModel, before: Mapping[str, Any] | None = None) -> MemoryPlan:
        """Nothing to choose; only warns if a batch may not fit."""
        layout, backbone = self.stage.layout, built.encoder.backbone
        texts = next(self.draw())
        needs = measure_needs(
            built,
            layout,
            lambda other: self.lay_out_batch(texts, MemoryPlan(other)).layouts,
            backbone,
            self.extra_parameters(),
        )
        return MemoryPlan(layout, remark=fit(layout, needs, device_memory(backbone.device), can_cache=False).remark)
