"""Masked next-token prediction: adapts a causal model to bidirectional attention before contrastive training.

LLM2Vec (BehnamGhader et al. 2024, arXiv:2404.05961, section 2): some tokens of a text are masked, attention is
bidirectional, and a masked token is predicted from the state of the position before it, as the base was trained to do.

As in LLM2Vec, 20% of the tokens are predicted; of these 80% show the mask token, 10% a random one, 10% themselves (its
default collator, after Devlin et al. 2019, arXiv:1810.04805, section 3.1). Two things differ. Each text is a document
of its own, truncated at the limit; LLM2Vec concatenates texts and cuts them into equal pieces. The next stage trains
the same adapters; LLM2Vec merges them into the base and adds new ones.

Shapes: T real tokens, M predicted tokens, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.machine.device import to_device
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, padding_share
from gemma4vec.recipe import schema
from gemma4vec.text.prompts import Prompted
from gemma4vec.training.batches.micro_batches import lay_out_texts
from gemma4vec.training.batches.text_batches import DrawnTexts, TextBatch
from gemma4vec.training.batches.text_task import TextTask
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.task import Loss, MemoryPlan


@dataclass(frozen=True)
class MaskedBatch:
    """Layouts with masked tokens, and the tokens to predict. `texts` and `predicted` are of all processes.

    Attributes:
        layouts: the micro-batches of this process's share.
        before: for each layout `[M]`, places among its real tokens (as `PackedBatch.cells_T`) before a predicted token.
        targets: for each layout `[M]`, the original tokens at the predicted places.
        rows: number of texts.
        predicted: number of tokens that all processes predict together.
        texts: the texts themselves.
    """

    layouts: list[PackedBatch]
    before: list[Tensor]
    targets: list[Tensor]
    rows: int
    predicted: int
    texts: TextBatch


@dataclass(frozen=True, eq=False)
class MaskedNextTokenTask(TextTask[MaskedBatch]):
    """Masked next-token prediction over texts; made by `MaskedNextTokenTask.make`.

    Attributes:
        settings: its task.
        limit: longest text, special tokens included.
        mask_id: the mask token.
        special: tokens that are never predicted.
    """

    settings: schema.MaskedNextToken
    limit: int
    mask_id: int
    special: NDArray[np.int64]

    @classmethod
    def make(
        cls,
        stage: schema.Stage,
        settings: schema.MaskedNextToken,
        texts: Sequence[str],
        built: EmbeddingModel,
        head: LanguageModelHead,
        *,
        max_tokens: int,
        seed: int,
    ) -> "MaskedNextTokenTask":
        """The task of a stage.

        Raises:
            InputError: the tokenizer has no such mask token.
        """
        tokenizer = built.tokenizer.hf_tokenizer
        return cls(
            stage=stage,
            settings=settings,
            texts=texts,
            tokenizer=built.tokenizer,
            head=head,
            limit=min(stage.batch.document_tokens or max_tokens, max_tokens),
            seed=seed,
            device=built.encoder.backbone.device.type,
            world=World(),
            mask_id=mask_token_id(tokenizer.get_vocab(), settings.mask_token),
            special=np.array(sorted(set(tokenizer.all_special_ids)), dtype=np.int64),
        )

    def lay_out_batch(self, drawn: DrawnTexts, plan: MemoryPlan) -> MaskedBatch:
        """Tokenize, mask and lay out a batch of texts, or this process's share of it.

        Raises:
            InputError: no text has a token that could be predicted.
        """
        generator = np.random.default_rng(drawn.seed)
        whole = self.tokenizer.encode([Prompted("", text) for text in drawn.batch.texts], self.limit)
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
        layouts = lay_out_texts(masked, plan.layout, self.tokenizer.padding_id, device=self.device)
        before, targets = [], []
        for layout in layouts:
            starts = (layout.lengths_N.cumsum(0) - layout.lengths_N).tolist()
            at = [place - 1 + start for start, n in zip(starts, layout.documents, strict=True) for place in places[n]]
            tokens_there = [whole[n].ids[place] for n in layout.documents for place in places[n]]
            before.append(torch.tensor(at, dtype=torch.long))
            targets.append(torch.tensor(tokens_there, dtype=torch.long))
        return MaskedBatch(layouts, before, targets, len(whole), predictions, drawn.batch)

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
        """(tokens with masks, places to predict) of a text; never the first token, never a special one.

        Each token is drawn independently. A text where none was drawn gets one, so that every text counts.
        """
        eligible = np.flatnonzero(~np.isin(ids, self.special))
        eligible = eligible[eligible > 0]
        draws = generator.random((3, len(ids)))
        predicted = eligible[draws[0, eligible] < self.settings.mask_share]
        if not len(predicted) and len(eligible):
            predicted = eligible[[int(generator.integers(len(eligible)))]]
        shown = ids.copy()
        kind = draws[1, predicted]
        random_share, unchanged_share = self.settings.random_share, self.settings.unchanged_share
        shown[predicted[kind >= random_share + unchanged_share]] = self.mask_id
        random_places = predicted[kind < random_share]
        vocabulary = self.head.weight_VD.shape[0]
        shown[random_places] = (draws[2, random_places] * min(vocabulary, len(self.tokenizer.hf_tokenizer))).astype(
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
