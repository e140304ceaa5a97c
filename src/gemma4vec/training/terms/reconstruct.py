"""Reconstruction: the frozen base can write a text from its vector.

Shapes: N rows, D dimensions of a vector, P soft tokens, H hidden size of the base.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from gemma4vec.data.batching.batches import RowBatch
from gemma4vec.errors import InputError
from gemma4vec.model.encoder.build import EmbeddingModel, embedding_size
from gemma4vec.model.inverter.frame import DecoderFrame
from gemma4vec.model.inverter.frozen_base import FrozenBase, WrittenTexts, check_frozen_base
from gemma4vec.model.inverter.prefix import Prefix
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.tokenize.tokenizer import Counts, added_tokens
from gemma4vec.recipe import schema, terms
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.task import ExtraParameter
from gemma4vec.training.terms.base import LayOut, LossTerm, TermBatch, TermContext


@dataclass(frozen=True)
class OwnTexts:
    """This process's texts of a batch.

    Attributes:
        rows: which of the batch's rows they are of.
        texts: laid out.
        processes: number of processes that share the batch.
    """

    rows: slice
    texts: WrittenTexts
    processes: int

    @property
    def layouts(self) -> Sequence[PackedBatch]:
        """The rectangles that the base computes."""
        return self.texts.layouts


class Reconstruct(LossTerm):
    """The base, frozen and without adapters, predicts a text after soft tokens that are made of the text's vector.

    After "Training LLMs to be Better Text Embedders through Bidirectional Reconstruction" (arXiv:2509.03020), with a
    bottleneck as in vec2text (arXiv:2310.06816). Reads the vectors and the texts of queries or positives `[N, D]`. The
    layers that make soft tokens are trained with it and are not part of the saved model. It is a mean over the tokens
    of all texts, so rows have no weights of their own. Example: `{kind: reconstruct, weight: 0.1, prefix_tokens: 4}`.
    """

    kind: ClassVar[str] = "reconstruct"
    settings: terms.Reconstruct

    def __init__(self, settings: terms.Reconstruct, context: TermContext):
        super().__init__(settings, context)
        assert context.built is not None and context.head is not None
        backbone, tokenizer = context.built.encoder.backbone, context.built.tokenizer
        check_frozen_base(backbone, "reconstruct")
        limit = len(added_tokens(tokenizer.hf_tokenizer)[0]) + settings.prefix_tokens + settings.text_tokens
        self.tokenizer = replace(tokenizer, counts=Counts())  # its counts are of what the encoder reads
        self.base = FrozenBase(backbone, context.head(), DecoderFrame.of(tokenizer, settings.prefix_tokens, limit))
        size, width = embedding_size(backbone), backbone.input_size
        prefix = Prefix(context.dimension, settings.prefix_tokens, width, hidden=None, size=size)
        wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
        self.prefix = prefix.to(backbone.device, wide)

    def extra_parameters(self) -> Mapping[str, ExtraParameter]:
        """The layers that make soft tokens of a vector."""
        rate = self.settings.prefix_learning_rate
        return {f"prefix.{name}": ExtraParameter(value, rate) for name, value in self.prefix.named_parameters()}

    def prepare(self, rows: RowBatch, lay_out: LayOut) -> OwnTexts:
        """The texts of this process's rows, tokenized and laid out."""
        queries = self.settings.texts == "queries"
        texts = rows.queries if queries else [document.text for document in rows.positives]
        framed = [self.base.frame.frame(ids) for ids in self._read(texts)]
        world = World()
        share = world.share(len(texts))
        own = framed[share]
        layouts = lay_out([read for read, _ in own])
        targets = [torch.tensor([token for n in one.documents for token in own[n][1]]) for one in layouts]
        predicted = sum(len(wanted) for _, wanted in framed)
        return OwnTexts(share, WrittenTexts(layouts, targets, predicted), world.size)

    def value(self, batch: TermBatch) -> Tensor:
        """Mean cross-entropy over the tokens and ends of all texts.

        Of several processes each has the sum over its own texts, times their number: the loop's mean is then the whole.
        """
        own = batch.prepared
        assert isinstance(own, OwnTexts)
        vectors_ND = batch.vectors.queries_ND if self.settings.texts == "queries" else batch.vectors.positives_ND
        soft_NPH = self.prefix(vectors_ND[own.rows].to(self.prefix.size.dtype))
        return self.base.loss(own.texts, soft_NPH) * own.processes

    def _read(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text without special ones and prompts; of tokenized texts, their own."""
        given = [text for text in texts if not isinstance(text, PretokenizedText)]
        read = iter(self.base.frame.read(self.tokenizer, given))
        return [self._bare(text) if isinstance(text, PretokenizedText) else next(read) for text in texts]

    def _bare(self, text: PretokenizedText) -> list[int]:
        frame = self.base.frame
        ids = list(text.ids)
        opening = list(frame.opening)
        ids = ids[max(text.prompt, len(opening) if ids[: len(opening)] == opening else 0) :]
        return ids[:-1] if ids and ids[-1] == frame.end_id else ids


def check_reconstruct(stage: schema.Stage, built: EmbeddingModel, where: str = "") -> None:
    """Refuse the term for a model that has no frozen base to write with, before weights are loaded.

    Raises:
        InputError: the term's place in the recipe, and why.
    """
    if not isinstance(stage.task, schema.Contrast):
        return
    for number, term in enumerate(stage.task.terms):
        if isinstance(term, terms.Reconstruct):
            key = f"{where}task.terms.{number}: reconstruct"
            check_frozen_base(built.encoder.backbone, key)
            if built.tokenizer.closing_id is None:
                raise InputError(f"{key}: the base's tokenizer has no EOS token, with which a text ends")
