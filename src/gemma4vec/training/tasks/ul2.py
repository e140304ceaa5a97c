"""UL2: adapts a causal model to bidirectional attention by denoising with an encoder-decoder, before contrast.

T5Gemma 2 (arXiv:2512.14856) turns a decoder into an encoder-decoder: both sides start as the base, the encoder attends
both ways, the decoder's attention is merged (`model.denoiser`), and spans that are hidden from the encoder are restored
(`data.denoising`). The embedding model is the encoder; the decoder is trained next to it and stored in checkpoints.

Two things differ from the paper. Each text is a document of its own, truncated at the limit, where theirs are cut from
longer sequences. And the sentinels that they used are not published; ours are unused tokens of the vocabulary.

Shapes: T states of the encoder, M predicted tokens, D hidden size.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gemma4vec.data.denoising.corrupt import Corrupted, assign_denoisers, corrupt_text
from gemma4vec.data.denoising.spans import SHORTEST
from gemma4vec.errors import InputError
from gemma4vec.machine.device import to_device
from gemma4vec.machine.memory import device_memory
from gemma4vec.model import upstream
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.denoiser.decoder import Decoder
from gemma4vec.model.denoiser.layout import DecoderLayout, lay_out_decoder
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, padding_share
from gemma4vec.recipe import schema
from gemma4vec.text.prompts import Prompted
from gemma4vec.training.batches.fit_memory import BatchMemory, fit
from gemma4vec.training.batches.grad_cache import random_state, replay_random_state
from gemma4vec.training.batches.micro_batches import lay_out_texts
from gemma4vec.training.batches.text_batches import DrawnTexts, TextBatch, hold_out
from gemma4vec.training.batches.text_task import TextTask
from gemma4vec.training.engine.activation_memory import count_kept_bytes
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.parameter_count import count_parameters
from gemma4vec.training.engine.task import ExtraParameter, HeldOutLoss, Loss, MemoryPlan
from gemma4vec.training.tasks.denoising_checks import Markers, edges, find_markers

logger = logging.getLogger(__name__)

# Cells of the batch with which kept bytes are measured. Few, because memory may be short.
_MEASURED = 1024


@dataclass(frozen=True)
class DenoisingBatch:
    """Layouts of corrupted texts, and the tokens to predict. `texts` and `predicted` are of all processes.

    Attributes:
        encoder: micro-batches of what the encoder reads, of this process's share.
        decoder: micro-batches of what the decoder reads.
        targets: for each layout of the decoder `[M]`, the token to predict at each of its real tokens.
        denoisers: for each layout of the decoder `[M]`, the number of the denoiser of that token's text.
        rows: number of texts.
        predicted: number of tokens that all processes predict together.
        too_short: number of texts that were left out, because nothing of them can be hidden.
        texts: the texts themselves.
    """

    encoder: list[PackedBatch]
    decoder: list[DecoderLayout]
    targets: list[Tensor]
    denoisers: list[NDArray[np.int64]]
    rows: int
    predicted: int
    too_short: int
    texts: TextBatch

    @property
    def groups(self) -> list[list[PackedBatch]]:
        """The rectangles of both sides, which are packed apart."""
        return [self.encoder, [layout.tokens for layout in self.decoder]]

    @property
    def layouts(self) -> list[PackedBatch]:
        """All rectangles."""
        return [layout for group in self.groups for layout in group]


@dataclass(frozen=True, eq=False)
class Ul2Task(TextTask[DenoisingBatch]):
    """Denoising of texts; made by `Ul2Task.make`.

    Attributes:
        settings: its task.
        kept: texts that are never trained on.
        decoder: restores what is hidden.
        markers: sentinels, and the tokens at the decoder's ends.
        limit: longest text, special tokens included.
    """

    settings: schema.Ul2
    kept: Sequence[str]
    decoder: Decoder
    markers: Markers
    limit: int

    @classmethod
    def make(
        cls,
        stage: schema.Stage,
        settings: schema.Ul2,
        texts: Sequence[str],
        built: EmbeddingModel,
        head: LanguageModelHead,
        *,
        max_tokens: int,
        seed: int,
    ) -> "Ul2Task":
        """The task of a stage. Its decoder starts as the model is now.

        Raises:
            InputError: the base is no Gemma 3, has too few layers, or its tokenizer has too few sentinels.
        """
        limit = min(stage.batch.document_tokens or max_tokens, max_tokens)
        trained, kept = hold_out(texts, settings.held_out)
        return cls(
            stage=stage,
            settings=settings,
            texts=trained,
            kept=kept,
            tokenizer=built.tokenizer,
            head=head,
            decoder=Decoder(built.encoder.backbone, settings.decoder, seed=seed),
            markers=find_markers(settings, built, limit),
            limit=limit,
            seed=seed,
            device=built.encoder.backbone.device.type,
            world=World(),
        )

    def extra_parameters(self) -> Mapping[str, ExtraParameter]:
        """What is trained of the decoder."""
        rate = self.settings.decoder.learning_rate or self.stage.optimizer.learning_rate
        return {f"objective.decoder.{name}": ExtraParameter(p, rate) for name, p in self.decoder.own.items()}

    def plan_memory(self, built: EmbeddingModel, before: Mapping[str, Any] | None = None) -> MemoryPlan:
        """Compile the decoder if the encoder is; nothing to choose, only warns if a batch may not fit."""
        layout, backbone = self.stage.layout, built.encoder.backbone
        drawn, plan = next(self.draw()), MemoryPlan(layout)
        whole = self.lay_out_batch(drawn, plan).layouts
        cells = sum(one.all_tokens for one in whole)
        few = max(2, round(_MEASURED / cells * len(drawn.batch.texts)))
        longest = sorted(drawn.batch.texts, key=len, reverse=True)[:few]
        small = self.lay_out_batch(replace(drawn, batch=TextBatch(longest, drawn.batch.epoch)), plan)
        self._compile(built, small)
        parameters = count_parameters(built, self.decoder)
        needs = BatchMemory(
            per_cell=self._kept_bytes(built, small) / sum(one.all_tokens for one in small.layouts),
            cells=float(cells),
            largest=float(max(one.all_tokens for one in whole)),
            row=max(int(one.input_ids_RC.shape[1]) for one in whole),
            fixed=float(parameters.trainable_bytes + parameters.master_bytes + parameters.moment_bytes),
        )
        return MemoryPlan(layout, remark=fit(layout, needs, device_memory(backbone.device), can_cache=False).remark)

    def _compile(self, built: EmbeddingModel, small: DenoisingBatch) -> None:
        """Compile the decoder's layers and run them once, in both directions, on a small batch."""
        backbone, decoder = built.encoder.backbone, self.decoder
        if not backbone.compiled or decoder.compiled or decoder.compile_failed:
            return
        logger.info("compiling the layers of the decoder")
        decoder.compile_layers(backbone)
        try:
            with replay_random_state(random_state(built.encoder), built.encoder):
                self.loss(built, small).value.backward()
        except upstream.compiler_errors() as error:  # slower, but the same result
            decoder.uncompile_layers()
            logger.warning(f"the decoder's layers run uncompiled: {' '.join(str(error).split())[:200]}")
        for parameter in [*built.trainable().values(), *decoder.own.values()]:
            parameter.grad = None

    def _kept_bytes(self, built: EmbeddingModel, batch: DenoisingBatch) -> int:
        """Bytes that a batch keeps for its backward pass, without parameters. The random state stays the same."""
        sizes: list[int] = []
        weights = [*built.encoder.parameters(), *self.decoder.parameters()]
        counting = count_kept_bytes(built.encoder.backbone, weights, lambda address, size: sizes.append(size))
        with replay_random_state(random_state(built.encoder), built.encoder), counting:
            self.loss(built, batch)
        return sum(sizes)

    def lay_out_batch(self, drawn: DrawnTexts, plan: MemoryPlan) -> DenoisingBatch:
        """Tokenize, corrupt and lay out a batch of texts, or this process's share of it.

        Raises:
            InputError: fewer texts than processes have two tokens or more.
        """
        generator = np.random.default_rng(drawn.seed)
        pairs = self._corrupt(drawn.batch.texts, generator)
        if len(pairs) < self.world.size:
            each = "" if self.world.size == 1 else f", fewer than the {self.world.size} processes"
            raise InputError(
                f"data: a batch has {len(pairs)} texts of {SHORTEST} tokens or more{each}, so nothing can be hidden; "
                "leave short texts out"
            )
        predicted = sum(len(text.target) for text, _ in pairs)
        own = pairs[self.world.share(len(pairs))]
        too_short = len(drawn.batch.texts) - len(pairs)
        return DenoisingBatch(*self._lay_out(own, plan.layout), len(own), predicted, too_short, drawn.batch)

    def _corrupt(self, texts: Sequence[str], generator: np.random.Generator) -> list[tuple[Corrupted, int]]:
        """(corrupted text, number of its denoiser) of each text that is long enough."""
        denoisers, markers = self.settings.mix, self.markers
        numbers = assign_denoisers(len(texts), denoisers, generator).tolist()
        found = []
        for tokens, number in zip(
            self.tokenizer.encode([Prompted("", text) for text in texts], self.limit), numbers, strict=True
        ):
            opening, closing = edges(tokens.ids, markers.special)
            if tokens.length - opening - closing < SHORTEST:
                continue
            corrupted = corrupt_text(
                tokens.ids,
                denoisers[number],
                markers.sentinels,
                generator,
                opening=opening,
                closing=closing,
                start=markers.start,
                end=markers.end,
            )
            found.append((corrupted, number))
        return found

    def _lay_out(
        self, pairs: Sequence[tuple[Corrupted, int]], layout: schema.Layout
    ) -> tuple[list[PackedBatch], list[DecoderLayout], list[Tensor], list[NDArray[np.int64]]]:
        """The first four attributes of a `DenoisingBatch`."""
        padding = self.tokenizer.padding_id
        read = [Tokens(text.encoder.tolist()) for text, _ in pairs]
        encoder = lay_out_texts(read, layout, padding, device=self.device)
        encoded, first = [(0, 0)] * len(pairs), 0
        for one in encoder:
            for document, length in zip(one.documents, one.lengths_N.tolist(), strict=True):
                encoded[document] = (first, length)
                first += length
        decoder = lay_out_decoder(
            [Tokens(text.decoder.tolist()) for text, _ in pairs],
            encoded,
            row_tokens=layout.row_tokens,
            tokens_per_forward=layout.tokens_per_forward,
            padding_id=padding,
            packed=layout.kind == "packed",
        )
        order = [[pairs[document] for document in one.tokens.documents] for one in decoder]
        targets = [torch.from_numpy(np.concatenate([text.target for text, _ in one])) for one in order]
        numbers = [np.repeat([number for _, number in one], [len(text.target) for text, _ in one]) for one in order]
        return encoder, decoder, targets, numbers

    def loss(self, built: EmbeddingModel, batch: DenoisingBatch) -> Loss:
        """Mean cross-entropy of the restored tokens, sentinels and the end included."""
        states_MD = self._states(built, batch)
        targets_M = to_device(torch.cat(batch.targets), states_MD.device)
        value = self.head.cross_entropy(states_MD, targets_M) * (len(targets_M) / batch.predicted)
        return Loss(
            value,
            tokens=sum(layout.real_tokens for layout in batch.layouts),
            rows=batch.rows,
            padding_share=padding_share(batch.layouts),
            noted={"too_short": torch.tensor(batch.too_short)} if batch.too_short else {},
        )

    def _states(self, built: EmbeddingModel, batch: DenoisingBatch) -> Tensor:
        """The decoder's states `[M, D]`, in the order of the batch's targets."""
        backbone, decoder = built.encoder.backbone, self.decoder
        if decoder.compiled and not backbone.compiled:  # the compiler failed, and the step is tried again
            decoder.uncompile_layers()
        encoded_TD = torch.cat([backbone(layout) for layout in batch.encoder])
        return torch.cat([decoder(layout, encoded_TD, backbone) for layout in batch.decoder])

    def held_out(self, built: EmbeddingModel) -> HeldOutLoss | None:
        """The mean loss of texts that are never trained on; what is hidden in them is the same in every run."""
        if not self.kept:
            return None
        modules = [module for module in (built.encoder, self.decoder) if module.has_dropout]
        with _evaluating(modules):
            return self._held_out(built)

    def _held_out(self, built: EmbeddingModel) -> HeldOutLoss | None:
        denoisers, layout = self.settings.mix, self.stage.layout
        pairs = self._corrupt(list(self.kept), np.random.default_rng(0))
        sums, counts = np.zeros(len(denoisers)), np.zeros(len(denoisers))
        step = max(1, layout.tokens_per_forward // self.limit)
        for first in range(0, len(pairs), step):
            part = pairs[first : first + step]
            batch = DenoisingBatch(*self._lay_out(part, layout), len(part), 0, 0, TextBatch([], 0))
            # Compiled layers have one graph with gradients and one without; compiling the second would take as long.
            with torch.set_grad_enabled(built.encoder.backbone.compiled):
                states_MD = self._states(built, batch).detach()
            targets_M = to_device(torch.cat(batch.targets), states_MD.device)
            numbers_M = np.concatenate(batch.denoisers)
            for number in np.unique(numbers_M).tolist():
                places = to_device(torch.from_numpy(np.flatnonzero(numbers_M == number)), states_MD.device)
                with torch.no_grad():
                    mean = self.head.cross_entropy(states_MD[places], targets_M[places])
                sums[number] += float(mean) * len(places)
                counts[number] += len(places)
        if not counts.sum():
            return None
        parts = {denoisers[n].label: float(sums[n] / counts[n]) for n in range(len(denoisers)) if counts[n]}
        return HeldOutLoss(float(sums.sum() / counts.sum()), len(pairs), int(counts.sum()), parts)


@contextmanager
def _evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """While open, modules are in evaluation mode, without dropout."""
    before = [(module, module.training) for module in modules]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module, training in before:
            module.train(training)
