"""A term of a contrast's loss: its settings, what it reads of a batch, and its value.

Shapes: N rows, K hard negatives a row, C = 1 + K candidates, D dimensions of the model, E of a teacher.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gemma4vec.data.batching.batches import RowBatch
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens
from gemma4vec.objective.false_negatives import TextHashes
from gemma4vec.objective.matryoshka import check_dimensions, matryoshka
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import Term
from gemma4vec.training.engine.task import ExtraParameter
from gemma4vec.training.terms.temperature import Temperature

Texts = Literal["queries", "positives", "negatives"]
LayOut = Callable[[Sequence[Tokens]], list[PackedBatch]]


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of a batch.

    Attributes:
        queries_ND: of the queries.
        positives_ND: of the positives.
        negatives_NKD: of the hard negatives; None where rows have none.
        views: second dropout views of `queries` or `positives`, `[N, D]` each.
    """

    queries_ND: Tensor
    positives_ND: Tensor
    negatives_NKD: Tensor | None
    views: Mapping[str, Tensor]

    def of(self, texts: str) -> Tensor | None:
        """The vectors of `queries`, `positives` or `negatives`, row after row: `[N, D]` or `[N*K, D]`."""
        if texts == "negatives":
            return None if self.negatives_NKD is None else self.negatives_NKD.flatten(0, 1)
        return self.queries_ND if texts == "queries" else self.positives_ND


@dataclass(frozen=True)
class TermBatch:
    """What a term may read of a batch.

    Attributes:
        vectors: the model's, with a graph.
        hashes: hashes of the texts; equal texts have equal hashes.
        row_weights_N: factor of each row, of mean 1, on the vectors' device; None: 1 each.
        scores_NC: a teacher's scores of each row's positive and hard negatives, on the CPU; NaN in rows without
            scores; None where no row has any.
        teacher: vectors of the term's teacher, by kind of text: `[N, E]`, of negatives `[N*K, E]`.
        prepared: what the term's `prepare` made of the batch.
    """

    vectors: Vectors
    hashes: TextHashes
    row_weights_N: Tensor | None = None
    scores_NC: Tensor | None = None
    teacher: Mapping[str, Tensor] = field(default_factory=dict)
    prepared: Any = None


@dataclass(frozen=True)
class TeacherSettings:
    """The teacher whose vectors a term reads.

    Attributes:
        model: hub id, folder, run folder or `bundled:NAME`; None: a file has the vectors.
        vectors: that file.
        texts: whose vectors are read.
        same_dimension: whether its vectors must have the model's dimension.
    """

    model: str | None
    vectors: str | None
    texts: Sequence[Texts]
    same_dimension: bool


@dataclass(frozen=True)
class TermContext:
    """What a term may know when it is made.

    Attributes:
        task: the contrast that it is part of.
        dimension: D.
        device: the device of the model.
        temperature: the task's temperature, learned or not.
        teacher_dimension: E; None for a term without a teacher.
        built: the model itself; None where only vectors are at hand.
        head: loads the base's language-model head.
    """

    task: schema.Contrast
    dimension: int
    device: torch.device
    temperature: Temperature
    teacher_dimension: int | None = None
    built: EmbeddingModel | None = None
    head: Callable[[], LanguageModelHead] | None = None


class LossTerm(ABC):
    """A term of the loss of a contrast.

    A term is one file with one subclass, its settings in `recipe/terms.py`, its formula in `objective/`, and one line
    in `training/terms/__init__.py`. Weights, weights by source, logging, GradCache and several processes are handled
    outside.

    Attributes:
        kind: what recipes call it.
        reads_scores: whether it learns from the rows' `scores`. Rows without them are refused, unless their source has
            weight 0.
        settings: the recipe's; a subclass declares its own type.
        context: what is known of the model and the task.
    """

    kind: ClassVar[str]
    reads_scores: ClassVar[bool] = False
    settings: Term

    def __init__(self, settings: Term, context: TermContext):
        self.settings = settings
        self.context = context

    @classmethod
    def check(cls, settings: Term, dimension: int, key: str) -> None:
        """Refuse settings that a model of `dimension` cannot have; `key` is the term's place in the recipe.

        Raises:
            InputError: the key and the limit. Here: a Matryoshka prefix longer than the model's vectors.
        """
        if settings.matryoshka is not None:
            check_dimensions(settings.matryoshka, dimension, f"{key}.matryoshka")

    @classmethod
    def second_views(cls, settings: Term) -> Sequence[Texts]:
        """Texts that it needs encoded twice, under different dropout."""
        return ()

    @classmethod
    def teacher(cls, settings: Term) -> TeacherSettings | None:
        """The teacher whose vectors it reads, if it reads any."""
        return None

    def extra_parameters(self) -> Mapping[str, ExtraParameter]:
        """What it trains next to the model, by a name within the term."""
        return {}

    def prepare(self, rows: RowBatch, lay_out: LayOut) -> Any:
        """What it needs of the rows' texts, made in the thread that lays out batches; it must not touch the model.

        `lay_out` makes micro-batches of any tokenized texts, as the stage's layout says.
        """
        return None

    @abstractmethod
    def value(self, batch: TermBatch) -> Tensor:
        """The scalar value on a batch, before the term's weight, with a graph."""

    def sum_over_prefixes(self, loss: Callable[..., Tensor], vectors: Sequence[Tensor | None]) -> Tensor:
        """`loss(*vectors)`, or its weighted sum over the Matryoshka prefixes that the recipe names."""
        if self.settings.matryoshka is None:
            return loss(*vectors)
        return matryoshka(loss, vectors, self.settings.matryoshka, self.settings.matryoshka_weights)
