"""Vector to text: a causal base learns to write the text of an embedding, which enters as soft tokens.

As vec2text's zero-step model (Morris et al. 2023, arXiv:2310.06816), with a decoder in place of its encoder-decoder.
The embedder stays as it is; each text is embedded once, before training. A vector is moved a little each time that its
text is drawn: turned by a random angle, or towards another text's vector, so that the decoder also knows vectors that
no text has (walks between texts, noised or quantized vectors).

Shapes: N texts, d dimensions of a vector, D hidden size, P soft tokens, M predicted tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.machine.device import to_device
from gemma4vec.machine.memory import device_memory
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.backbone.sampled_softmax import (
    SampledVocabulary,
    draw_vocabulary,
    drawing_probabilities,
    sampled_cross_entropy,
)
from gemma4vec.model.encoder.build import EmbeddingModel, embedding_size
from gemma4vec.model.inverter.frame import DecoderFrame, soft_tokens
from gemma4vec.model.inverter.prefix import Prefix
from gemma4vec.model.inverter.sphere import slerp, turn
from gemma4vec.model.packing.packed_batch import PackedBatch, padding_share
from gemma4vec.model.tokenize.tokenizer import Counts, TextTokenizer
from gemma4vec.recipe import schema
from gemma4vec.text.text_hash import words_key
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.task import ExtraParameter, HeldOutLoss, Loss, MemoryPlan
from gemma4vec.training.inversion.text_vectors import EmbeddedTexts, Vectors, VectorSource
from gemma4vec.training.tasks.fit_memory import fit, measure_needs
from gemma4vec.training.tasks.micro_batches import lay_out_texts
from gemma4vec.training.tasks.text_batches import DrawnTexts, TextBatch, draw_texts

# Texts whose tokens are counted for the sampled softmax.
_COUNTED = 100_000
PREFIX = "objective.prefix."
"""How the prefix's parameters are named in checkpoints."""


@dataclass(frozen=True)
class VectorBatch:
    """Layouts of texts after their soft tokens. `texts` and `predicted` are of all processes.

    Attributes:
        layouts: the micro-batches of this process's share.
        vectors: for each layout `[N, d]`, the vectors of its texts, in its order.
        targets: for each layout `[M]`, the token to predict at each of its predicting places.
        sampled: the tokens of the softmax; None: the whole vocabulary.
        rows: number of texts.
        predicted: number of tokens that all processes predict together.
        texts: the texts themselves.
    """

    layouts: list[PackedBatch]
    vectors: list[Tensor]
    targets: list[Tensor]
    sampled: SampledVocabulary | None
    rows: int
    predicted: int
    texts: TextBatch


