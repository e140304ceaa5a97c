"""The frozen base of an encoder as its own decoder: adapters off, attention causal, a vector as soft tokens.

Shapes: N texts, P soft tokens, D hidden size, M predicted tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.machine.device import to_device
from gemma4vec.model import upstream
from gemma4vec.model.backbone.architectures import Reach
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.inverter.frame import DecoderFrame, soft_tokens
from gemma4vec.model.packing.packed_batch import PackedBatch


@dataclass(frozen=True)
class WrittenTexts:
    """Texts to be predicted, laid out after the cells of their soft tokens.

    Attributes:
        layouts: their micro-batches; `documents` counts the texts from 0.
        targets: for each layout `[M]`, the token to predict at each of its predicting places.
        predicted: number of tokens that all processes predict together.
    """

    layouts: Sequence[PackedBatch]
    targets: Sequence[Tensor]
    predicted: int


@dataclass(frozen=True)
class FrozenBase:
    """A backbone without its adapters, and its language-model head.

    Attributes:
        backbone: the encoder's, with its adapters.
        head: states to scores of the vocabulary.
        frame: what stands around a text.
    """

    backbone: Backbone
    head: LanguageModelHead
    frame: DecoderFrame

    def loss(self, texts: WrittenTexts, soft_NPD: Tensor) -> Tensor:
        """Sum of the cross-entropies of the texts' tokens and ends, over the number that all processes predict.

        Its gradient with respect to the soft tokens is computed here, layout by layout, while the adapters are off;
        the backward pass only scales it. So the activations of one layout are in memory at a time, and layers that
        compute their activations again in a backward pass do so without adapters too.

        Args:
            texts: N texts.
            soft_NPD: their soft tokens, in the scale of embeddings that enter the first layer.
        """
        wanted = torch.is_grad_enabled() and soft_NPD.requires_grad
        gradient_NPD = torch.zeros_like(soft_NPD) if wanted else None
        total = soft_NPD.new_zeros(())
        with read_alone(self.backbone):
            for layout, targets_M in zip(texts.layouts, texts.targets, strict=True):
                numbers = to_device(torch.tensor(layout.documents), soft_NPD.device)
                own_NPD = soft_NPD.detach().index_select(0, numbers).requires_grad_(wanted)
                with torch.set_grad_enabled(wanted or self.backbone.compiled):
                    value = self._layout_loss(layout, own_NPD, targets_M) * (len(targets_M) / texts.predicted)
                total = total + value.detach()
                if gradient_NPD is not None:
                    (gradient,) = torch.autograd.grad(value, own_NPD)
                    gradient_NPD[numbers] = gradient
        if gradient_NPD is None:
            return total
        through = (soft_NPD * gradient_NPD).sum()
        return total + (through - through.detach())  # the value of `total`, the gradient computed above

    def _layout_loss(self, layout: PackedBatch, own_NPD: Tensor, targets_M: Tensor) -> Tensor:
        states_TD = self.backbone(layout, overrides=soft_tokens(self.frame.prefix_cells(layout), own_NPD))
        places_M = to_device(self.frame.predicting_places(layout), states_TD.device)
        return self.head.cross_entropy(states_TD.index_select(0, places_M), to_device(targets_M, states_TD.device))


@contextmanager
def read_alone(backbone: Backbone) -> Iterator[None]:
    """While open, the backbone reads causally and without its adapters, whose `requires_grad` stays as it is."""
    causal, reach = backbone.causal, backbone.reach
    before = upstream.switch_adapters(backbone.model)
    try:
        backbone.causal = True
        backbone.reach = None if backbone.window is None else Reach(backbone.window - 1, 0)
        yield
    finally:
        backbone.causal, backbone.reach = causal, reach
        upstream.switch_adapters(backbone.model, before)


def check_frozen_base(backbone: Backbone, where: str) -> None:
    """Refuse a backbone that is no decoder, or whose own weights are trained.

    Raises:
        InputError: one line that begins with `where`.
    """
    if backbone.architecture.causal is None:
        raise InputError(f"{where}: the base writes the text, and this base is an encoder; leave the term out")
    trained = next(
        (name for name, value in backbone.model.named_parameters() if value.requires_grad and "lora_" not in name), None
    )
    if trained is not None:
        raise InputError(
            f"{where}: the frozen base writes the text, and model.train trains the base ({trained}); set model.lora"
        )
