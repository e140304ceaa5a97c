"""Adaptation before contrast: masked next-token prediction, which teaches a causal model to look both ways.

LLM2Vec (BehnamGhader et al. 2024, arXiv:2404.05961, section 2): some tokens of a text are masked, attention is
bidirectional, and a masked token is predicted from the state of the position before it, as the base was trained to do.

Where we follow it: 20% of tokens; of these 80% show the mask token, 10% a random one, 10% themselves (its default
collator, after Devlin et al. 2019, arXiv:1810.04805, section 3.1). Where not: a text is a document of its own, cut at
the limit, while LLM2Vec glues texts together and cuts the rope into equal pieces; and the next stage goes on with the
same adapters, while LLM2Vec merges them into the base and adds new ones.

Shapes: T real tokens, M predicted tokens, D hidden size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.machine.transfer import to_device
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, padding_share
from gemma4vec.recipe import schema
from gemma4vec.text.prompts import Prompted
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.task import ExtraParameter, Loss
from gemma4vec.training.tasks.fit_memory import device_memory, first_layouts, fit, needs_of
from gemma4vec.training.tasks.micro_batches import lay_out_texts


@dataclass(frozen=True)
class TextBatch:
    """The texts of a batch, for a person who looks into a bad one."""

    texts: list[str]
    epoch: int


@dataclass(frozen=True)
class MaskedBatch:
    """Layouts with masked tokens; for each, what is predicted from where.

    Attributes:
        layouts: the micro-batches.
        before: for each layout `[M]`, places among its real tokens (as `PackedBatch.cells_T`) before a predicted token.
        targets: for each layout `[M]`, the tokens that stood there.
        rows: number of texts.
        predicted: tokens that all processes predict together.
        texts: the texts themselves, of all processes; everything before is of this one's share.
    """

    layouts: list[PackedBatch]
    before: list[Tensor]
    targets: list[Tensor]
    rows: int
    predicted: int
    texts: TextBatch


class MaskedNextTokenTask:
    """Masked next-token prediction over texts, in the layout that the stage asks for."""

    def __init__(
        self,
        stage: schema.Stage,
        objective: schema.MaskedNextToken,
        texts: Sequence[str],
        built: EmbeddingModel,
        head: LanguageModelHead,
        *,
        max_tokens: int,
        seed: int,
        say: Callable[[str], None] = lambda line: None,
    ):
        self.stage = stage
        self.say = say
        self.objective = objective
        self.texts = texts
        self.tokeniser = built.tokeniser
        self.device = built.encoder.backbone.device.type
        self.head = head
        self.limit = min(stage.batch.document_tokens or max_tokens, max_tokens)
        self.seed = seed
        self.world = World()
        self.mask_id = mask_token_id(built.tokeniser.tokenizer.get_vocab(), objective.mask_token)
        self.special = np.array(sorted(set(built.tokeniser.tokenizer.all_special_ids)), dtype=np.int64)

    @property
    def rows_per_batch(self) -> int:
        """Texts in one batch."""
        return self.stage.batch.rows

    def batches(self, start: int = 0) -> Iterator[MaskedBatch]:
        """Endless batches from number `start` on; the same number always gives the same texts and masks."""
        per_epoch = len(self.texts) // self.rows_per_batch
        if per_epoch == 0:
            raise InputError(f"batch.rows: {self.rows_per_batch} texts asked for, the data has {len(self.texts)}")
        epoch_shown, order = -1, np.empty(0, dtype=np.int64)
        number = start
        while True:
            epoch, within = divmod(number, per_epoch)
            if epoch != epoch_shown:
                order = np.random.default_rng([self.seed, epoch]).permutation(len(self.texts))
                epoch_shown = epoch
            chosen = order[within * self.rows_per_batch : (within + 1) * self.rows_per_batch]
            drawn = TextBatch([self.texts[i] for i in chosen.tolist()], epoch)
            yield self.prepare(drawn, np.random.default_rng([self.seed, epoch, within]))
            number += 1

    def extra_parameters(self) -> Mapping[str, ExtraParameter]:
        """None: it trains the model alone."""
        return {}

    def plan_memory(self, built: EmbeddingModel, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Nothing is left open here; where a batch does not fit into memory, that is said."""
        backbone = built.encoder.backbone
        needs = needs_of(built, self.stage.layout, partial(first_layouts, self), backbone)
        found = fit(self.stage.layout, needs, device_memory(backbone.device), can_cache=False)
        if found.remark:
            self.say(found.remark)
        return {}

    def prepare(self, drawn: TextBatch, generator: np.random.Generator) -> MaskedBatch:
        """Tokenise, mask and lay out a batch of texts.

        Raises:
            InputError: no text has a token that could be predicted.
        """
        whole = self.tokeniser.encode([Prompted("", text) for text in drawn.texts], self.limit)
        masked, places = [], []
        for tokens in whole:
            shown, predicted = self._mask(np.asarray(tokens.ids, dtype=np.int64), generator)
            masked.append(Tokens(shown.tolist()))
            places.append(predicted)
        predictions = sum(len(predicted) for predicted in places)
        if not predictions:
            raise InputError("data: a batch has no text of two tokens or more, so there is nothing to predict")
        own = self.world.share(len(whole))
        whole, masked, places = whole[own], masked[own], places[own]
        layouts = lay_out_texts(masked, self.stage.layout, self.tokeniser.padding_id, device=self.device)
        before, targets = [], []
        for layout in layouts:
            starts = (layout.lengths_N.cumsum(0) - layout.lengths_N).tolist()
            at = [place - 1 + start for start, n in zip(starts, layout.documents, strict=True) for place in places[n]]
            tokens_there = [whole[n].ids[place] for n in layout.documents for place in places[n]]
            before.append(torch.tensor(at, dtype=torch.long))
            targets.append(torch.tensor(tokens_there, dtype=torch.long))
        return MaskedBatch(layouts, before, targets, len(whole), predictions, drawn)

    def loss(self, built: EmbeddingModel, batch: MaskedBatch) -> Loss:
        """Mean cross-entropy of the predicted tokens, each from the state of the position before it."""
        backbone = built.encoder.backbone
        states = []
        for layout, before_M in zip(batch.layouts, batch.before, strict=True):
            states_TD = backbone(layout)
            states.append(states_TD.index_select(0, to_device(before_M, states_TD.device)))
        states_MD = torch.cat(states)
        targets_M = to_device(torch.cat(batch.targets), states_MD.device)
        value = self.head.cross_entropy(states_MD, targets_M) if len(targets_M) else states_MD.sum()  # nothing: 0
        value = value * (len(targets_M) / batch.predicted)
        tokens = sum(layout.real_tokens for layout in batch.layouts)
        return Loss(value, tokens=tokens, rows=batch.rows, padding_share=padding_share(batch.layouts))

    def _mask(
        self, ids: NDArray[np.int64], generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What the model is shown of a text, and the places that it predicts: never the first, never special tokens.

        Each token is drawn on its own; a text where none was drawn has one all the same, so that every text counts.
        """
        eligible = np.flatnonzero(~np.isin(ids, self.special))
        eligible = eligible[eligible > 0]
        draws = generator.random((3, len(ids)))
        predicted = eligible[draws[0, eligible] < self.objective.mask_share]
        if not len(predicted) and len(eligible):
            predicted = eligible[[int(generator.integers(len(eligible)))]]
        shown = ids.copy()
        kind = draws[1, predicted]
        random_share, unchanged_share = self.objective.random_share, self.objective.unchanged_share
        shown[predicted[kind >= random_share + unchanged_share]] = self.mask_id
        random_places = predicted[kind < random_share]
        vocabulary = self.head.weight_VD.shape[0]
        shown[random_places] = (draws[2, random_places] * min(vocabulary, len(self.tokeniser.tokenizer))).astype(
            np.int64
        )
        return shown, predicted


def mask_token_id(vocabulary: dict[str, int], token: str, key: str = "task.mask_token") -> int:
    """The id of the mask token; `key` names it in the complaint.

    Raises:
        InputError: the vocabulary has no such token.
    """
    if token not in vocabulary:
        others = [name for name in ("_", "<mask>", "[MASK]", "▁_", "Ġ_") if name in vocabulary]
        hint = f"; it has {' and '.join(map(repr, others))}" if others else "; name a token that it has"
        raise InputError(f"{key}: the tokenizer has no token {token!r}{hint}")
    return vocabulary[token]
