"""The first task that the loop trains: contrast a query's positive with in-batch and hard negatives.

Shapes: N rows, K hard negatives a row, D dimensions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gemma4vec.data.batching.batches import RowBatch, batches
from gemma4vec.data.rows.rows import Row
from gemma4vec.model.encoder.build import EmbeddingModel, prompts_named
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, padding_share
from gemma4vec.objective.false_negatives import TextHashes
from gemma4vec.recipe import schema
from gemma4vec.text.prompts import Document, Prompted, Prompts
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.task import ExtraParameter, Loss
from gemma4vec.training.tasks.fit_memory import device_memory, first_layouts, fit, needs_of
from gemma4vec.training.tasks.grad_cache import encode_cached
from gemma4vec.training.tasks.learned_parameters import ObjectiveParameters
from gemma4vec.training.tasks.loss_terms import (
    RowContext,
    Vectors,
    check_dropout,
    check_scores,
    check_terms,
    gathered,
    term_values,
    wanted_views,
    weighted_sum,
)
from gemma4vec.training.tasks.micro_batches import lay_out_texts, shares_prefixes
from gemma4vec.training.tasks.teachers import knowing, open_teachers, taught
from gemma4vec.training.tasks.text_hashes import text_keys


@dataclass(frozen=True)
class ContrastBatch:
    """Layouts of each group of texts that share a forward, and the keys that tell equal texts.

    `groups` hold queries, positives, negatives row after row, in this order, cut into one, two or 2 + K groups; `views`
    hold queries or positives once more, for a second view of each. Layouts are of this process's rows, `own_rows` of
    them; everything else is of all.
    """

    groups: list[list[PackedBatch]]
    rows: int
    own_rows: int
    hard_negatives: int
    query_keys_N: Tensor
    positive_keys_N: Tensor
    negative_keys_NK: Tensor
    texts: RowBatch
    views: dict[str, list[PackedBatch]] = field(default_factory=dict)
    teachers: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def said(self) -> RowContext:
        """Sources and scores of all rows."""
        return RowContext.of(self.texts.sources, self.texts.scores, self.hard_negatives)

    @property
    def layouts(self) -> list[PackedBatch]:
        """All layouts of all groups."""
        return [layout for group in (*self.groups, *self.views.values()) for layout in group]


class ContrastTask:
    """The weighted terms of a contrast on rows, in the layout and grouping that the stage asks for.

    Raises:
        InputError: a term that this model cannot have (Matryoshka dimensions, self-contrast without dropout), or
            beginnings that it cannot share.
    """

    def __init__(
        self,
        stage: schema.Stage,
        rows: Sequence[Row],
        built: EmbeddingModel,
        *,
        max_tokens: int,
        seed: int,
        say: Callable[[str], None] = lambda line: None,
    ):
        assert isinstance(stage.task, schema.Contrast)
        check_terms(stage.task, built.encoder.dimension)
        check_dropout(stage.task, built.encoder)
        check_scores(stage.task, rows)
        self.share = shares_prefixes(stage.layout, built.encoder)
        self.device = built.encoder.backbone.device.type
        self.stage = stage
        self.objective = stage.task
        self.rows = rows
        self.tokeniser = built.tokeniser
        self.read = built.read
        self.prompts = built.prompts
        self.source_prompts = {
            source.name: prompts_named(source.prompts) for source in stage.data if source.prompts is not None
        }
        self.query_tokens = min(stage.batch.query_tokens or max_tokens, max_tokens)
        self.document_tokens = min(stage.batch.document_tokens or max_tokens, max_tokens)
        self.seed = seed
        self.say = say
        self.cached = stage.layout.grad_cache is True
        self.world = World()
        self.teachers = open_teachers(stage.task, rows, built.encoder.dimension, self.world, say)
        sizes = {label: teacher.dimension for label, (_, teacher) in self.teachers.items()}
        self.learned = ObjectiveParameters(stage.task, built.encoder.dimension, sizes, built.encoder.backbone.device)

    @property
    def rows_per_batch(self) -> int:
        """Rows in one softmax."""
        return self.stage.batch.rows

    def batches(self, start: int = 0) -> Iterator[ContrastBatch]:
        """Endless batches from number `start` on; the same number always gives the same batch."""
        stage = self.stage
        drawn_batches = batches(
            self.rows,
            size=stage.batch.rows,
            hard_negatives=self.objective.hard_negatives,
            seed=self.seed,
            start=start,
            group_rows=stage.batch.group_rows,
            no_duplicates=stage.batch.no_duplicates,
        )
        if self.world.size == 1:  # else all is known beforehand
            drawn_batches = knowing(self.teachers.values(), drawn_batches, stage.batch.rows)
        for drawn in drawn_batches:
            yield self.prepare(drawn)

    def extra_parameters(self) -> dict[str, ExtraParameter]:
        """A learned temperature, and projections to teachers."""
        return self.learned.own

    def plan_memory(self, built: EmbeddingModel, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Choose by the first batch whether activations are kept or computed again, and micro-batches that fit."""
        layout = self.stage.layout
        if before is not None:  # a resumed run goes on with no more than it had
            tokens = min(layout.tokens_per_forward, before.get("tokens_per_forward", layout.tokens_per_forward))
            again = before.get("grad_cache") is True or layout.grad_cache
            layout = layout.model_copy(update={"tokens_per_forward": tokens, "grad_cache": again})
        found = fit(
            layout, needs_of(built, layout, partial(first_layouts, self)), device_memory(built.encoder.backbone.device)
        )
        self.cached = found.cached
        layout = layout.model_copy(update={"tokens_per_forward": found.tokens_per_forward})
        self.stage = self.stage.model_copy(update={"layout": layout})
        if found.remark:
            self.say(found.remark)
        return {"grad_cache": self.cached, "tokens_per_forward": found.tokens_per_forward}

    def prepare(self, drawn: RowBatch) -> ContrastBatch:
        """Tokenise and lay out a batch of rows, or this process's share of it."""
        n, k = len(drawn.queries), self.objective.hard_negatives
        flat_negatives = [document for documents in drawn.negatives for document in documents]
        own = self.world.share(n)
        prompts_N = [self.source_prompts.get(name, self.prompts) for name in drawn.sources] or [self.prompts] * n
        prompts_N = prompts_N[own]
        queries = self._tokens(
            [prompts.for_query(query) for prompts, query in zip(prompts_N, drawn.queries[own], strict=True)],
            self.query_tokens,
        )
        positives = self._documents(drawn.positives[own], prompts_N)
        own_negatives = flat_negatives[own.start * k : own.stop * k]
        negatives = self._documents(own_negatives, [prompts for prompts in prompts_N for _ in range(k)])
        groups = self._group(queries, positives, negatives, k)
        again = {"queries": queries, "positives": positives}
        return ContrastBatch(
            groups=[self._lay_out(group) for group in groups],
            rows=len(drawn.queries),
            own_rows=len(queries),
            hard_negatives=k,
            query_keys_N=text_keys(drawn.queries),
            positive_keys_N=text_keys(drawn.positives),
            negative_keys_NK=text_keys(flat_negatives).view(len(drawn.queries), k),
            texts=drawn,
            teachers={label: taught(term, teacher, drawn) for label, (term, teacher) in self.teachers.items()},
            views={name: self._lay_out(again[name]) for name in wanted_views(self.objective)},
        )

    def loss(self, built: EmbeddingModel, batch: ContrastBatch) -> Loss:
        """Encode a batch and contrast it; of several processes each contrasts all rows and counts for its part."""
        vectors_AD = self._vectors(built, batch)
        n, k = batch.own_rows, batch.hard_negatives
        queries_ND, positives_ND, negatives_MD = vectors_AD.split([n, n, n * k])
        keys = TextHashes(batch.query_keys_N, batch.positive_keys_N, batch.negative_keys_NK)
        views = {name: self._encode(built, layouts) for name, layouts in batch.views.items()}
        vectors = Vectors(queries_ND, positives_ND, negatives_MD.view(n, k, -1) if k else None, views)
        if self.world.size > 1:
            vectors = gathered(vectors, self.world.counts(batch.rows))
        values = term_values(self.objective, vectors, keys, self.learned, batch.teachers, batch.said)
        layouts, part = batch.layouts, 1.0 / self.world.size
        temperature = self.learned.temperature()
        return Loss(
            weighted_sum(self.objective, values, batch.said) * part,
            tokens=sum(layout.real_tokens for layout in layouts),
            rows=n,
            padding_share=padding_share(layouts),
            terms={name: value.detach() * part for name, value in values.items()} if len(values) > 1 else {},
            noted={"temperature": temperature.detach()} if isinstance(temperature, Tensor) else {},
        )

    def _vectors(self, built: EmbeddingModel, batch: ContrastBatch) -> Tensor:
        """Vectors `[N + N + N*K, D]`: queries, positives, negatives row after row, whatever the grouping."""
        vectors = [self._encode(built, group) for group in batch.groups]
        if self.stage.layout.grouping == "separate" and batch.hard_negatives:
            negatives_NKD = torch.stack(vectors[2:], dim=1)
            vectors = [*vectors[:2], negatives_NKD.flatten(0, 1)]
        return torch.cat(vectors) if len(vectors) > 1 else vectors[0]

    def _encode(self, built: EmbeddingModel, layouts: Sequence[PackedBatch]) -> Tensor:
        """Vectors of all documents of some layouts, in the order of their numbers."""
        return encode_cached(built.encoder, layouts) if self.cached else built.encoder(layouts)

    def _lay_out(self, texts: Sequence[Tokens]) -> list[PackedBatch]:
        padding = self.tokeniser.padding_id
        return lay_out_texts(texts, self.stage.layout, padding, share=self.share, device=self.device)

    def _group(
        self, queries: list[Tokens], positives: list[Tokens], negatives: list[Tokens], k: int
    ) -> list[list[Tokens]]:
        grouping = self.stage.layout.grouping
        if grouping == "all_packed":
            return [queries + positives + negatives]
        if grouping == "candidate_packed":
            return [queries, positives + negatives]
        return [queries, positives, *(negatives[column::k] for column in range(k))]

    def _documents(self, documents: Sequence[Document], prompts: Sequence[Prompts]) -> list[Tokens]:
        prompted = [own.for_document(document) for own, document in zip(prompts, documents, strict=True)]
        return self._tokens(prompted, self.document_tokens)

    def _tokens(self, texts: list[Prompted], limit: int) -> list[Tokens]:
        return self.read(texts, limit)
