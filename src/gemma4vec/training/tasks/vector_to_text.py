"""Vector to text: a causal base learns to write the text of an embedding, which enters as soft tokens.

As vec2text's zero-step model (Morris et al. 2023, arXiv:2310.06816), with a decoder in place of its encoder-decoder.
The embedder stays as it is; each text is embedded once, before training. A vector is moved a little each time that its
text is drawn: turned by a random angle, or towards another text's vector, so that the decoder also knows vectors that
no text has (walks between texts, noised or quantized vectors).

Shapes: N texts, d dimensions of a vector, D hidden size, P soft tokens, M predicted tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gemma4vec.machine.device import to_device
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.encoder.build import EmbeddingModel, embedding_size
from gemma4vec.model.inverter.frame import DecoderFrame, soft_tokens
from gemma4vec.model.inverter.prefix import Prefix
from gemma4vec.model.inverter.sphere import slerp, turn
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.tokenize.tokenizer import Counts
from gemma4vec.recipe import schema
from gemma4vec.text.text_hash import words_key
from gemma4vec.training.batches.micro_batches import lay_out_texts
from gemma4vec.training.batches.text_batches import DrawnTexts, TextBatch
from gemma4vec.training.batches.writing_task import WritingBatch, WritingTask, token_probabilities
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.task import ExtraParameter, MemoryPlan
from gemma4vec.training.writing.merged_base import PREFIX
from gemma4vec.training.writing.text_vectors import EmbeddedTexts, Vectors, VectorSource


@dataclass(frozen=True)
class VectorBatch(WritingBatch):
    """Layouts of texts after their soft tokens.

    Attributes:
        vectors: for each layout `[N, d]`, the vectors of its texts, in its order.
    """

    vectors: list[Tensor]


@dataclass(frozen=True, eq=False)
class VectorToTextTask(WritingTask[VectorBatch]):
    """Inversion of vectors; made by `VectorToTextTask.make`.

    Attributes:
        settings: its task.
        vectors_Nd: the vector of each text.
        kept_vectors: those of the texts that are never trained on.
        prefix: vectors to soft tokens.
        frame: what stands around a text.
        source: whose vectors they are.
    """

    settings: schema.VectorToText
    vectors_Nd: Vectors
    kept_vectors: Vectors
    prefix: Prefix
    frame: DecoderFrame
    source: VectorSource

    @classmethod
    def make(
        cls,
        stage: schema.Stage,
        settings: schema.VectorToText,
        texts: EmbeddedTexts,
        built: EmbeddingModel,
        head: LanguageModelHead,
        *,
        max_tokens: int,
        seed: int,
    ) -> "VectorToTextTask":
        """The task of a stage.

        Raises:
            InputError: the limit leaves no room for a text.
        """
        limit = min(stage.batch.document_tokens or max_tokens, max_tokens)
        frame = DecoderFrame.of(built.tokenizer, settings.prefix_tokens, limit)
        backbone = built.encoder.backbone
        prefix = Prefix(
            texts.vectors_Nd.shape[1],
            settings.prefix_tokens,
            backbone.input_size,
            hidden=settings.prefix_hidden,
            size=embedding_size(backbone),
            seed=seed,
        )
        return cls(
            stage=stage,
            settings=settings,
            texts=texts.trained,
            vectors_Nd=texts.vectors_Nd,
            kept=texts.kept,
            kept_vectors=texts.kept_vectors,
            tokenizer=built.tokenizer,
            head=head,
            prefix=prefix.to(backbone.device, torch.float64 if backbone.dtype == torch.float64 else torch.float32),
            frame=frame,
            probabilities_V=token_probabilities(
                settings.sampled_vocabulary,
                texts.trained,
                partial(frame.read, replace(built.tokenizer, counts=Counts())),
                frame.end_id,
                len(head.weight_VD),
            ),
            source=texts.source,
            seed=seed,
            device=backbone.device.type,
            world=World(),
        )

    def extra_parameters(self) -> Mapping[str, ExtraParameter]:
        """The layers that make soft tokens."""
        rate = self.settings.learning_rate or self.stage.optimizer.learning_rate
        return {f"{PREFIX}{name}": ExtraParameter(p, rate) for name, p in self.prefix.named_parameters()}

    @property
    def longest(self) -> int:
        """Opening and soft tokens, and the longest text."""
        return len(self.frame.before) + self.frame.text_tokens

    def lay_out_batch(self, drawn: DrawnTexts, plan: MemoryPlan) -> VectorBatch:
        """Tokenize and lay out a batch of texts, or this process's share of it, and move their vectors."""
        generator = np.random.default_rng(drawn.seed)
        moved_Nd = self.move(self.vectors_Nd[list(drawn.numbers)], generator)
        ids = self.frame.read(self.tokenizer, drawn.batch.texts)
        framed = [self.frame.frame(one) for one in ids]
        sampled = self.draw_tokens([targets for _, targets in framed], generator)
        share = self.world.share(len(framed))
        batch = self._lay_out(ids[share], moved_Nd[share], plan.layout)
        predicted = sum(len(targets) for _, targets in framed)
        return replace(batch, sampled=sampled, predicted=predicted, texts=drawn.batch)

    def _lay_out(self, ids: Sequence[Sequence[int]], vectors_Nd: Vectors, layout: schema.Layout) -> VectorBatch:
        """A batch of texts, given as their tokens, with these vectors and the whole vocabulary."""
        framed = [self.frame.frame(one) for one in ids]
        layouts = lay_out_texts([read for read, _ in framed], layout, self.tokenizer.padding_id, device=self.device)
        vectors = [torch.from_numpy(np.ascontiguousarray(vectors_Nd[list(one.documents)])) for one in layouts]
        targets = [torch.tensor([token for n in one.documents for token in framed[n][1]]) for one in layouts]
        return VectorBatch(
            layouts=layouts,
            places=[self.frame.predicting_places(one) for one in layouts],
            targets=targets,
            sampled=None,
            rows=len(ids),
            predicted=sum(len(one) for one in targets),
            texts=TextBatch([], 0),
            vectors=vectors,
        )

    def kept_views(self) -> Mapping[str, Callable[[slice], VectorBatch]]:
        """Held-out texts after their own vectors, and after those of the texts before them."""
        views = {"own vectors": partial(self._lay_out_kept, self.kept_vectors)}
        if len(self.kept) > 1:
            views["another text's"] = partial(self._lay_out_kept, np.roll(self.kept_vectors, 1, axis=0))
        return views

    def _lay_out_kept(self, vectors_Nd: Vectors, part: slice) -> VectorBatch:
        quiet = replace(self.tokenizer, counts=Counts())
        return self._lay_out(self.frame.read(quiet, list(self.kept[part])), vectors_Nd[part], self.stage.layout)

    def move(self, vectors_Nd: Vectors, generator: np.random.Generator) -> Vectors:
        """Vectors as they enter training: some mixed with the next text's, less than half of the way, then all turned.

        The text of a mixture is that of the nearer vector.
        """
        rows = len(vectors_Nd)
        mixed_N = generator.random(rows) < self.settings.mix_share
        shares_N = np.where(mixed_N, 0.5 * generator.random(rows), 0.0)
        wide_Nd = vectors_Nd.astype(np.float64)
        between_Nd = slerp(wide_Nd, np.roll(wide_Nd, -1, axis=0), shares_N)
        angles_N = np.deg2rad(self.settings.noise_degrees) * generator.random(rows)
        moved: Vectors = turn(between_Nd, angles_N, generator).astype(np.float32)
        return moved

    def states(self, built: EmbeddingModel, layout: PackedBatch, number: int, batch: VectorBatch) -> Tensor:
        """States of the tokens of a layout, whose vectors stand as soft tokens before their texts."""
        backbone = built.encoder.backbone
        there_Nd = to_device(batch.vectors[number], backbone.device).to(self.prefix.size.dtype)
        return backbone(layout, overrides=soft_tokens(self.frame.prefix_cells(layout), self.prefix(there_Nd)))

    def held_out_hashes(self) -> tuple[str, ...]:
        """Hashes of the texts that are never trained on, 16 hexadecimal digits each."""
        return tuple(words_key(text) for text in self.kept)
