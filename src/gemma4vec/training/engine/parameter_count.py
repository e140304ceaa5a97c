"""Parameters by part, counted on the meta device: no weight is loaded, however large the base."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.training.engine.task import ExtraParameter


@dataclass(frozen=True)
class Parameters:
    """Counts by part, and what they mean in bytes.

    Parts are `base`, `adapters`, `readout`, `head`, `decoder`, and `objective`: what a task trains next to the model
    and does not save with it, such as layers that make soft tokens.

    Attributes:
        total: part -> all parameters of it.
        trainable: part -> those that training changes.
        weight_bytes: all parameters and buffers in the types that they are held in.
        trainable_bytes: the trained ones, in the types that they are held in: also the size of their gradients.
        master_bytes: fp32 copies of trained parameters of a narrower type.
        moment_bytes: AdamW's two moments.
        first_trained: the first layer that a gradient reaches; the number of layers where none does.
    """

    total: dict[str, int]
    trainable: dict[str, int]
    weight_bytes: int
    trainable_bytes: int
    master_bytes: int
    moment_bytes: int
    first_trained: int


def count_parameters(
    built: EmbeddingModel, decoder: nn.Module | None = None, extra: Mapping[str, ExtraParameter] | None = None
) -> Parameters:
    """Count what a built encoder holds; its tensors may be on the meta device. What is shared counts once.

    Args:
        built: the model.
        decoder: trained next to it.
        extra: what else its task trains, by name.
    """
    held = {id(parameter) for parameter in built.encoder.parameters()}
    own = [] if decoder is None else [(f"decoder.{n}", p) for n, p in decoder.named_parameters() if id(p) not in held]
    held |= {id(parameter) for _, parameter in own}
    own += [(f"objective.{n}", e.parameter) for n, e in (extra or {}).items() if id(e.parameter) not in held]
    total: Counter[str] = Counter()
    trainable: Counter[str] = Counter()
    trained, masters, moments = 0, 0, 0
    for name, parameter in [*built.encoder.named_parameters(), *own]:
        part = _part(name)
        total[part] += parameter.numel()
        if parameter.requires_grad:
            trainable[part] += parameter.numel()
            trained += parameter.nbytes
            wide = parameter.dtype in (torch.float32, torch.float64)
            masters += 0 if wide else 4 * parameter.numel()
            moments += 2 * (parameter.element_size() if wide else 4) * parameter.numel()
    tensors = [*built.encoder.parameters(), *built.encoder.buffers(), *(parameter for _, parameter in own)]
    return Parameters(
        total=dict(total),
        trainable=dict(trainable),
        weight_bytes=sum(tensor.nbytes for tensor in tensors),
        trainable_bytes=trained,
        master_bytes=masters,
        moment_bytes=moments,
        first_trained=_first_trained(built),
    )


def _part(name: str) -> str:
    if name.startswith(("decoder.", "objective.")):
        return name.split(".", 1)[0]
    if not name.startswith("backbone."):
        return "readout" if name.startswith("readout.") else "head"
    return "adapters" if ".lora_" in name else "base"


def _first_trained(built: EmbeddingModel) -> int:
    backbone = built.encoder.backbone
    inside = {id(p): i for i, layer in enumerate(backbone.layers) for p in layer.parameters()}
    # What is trained and in no layer (an embedding, say) counts as before the first one.
    numbers = [inside.get(id(p), 0) for p in backbone.parameters() if p.requires_grad]
    return min(numbers, default=len(backbone.layers))
