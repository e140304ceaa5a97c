"""From a recipe's `model` part to a trainable encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gemma4vec.errors import InputError
from gemma4vec.model.backbone import Backbone, load_backbone
from gemma4vec.model.encoder import TextEncoder
from gemma4vec.model.prompts import BY_NAME, Prompts
from gemma4vec.model.readout import READOUTS
from gemma4vec.model.tokens import Tokeniser, load_tokeniser
from gemma4vec.recipe.schema import Model

if TYPE_CHECKING:
    from peft.peft_model import PeftModel


@dataclass
class Built:
    """An encoder with what belongs to it."""

    encoder: TextEncoder
    tokeniser: Tokeniser
    prompts: Prompts
    adapters: "PeftModel | None"

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name."""
        return {name: p for name, p in self.encoder.named_parameters() if p.requires_grad}

    def load_trained(self, values: Mapping[str, Tensor]) -> None:
        """Put trained values into the trainable parameters.

        Raises:
            InputError: the names do not fit; the values belong to another recipe.
        """
        parameters = self.trainable()
        if set(parameters) != set(values):
            odd = sorted(set(parameters) ^ set(values))
            raise InputError(f"the trained weights belong to another model: {len(odd)} names differ, first {odd[0]!r}")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(values[name])


def prompts_of(model: Model) -> Prompts:
    """The prompts that a recipe names or spells out."""
    if isinstance(model.prompts, str):
        return BY_NAME[model.prompts]
    return Prompts(model.prompts.get("query", ""), model.prompts.get("document", ""))


def build(
    model: Model,
    path: str | Path,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    seed: int = 0,
    tokeniser: Tokeniser | None = None,
) -> Built:
    """Load the base at `path` and put readout, head and adapters on it as `model` says.

    The base is in `dtype`, the head in fp32. New parameters depend on `seed` alone. A `tokeniser` that is given is used
    instead of the base's own.
    """
    readout_class = READOUTS[model.readout.name]
    tokeniser = tokeniser or load_tokeniser(path, append_eos="eos" in readout_class.needs)
    backbone = load_backbone(
        path, causal=model.attention == "causal", dtype=dtype, device=device, allow_untested=model.allow_untested
    )
    return assemble(model, backbone, tokeniser, seed=seed)


def assemble(model: Model, backbone: Backbone, tokeniser: Tokeniser, *, seed: int = 0) -> Built:
    """Put readout, head and adapters on a backbone, wherever its weights are: the meta device counts parameters."""
    dtype, device = backbone.dtype, backbone.device
    readout = READOUTS[model.readout.name](backbone.hidden_size, model.readout.pool_prompt)
    adapters = None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if model.lora is not None:
            from gemma4vec.model.lora import add_lora  # peft takes seconds to import; a merged model needs none

            adapters = add_lora(backbone, model.lora)
        projection = None
        if model.projection is not None:
            head_dtype = torch.float64 if dtype == torch.float64 else torch.float32
            projection = nn.Linear(backbone.hidden_size, model.projection, bias=False, dtype=head_dtype)
            projection = projection.to(device)
    return Built(TextEncoder(backbone, readout, projection), tokeniser, prompts_of(model), adapters)
