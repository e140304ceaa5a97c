"""Contrastive training: tell a query's positive from in-batch and hard negatives.

Shapes: N rows, K hard negatives a row, D dimensions.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gemma4vec.data.batching.batches import RowBatch, batches
from gemma4vec.data.batching.near_rows import ClusterWindow
from gemma4vec.data.rows.rows import Row
from gemma4vec.machine.memory import device_memory
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, padding_share
from gemma4vec.objective.false_negatives import TextHashes
from gemma4vec.recipe import schema
from gemma4vec.training.batches.fit_memory import fit, measure_needs
from gemma4vec.training.batches.grad_cache import encode_cached
from gemma4vec.training.batches.micro_batches import can_share_prefix, lay_out_texts
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.task import ExtraParameter, HeldOutLoss, Loss, MemoryPlan
from gemma4vec.training.tasks.row_reader import RowReader
from gemma4vec.training.tasks.text_hashes import text_hashes
from gemma4vec.training.terms.base import Vectors
from gemma4vec.training.terms.checks import check_dropout, check_scores, check_terms, second_views
from gemma4vec.training.terms.contrast_loss import ContrastLoss, RowContext, gather_vectors
from gemma4vec.training.terms.reconstruct import check_reconstruct
from gemma4vec.training.terms.teachers import TermTeacher, encode_ahead, open_teachers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContrastBatch:
    """The tokens of a batch, laid out for the encoder, and what the loss needs besides vectors.

    Layouts hold the rows of this process; everything else is of all processes' rows.

    Attributes:
        groups: layouts of each group of texts that share forward passes. Queries, positives, negatives row after row,
            in this order, are cut into one, two or 2 + K groups.
        grad_cache: whether activations are computed again (`grad_cache.encode_cached`).
        rows: number of rows.
        own_rows: number of this process's rows.
        hard_negatives: K.
        hashes: hashes of the texts; equal texts have equal hashes.
        texts: the rows themselves.
        views: layouts of queries or positives once more, for a second view of each.
        teachers: teachers' vectors, by the label of the term and the kind of text.
        prepared: what terms made of the rows' texts, by their label.
    """

    groups: list[list[PackedBatch]]
    grad_cache: bool
    rows: int
    own_rows: int
    hard_negatives: int
    hashes: TextHashes
    texts: RowBatch
    views: dict[str, list[PackedBatch]] = field(default_factory=dict)
    teachers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    prepared: dict[str, Any] = field(default_factory=dict)

    @property
    def row_context(self) -> RowContext:
        """Sources and scores of all rows."""
        return RowContext.of(self.texts.sources, self.texts.scores, self.hard_negatives)

    @property
    def layouts(self) -> list[PackedBatch]:
        """All layouts of all groups."""
        return [layout for group in (*self.groups, *self.views.values()) for layout in group]

    @property
    def written(self) -> list[PackedBatch]:
        """Layouts of texts that terms have the base write; no vector is made of them."""
        return [layout for one in self.prepared.values() for layout in getattr(one, "layouts", ())]


@dataclass(frozen=True, eq=False)
class ContrastTask:
    """The weighted terms of a contrast on rows; made by `ContrastTask.make`.

    Attributes:
        stage: the recipe's.
        settings: its task.
        rows: the data.
        reader: texts to tokens.
        objective: the loss, with the parameters that it trains.
        teachers: open teachers, by the label of their term.
        seed: of the rows' order.
        shares_prefix: whether packed layouts hold what documents begin with alike once.
        padding_id: token that fills layouts.
        device: kind of device that computes.
        world: the processes that train together.
        clusters: groups of near rows for some batches (`training.batch_feed`); None: rows have their own, or none.
    """

    stage: schema.Stage
    settings: schema.Contrast
    rows: Sequence[Row]
    reader: RowReader
    objective: ContrastLoss
    teachers: Mapping[str, TermTeacher]
    seed: int
    shares_prefix: bool
    padding_id: int
    device: str
    world: World
    clusters: ClusterWindow | None = None

    @classmethod
    def make(
        cls,
        stage: schema.Stage,
        rows: Sequence[Row],
        built: EmbeddingModel,
        *,
        max_tokens: int,
        seed: int,
        head: Callable[[], LanguageModelHead] | None = None,
    ) -> "ContrastTask":
        """The task of a stage, with its teachers open; `head` loads the base's, for a term that writes texts.

        Raises:
            InputError: a term that this model or these rows cannot have (Matryoshka dimensions, two vectors of a
                text without dropout, rows without scores, a teacher that cannot be opened), or prefixes that it cannot
                share.
        """
        task, encoder, world = stage.task, built.encoder, World()
        assert isinstance(task, schema.Contrast)
        check_terms(task, encoder.dimension)
        check_dropout(stage, encoder)
        check_reconstruct(stage, built)
        check_scores(task, rows)
        shares_prefix = can_share_prefix(stage.layout, encoder)
        teachers = open_teachers(task, rows, encoder.dimension, world)
        sizes = {label: teacher.model.dimension for label, teacher in teachers.items()}
        return cls(
            stage=stage,
            settings=task,
            rows=rows,
            reader=RowReader.of(stage, built, max_tokens),
            objective=ContrastLoss(task, encoder.dimension, sizes, encoder.backbone.device, built, head),
            teachers=teachers,
            seed=seed,
            shares_prefix=shares_prefix,
            padding_id=built.tokenizer.padding_id,
            device=encoder.backbone.device.type,
            world=world,
        )

    @property
    def rows_per_batch(self) -> int:
        """Rows in one softmax."""
        return self.stage.batch.rows

    def batches(self, start: int = 0, plan: MemoryPlan | None = None) -> Iterator[ContrastBatch]:
        """Endless batches from number `start` on; the same number always gives the same batch."""
        for rows in self.draw(start):
            yield self.lay_out_batch(rows, plan or self.plan_of_recipe())

    def draw(self, start: int = 0) -> Iterator[RowBatch]:
        """The rows of endless batches, whose texts teachers have encoded."""
        settings = self.stage.batch
        drawn = batches(
            self.rows,
            size=settings.rows,
            hard_negatives=self.settings.hard_negatives,
            seed=self.seed,
            start=start,
            group_rows=settings.group_rows if settings.clusters is None else 1,
            no_duplicates=settings.no_duplicates,
            near=self.clusters,
        )
        if self.world.size > 1:  # teachers have encoded all rows already
            return drawn
        return encode_ahead(self.teachers.values(), drawn, settings.rows)

    def extra_parameters(self) -> dict[str, ExtraParameter]:
        """A learned temperature, and what terms train, such as projections to teachers."""
        return self.objective.extra_parameters()

    def plan_of_recipe(self) -> MemoryPlan:
        """The recipe's own layout; GradCache where it demands it."""
        return MemoryPlan(self.stage.layout, self.stage.layout.grad_cache is True)

    def held_out(self, built: EmbeddingModel) -> HeldOutLoss | None:
        """None: suites measure a contrast."""
        return None

    def plan_memory(self, built: EmbeddingModel, before: Mapping[str, Any] | None = None) -> MemoryPlan:
        """Choose by the first batch whether activations are kept or computed again, and micro-batches that fit."""
        layout = self.stage.layout
        if before is not None:  # a resumed run takes no more memory than it began with
            tokens = min(layout.tokens_per_forward, before.get("tokens_per_forward", layout.tokens_per_forward))
            again = before.get("grad_cache") is True or layout.grad_cache
            layout = layout.model_copy(update={"tokens_per_forward": tokens, "grad_cache": again})
        rows = next(self.draw())
        needs = measure_needs(
            built,
            layout,
            lambda other: self.lay_out_batch(rows, MemoryPlan(other)).layouts,
            extra=self.extra_parameters(),
        )
        found = fit(layout, needs, device_memory(built.encoder.backbone.device))
        layout = layout.model_copy(update={"tokens_per_forward": found.tokens_per_forward})
        return MemoryPlan(layout, found.cached, found.remark)

    def lay_out_batch(self, rows: RowBatch, plan: MemoryPlan) -> ContrastBatch:
        """Tokenize and lay out a batch of rows, or this process's share of it."""
        n, k = len(rows.queries), self.settings.hard_negatives
        own = self.world.share(n)
        negatives = [document for documents in rows.negatives for document in documents]
        prompts = ([self.reader.recipe_prompts(name) for name in rows.sources] or [self.reader.prompts] * n)[own]
        query_tokens = self.reader.queries(rows.queries[own], prompts)
        positive_tokens = self.reader.documents(rows.positives[own], prompts)
        negative_tokens = self.reader.documents(
            negatives[own.start * k : own.stop * k], [of_row for of_row in prompts for _ in range(k)]
        )
        twice = {"queries": query_tokens, "positives": positive_tokens}
        return ContrastBatch(
            groups=[
                self._lay_out(group, plan) for group in self._group(query_tokens, positive_tokens, negative_tokens, k)
            ],
            grad_cache=bool(plan.grad_cache),
            rows=n,
            own_rows=len(query_tokens),
            hard_negatives=k,
            hashes=TextHashes(
                text_hashes(rows.queries), text_hashes(rows.positives), text_hashes(negatives).view(n, k)
            ),
            texts=rows,
            teachers={label: teacher.vectors(rows) for label, teacher in self.teachers.items()},
            views={name: self._lay_out(twice[name], plan) for name in second_views(self.settings)},
            prepared=self.objective.prepare(
                rows, lambda texts: lay_out_texts(texts, plan.layout, self.padding_id, device=self.device)
            ),
        )

    def loss(self, built: EmbeddingModel, batch: ContrastBatch) -> Loss:
        """Encode a batch and contrast it; of several processes each contrasts all rows and counts for its part."""
        n, k = batch.own_rows, batch.hard_negatives
        queries_ND, positives_ND, negatives_MD = self._vectors(built, batch).split([n, n, n * k])
        views = {name: _encode(built, layouts, batch) for name, layouts in batch.views.items()}
        vectors = Vectors(queries_ND, positives_ND, negatives_MD.view(n, k, -1) if k else None, views)
        if self.world.size > 1:
            vectors = gather_vectors(vectors, self.world.counts(batch.rows))
        context = batch.row_context
        values = self.objective.values(vectors, batch.hashes, batch.teachers, context, batch.prepared)
        layouts, part = batch.layouts, 1.0 / self.world.size
        temperature = self.objective.temperature.now()
        return Loss(
            self.objective.weighted_sum(values, context) * part,
            tokens=sum(layout.real_tokens for layout in layouts),
            rows=n,
            padding_share=padding_share(layouts),
            terms={name: value.detach() * part for name, value in values.items()} if len(values) > 1 else {},
            noted={
                **({"temperature": temperature.detach()} if isinstance(temperature, Tensor) else {}),
                **self._left_out(vectors, batch),
            },
        )

    def _left_out(self, vectors: Vectors, batch: ContrastBatch) -> dict[str, Tensor]:
        """The share of candidates that are left out as possible answers, where batches are made of near rows."""
        if self.stage.batch.clusters is None:
            return {}
        found = self.objective.left_out(vectors, batch.hashes)
        return {} if found is None else {"left_out": found}

    def _vectors(self, built: EmbeddingModel, batch: ContrastBatch) -> Tensor:
        """Vectors `[N + N + N*K, D]`: queries, positives, negatives row after row, whatever the grouping."""
        vectors = [_encode(built, group, batch) for group in batch.groups]
        if self.stage.layout.grouping == "separate" and batch.hard_negatives:
            negatives_NKD = torch.stack(vectors[2:], dim=1)
            vectors = [*vectors[:2], negatives_NKD.flatten(0, 1)]
        return torch.cat(vectors) if len(vectors) > 1 else vectors[0]

    def _lay_out(self, texts: Sequence[Tokens], plan: MemoryPlan) -> list[PackedBatch]:
        return lay_out_texts(texts, plan.layout, self.padding_id, share=self.shares_prefix, device=self.device)

    def _group(
        self, queries: list[Tokens], positives: list[Tokens], negatives: list[Tokens], k: int
    ) -> list[list[Tokens]]:
        grouping = self.stage.layout.grouping
        if grouping == "all_packed":
            return [queries + positives + negatives]
        if grouping == "candidate_packed":
            return [queries, positives + negatives]
        return [queries, positives, *(negatives[column::k] for column in range(k))]


def _encode(built: EmbeddingModel, layouts: Sequence[PackedBatch], batch: ContrastBatch) -> Tensor:
    """Vectors of all documents of some layouts of a batch, in the order of their numbers."""
    return encode_cached(built.encoder, layouts) if batch.grad_cache else built.encoder(layouts)