@dataclass(frozen=True, eq=False)
class VectorToTextTask:
    """Inversion of vectors; made by `VectorToTextTask.make`.

    Attributes:
        stage: the recipe's.
        settings: its task.
        texts: the data.
        vectors_Nd: the vector of each text.
        kept: texts that are never trained on.
        kept_vectors: their vectors.
        tokenizer: tokenizes texts.
        head: states to scores of the vocabulary.
        prefix: vectors to soft tokens.
        frame: what stands around a text.
        probabilities_V: each token's probability of being drawn for a softmax; None: all of them count.
        source: whose vectors they are.
        seed: of the texts' order, and of what is drawn for them.
        device: kind of device that computes.
        world: the processes that train together.
    """

    stage: schema.Stage
    settings: schema.VectorToText
    texts: Sequence[str]
    vectors_Nd: Vectors
    kept: Sequence[str]
    kept_vectors: Vectors
    tokenizer: TextTokenizer
    head: LanguageModelHead
    prefix: Prefix
    frame: DecoderFrame
    probabilities_V: NDArray[np.float64] | None
    source: VectorSource
    seed: int
    device: str
    world: World

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
            probabilities_V=_probabilities(settings, frame, built.tokenizer, texts.trained, len(head.weight_VD)),
            source=texts.source,
            seed=seed,
            device=backbone.device.type,
            world=World(),
        )

    @property
    def rows_per_batch(self) -> int:
        """Texts in one batch."""
        return self.stage.batch.rows

    def batches(self, start: int = 0, plan: MemoryPlan | None = None) -> Iterator[VectorBatch]:
        """Endless batches from number `start` on; the same number always has the same texts and moved vectors."""
        for texts in self.draw(start):
            yield self.lay_out_batch(texts, plan or MemoryPlan(self.stage.layout))

    def draw(self, start: int = 0) -> Iterator[DrawnTexts]:
        """The texts of endless batches.

        Raises:
            InputError: fewer texts than a batch has.
        """
        return draw_texts(self.texts, self.rows_per_batch, self.seed, start)

    def extra_parameters(self) -> Mapping[str, ExtraParameter]:
        """The layers that make soft tokens."""
        rate = self.settings.learning_rate or self.stage.optimizer.learning_rate
        return {f"{PREFIX}{name}": ExtraParameter(p, rate) for name, p in self.prefix.named_parameters()}

    def plan_memory(self, built: EmbeddingModel, before: Mapping[str, Any] | None = None) -> MemoryPlan:
        """Nothing to choose; only warns if a batch may not fit."""
        layout, backbone = self.stage.layout, built.encoder.backbone
        texts = next(self.draw())
        needs = measure_needs(
            built, layout, lambda other: self.lay_out_batch(texts, MemoryPlan(other)).layouts, backbone
        )
        return MemoryPlan(layout, remark=fit(layout, needs, device_memory(backbone.device), can_cache=False).remark)

    def lay_out_batch(self, drawn: DrawnTexts, plan: MemoryPlan) -> VectorBatch:
        """Tokenize and lay out a batch of texts, or this process's share of it, and move their vectors."""
        generator = np.random.default_rng(drawn.seed)
        moved_Nd = self.move(self.vectors_Nd[list(drawn.numbers)], generator)
        ids = self.frame.read(self.tokenizer, drawn.batch.texts)
        framed = [self.frame.frame(one) for one in ids]
        sampled = None
        if self.probabilities_V is not None:
            wanted = np.unique(np.concatenate([targets for _, targets in framed]))
            sampled = draw_vocabulary(self.probabilities_V, wanted, generator)
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
        predicted = sum(len(one) for one in targets)
        return VectorBatch(layouts, vectors, targets, None, len(ids), predicted, TextBatch([], 0))

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

    def loss(self, built: EmbeddingModel, batch: VectorBatch) -> Loss:
        """Mean cross-entropy of the texts' tokens and ends."""
        states_MD, targets_M = self._states(built, batch)
        if batch.sampled is not None:
            value = sampled_cross_entropy(self.head, states_MD, targets_M, batch.sampled)
        else:
            value = self.head.cross_entropy(states_MD, targets_M)
        return Loss(
            value * (len(targets_M) / batch.predicted),
            tokens=sum(layout.real_tokens for layout in batch.layouts),
            rows=batch.rows,
            padding_share=padding_share(batch.layouts),
        )

    def _states(self, built: EmbeddingModel, batch: VectorBatch) -> tuple[Tensor, Tensor]:
        """(states `[M, D]` that predict, tokens `[M]` to predict)."""
        backbone, states = built.encoder.backbone, []
        for layout, vectors_Nd in zip(batch.layouts, batch.vectors, strict=True):
            there_Nd = to_device(vectors_Nd, backbone.device).to(self.prefix.size.dtype)
            overrides = soft_tokens(self.frame.prefix_cells(layout), self.prefix(there_Nd))
            states_TD = backbone(layout, overrides=overrides)
            places_M = to_device(self.frame.predicting_places(layout), states_TD.device)
            states.append(states_TD.index_select(0, places_M))
        states_MD = torch.cat(states)
        return states_MD, to_device(torch.cat(batch.targets), states_MD.device)

    def held_out_hashes(self) -> tuple[str, ...]:
        """Hashes of the texts that are never trained on, 16 hexadecimal digits each."""
        return tuple(words_key(text) for text in self.kept)

    def held_out(self, built: EmbeddingModel) -> HeldOutLoss | None:
        """The mean loss of texts that are never trained on, over the whole vocabulary, from their own vectors.

        Beside it: the loss of the same texts from the vectors of other texts. A decoder that ignores its vector has
        twice the same.
        """
        if not self.kept:
            return None
        training = built.encoder.training
        built.encoder.eval()
        try:
            own, predicted = self._mean_loss(built, self.kept_vectors)
            parts = {"own vectors": own}
            if len(self.kept) > 1:
                parts["another text's"] = self._mean_loss(built, np.roll(self.kept_vectors, 1, axis=0))[0]
        finally:
            built.encoder.train(training)
        return HeldOutLoss(own, len(self.kept), predicted, parts)

    def _mean_loss(self, built: EmbeddingModel, vectors_Nd: Vectors) -> tuple[float, int]:
        """(mean loss over the tokens of the held-out texts from these vectors, number of tokens)."""
        quiet, layout = replace(self.tokenizer, counts=Counts()), self.stage.layout
        total, count = 0.0, 0
        step = max(1, layout.tokens_per_forward // (len(self.frame.before) + self.frame.text_tokens))
        for first in range(0, len(self.kept), step):
            part = slice(first, first + step)
            batch = self._lay_out(self.frame.read(quiet, list(self.kept[part])), vectors_Nd[part], layout)
            # Compiled layers have one graph with gradients and one without; compiling the second would take as long.
            with torch.set_grad_enabled(built.encoder.backbone.compiled):
                states_MD, targets_M = self._states(built, batch)
            with torch.no_grad():
                total += float(self.head.cross_entropy(states_MD.detach(), targets_M)) * len(targets_M)
            count += len(targets_M)
        return total / count, count


def _probabilities(
    settings: schema.VectorToText, frame: DecoderFrame, tokenizer: TextTokenizer, texts: Sequence[str], vocabulary: int
) -> NDArray[np.float64] | None:
    """Each token's probability of being drawn for a softmax, by its count in texts of the data; None: all count."""
    if settings.sampled_vocabulary is None or settings.sampled_vocabulary >= vocabulary:
        return None
    quiet, counts_V = replace(tokenizer, counts=Counts()), np.zeros(vocabulary, dtype=np.int64)
    step = max(1, len(texts) // _COUNTED)
    counted = texts[::step]
    for first in range(0, len(counted), 4096):
        for ids in frame.read(quiet, list(counted[first : first + 4096])):
            np.add.at(counts_V, ids, 1)
    counts_V[frame.end_id] += len(counted)
    return drawing_probabilities(counts_V, settings.sampled_vocabulary)
