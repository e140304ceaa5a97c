"""Suggestion: a causal base learns to write another query for a query and the titles of its first hits.

The pairs come from walks between queries and documents (`gemma4vec fanout --pairs`): what a decoder wrote on the way is
distilled into a model that needs no vector, as in Adolphs et al. 2022 (arXiv:2210.12084), whose suggester also reads
the query alone or with its first results.

Shapes: M predicted tokens, V vocabulary, D hidden size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.inverter.frame import predicting_places
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.suggester.suggestion_frame import SuggestionFrame
from gemma4vec.model.tokenize.tokenizer import Counts, TextTokenizer
from gemma4vec.recipe import schema
from gemma4vec.training.batches.micro_batches import lay_out_texts
from gemma4vec.training.batches.text_batches import DrawnTexts, TextBatch
from gemma4vec.training.batches.writing_task import WritingBatch, WritingTask, token_probabilities
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.task import MemoryPlan
from gemma4vec.training.writing.suggestion_pairs import SuggestionPair, split_pairs


@dataclass(frozen=True, eq=False)
class SuggestionTask(WritingTask[WritingBatch]):
    """Distillation of walks; made by `SuggestionTask.make`. Its `texts` are the suggestions of `trained`.

    Attributes:
        settings: its task.
        trained: the pairs.
        kept_pairs: those that are never trained on.
        frame: what stands before a suggestion.
    """

    settings: schema.Suggestion
    trained: Sequence[SuggestionPair]
    kept_pairs: Sequence[SuggestionPair]
    frame: SuggestionFrame

    @classmethod
    def make(
        cls,
        stage: schema.Stage,
        settings: schema.Suggestion,
        pairs: Sequence[SuggestionPair],
        built: EmbeddingModel,
        head: LanguageModelHead,
        *,
        max_tokens: int,
        seed: int,
    ) -> "SuggestionTask":
        """The task of a stage.

        Raises:
            InputError: the limit leaves no room for a suggestion.
        """
        frame = SuggestionFrame.of(built.tokenizer, settings.reading, suggestion_limit(stage, max_tokens))
        trained, kept = split_pairs(pairs, settings.held_out)
        texts = [pair.suggestion for pair in trained]
        return cls(
            stage=stage,
            settings=settings,
            texts=texts,
            trained=trained,
            kept=[pair.suggestion for pair in kept],
            kept_pairs=kept,
            tokenizer=built.tokenizer,
            head=head,
            frame=frame,
            probabilities_V=token_probabilities(
                settings.sampled_vocabulary,
                texts,
                partial(frame.read, replace(built.tokenizer, counts=Counts())),
                frame.end_id,
                len(head.weight_VD),
            ),
            seed=seed,
            device=built.encoder.backbone.device.type,
            world=World(),
        )

    @property
    def longest(self) -> int:
        """The longest query, titles and suggestion."""
        return self.frame.longest

    def lay_out_batch(self, drawn: DrawnTexts, plan: MemoryPlan) -> WritingBatch:
        """Tokenize and lay out a batch of pairs, some without their titles, or this process's share of it."""
        generator = np.random.default_rng(drawn.seed)
        pairs = [self.trained[number] for number in drawn.numbers]
        plain = generator.random(len(pairs)) < self.settings.plain_share
        pairs = [pair._replace(titles=()) if alone else pair for pair, alone in zip(pairs, plain, strict=True)]
        ids = self.frame.read(self.tokenizer, [pair.suggestion for pair in pairs])
        targets = [self.frame.frame([], one)[1] for one in ids]
        sampled = self.draw_tokens(targets, generator)
        share = self.world.share(len(pairs))
        batch = self._lay_out(self.tokenizer, pairs[share], ids[share], plan.layout)
        return replace(batch, sampled=sampled, predicted=sum(map(len, targets)), texts=drawn.batch)

    def kept_views(self) -> Mapping[str, Callable[[slice], WritingBatch]]:
        """Held-out suggestions after their own queries and titles, after the queries alone, and after others'.

        Others are those that lie half of all pairs away, since the next pair often has the same query.
        """
        pairs, far = list(self.kept_pairs), len(self.kept_pairs) // 2
        read = {"own query": pairs}
        if any(pair.titles for pair in pairs):
            read["without titles"] = [pair._replace(titles=()) for pair in pairs]
        if len(pairs) > 1:
            read["another query's"] = [*pairs[far:], *pairs[:far]]
        return {name: partial(self._lay_out_kept, pairs) for name, pairs in read.items()}

    def _lay_out_kept(self, read: Sequence[SuggestionPair], part: slice) -> WritingBatch:
        quiet = replace(self.tokenizer, counts=Counts())
        ids = self.frame.read(quiet, list(self.kept[part]))
        return self._lay_out(quiet, read[part], ids, self.stage.layout)

    def states(self, built: EmbeddingModel, layout: PackedBatch, number: int, batch: WritingBatch) -> Tensor:
        """States of the tokens of a layout."""
        return built.encoder.backbone(layout)

    def _lay_out(
        self,
        tokenizer: TextTokenizer,
        pairs: Sequence[SuggestionPair],
        ids: Sequence[Sequence[int]],
        layout: schema.Layout,
    ) -> WritingBatch:
        """A batch of pairs, whose suggestions are given as their tokens, with the whole vocabulary."""
        before = self.frame.before(tokenizer, [pair.query for pair in pairs], [pair.titles for pair in pairs])
        framed = [self.frame.frame(first, one) for first, one in zip(before, ids, strict=True)]
        layouts = lay_out_texts([read for read, _ in framed], layout, tokenizer.padding_id, device=self.device)
        targets = [torch.tensor([token for n in one.documents for token in framed[n][1]]) for one in layouts]
        places = [predicting_places(one, [len(before[n]) for n in one.documents]) for one in layouts]
        predicted = sum(len(one) for one in targets)
        return WritingBatch(layouts, places, targets, None, len(ids), predicted, TextBatch([], 0))


def suggestion_limit(stage: schema.Stage, max_tokens: int) -> int:
    """Most tokens that a stage's suggester reads and writes."""
    return min(stage.batch.document_tokens or max_tokens, max_tokens)
