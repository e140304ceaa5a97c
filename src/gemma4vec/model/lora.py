"""LoRA on a backbone, through peft: which layers, in which type."""

import re
from typing import Any

from peft import LoraConfig, get_peft_model
from peft.peft_model import PeftModel
from torch import nn

from gemma4vec.errors import InputError
from gemma4vec.model.backbone import Backbone
from gemma4vec.recipe.schema import Lora


def linear_names(backbone: Backbone, lora: Lora) -> list[str]:
    """Full names of the linear layers that `lora` adapts.

    Raises:
        InputError: a named module does not exist, or more layers are asked for than there are.
    """
    count = len(backbone.layers)
    if lora.last_layers is not None and lora.last_layers > count:
        raise InputError(f"model.lora.last_layers: {lora.last_layers} asked for, the base has {count} layers")
    first = count - (lora.last_layers or count)
    inside = {
        name: int(match.group(1))
        for name, module in backbone.model.named_modules()
        if isinstance(module, nn.Linear) and (match := re.match(r"layers\.(\d+)\.", name))
    }
    if lora.modules != "all-linear":
        known = sorted({name.rsplit(".", 1)[-1] for name in inside})
        if not lora.modules:
            raise InputError(f"model.lora.modules: no layer is named; the base has {', '.join(known)}")
        for wanted in lora.modules:
            if wanted not in known:
                raise InputError(f"model.lora.modules: the base has no {wanted!r}; it has {', '.join(known)}")
        inside = {name: layer for name, layer in inside.items() if name.rsplit(".", 1)[-1] in lora.modules}
    return [name for name, layer in inside.items() if layer >= first]


def add_lora(backbone: Backbone, lora: Lora) -> PeftModel:
    """Freeze the backbone and put adapters into it, in the base's own dtype (the optimiser keeps fp32 copies).

    Adapters are initialised from torch's global generator; seed it before.
    """
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # it is only ever divided
        lora_dropout=lora.dropout,
        target_modules=linear_names(backbone, lora),
        bias="none",
    )
    model: Any = backbone.model
    peft_model: PeftModel = get_peft_model(model, config, autocast_adapter_dtype=False)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(backbone.dtype)
    return peft_model
