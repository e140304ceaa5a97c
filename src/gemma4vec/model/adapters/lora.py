"""LoRA, rsLoRA and DoRA on a backbone, through peft: which layers, in which dtype.

With the frozen weight W, its update B A and the rank r:

- LoRA: W + alpha / r * B A (arXiv:2106.09685, section 4.1);
- rsLoRA: W + alpha / sqrt(r) * B A (arXiv:2312.03732);
- DoRA: m * (W + alpha / r * B A) / ||W + alpha / r * B A||, with one trained m for each output (arXiv:2402.09353, eq.
5).
  The norm is a constant in the backward pass (section 4.3).
"""

import re
from typing import Any

from peft import LoraConfig, get_peft_model
from peft.peft_model import PeftModel
from torch import nn

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.backbone import Backbone
from gemma4vec.recipe.schema import Lora


def first_adapted_layer(layers: int, lora: Lora, key: str = "model.lora.last_layers") -> int:
    """Index of the first of `layers` layers that `lora` adapts; `key` names it in the complaint.

    No earlier layer takes part in the backward pass: neither its weights nor its inputs require a gradient, so autograd
    stores none of its activations.

    Raises:
        InputError: `last_layers` exceeds the number of layers.
    """
    if lora.last_layers is None:
        return 0
    if lora.last_layers > layers:
        raise InputError(f"{key}: {lora.last_layers} requested, the base has {layers} layers")
    count = lora.last_layers if lora.last_layers >= 1 else max(1, round(lora.last_layers * layers))
    return layers - int(count)


def linear_names(backbone: Backbone, lora: Lora) -> list[str]:
    """Full names of the linear layers that `lora` adapts.

    Raises:
        InputError: a named module does not exist, or `last_layers` exceeds the number of layers.
    """
    first = first_adapted_layer(len(backbone.layers), lora)
    inside = {
        name: int(match.group(1))
        for name, module in backbone.model.named_modules()
        if isinstance(module, nn.Linear) and (match := re.match(r"layers\.(\d+)\.", name))
    }
    if lora.modules != "all-linear":
        known = sorted({name.rsplit(".", 1)[-1] for name in inside})
        if not lora.modules:
            raise InputError(f"model.lora.modules: the list is empty; the base has {', '.join(known)}")
        for wanted in lora.modules:
            if wanted not in known:
                raise InputError(f"model.lora.modules: the base has no {wanted!r}; it has {', '.join(known)}")
        inside = {name: layer for name, layer in inside.items() if name.rsplit(".", 1)[-1] in lora.modules}
    return [name for name, layer in inside.items() if layer >= first]


def add_lora(backbone: Backbone, lora: Lora) -> PeftModel:
    """Freeze the backbone and add adapters in the base's dtype (the optimizer has fp32 copies).

    Adapters are initialized from torch's global generator; seed it first.
    """
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft only divides it
        lora_dropout=lora.dropout,
        target_modules=linear_names(backbone, lora),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        bias="none",
    )
    model: Any = backbone.model
    peft_model: PeftModel = get_peft_model(model, config, autocast_adapter_dtype=False)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(backbone.dtype)
    return peft_model
