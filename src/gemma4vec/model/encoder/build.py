"""From a recipe's `model` part to a trainable encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gemma4vec.errors import InputError
from gemma4vec.model.adapters.full_finetune import train_base
from gemma4vec.model.backbone.backbone import Backbone, load_backbone
from gemma4vec.model.encoder.check_config import check_recipe, read_config
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.model.encoder.projection_head import Head
from gemma4vec.model.packing.packed_batch import Tokens
from gemma4vec.model.readout import READOUTS, Base
from gemma4vec.model.tokenize.tokenizer import Tokeniser, load_tokeniser
from gemma4vec.recipe.schema import Model
from gemma4vec.recipe.sources import PromptWords
from gemma4vec.text.prompts import BY_NAME, Prompted, Prompts

if TYPE_CHECKING:
    from peft.peft_model import PeftModel


@dataclass
class EmbeddingModel:
    """An encoder with what belongs to it."""

    encoder: TextEncoder
    tokeniser: Tokeniser
    prompts: Prompts
    adapters: "PeftModel | None"

    def read(self, texts: Sequence[Prompted], max_tokens: int) -> list[Tokens]:
        """What the backbone reads of texts with their prompts: tokens, as the readout prepares them.

        `max_tokens` limits one copy of a text with its prompt and special tokens.
        """
        readout = self.encoder.readout
        tokens = self.tokeniser.encode(texts, max(1, max_tokens - readout.reserved))
        return readout.prepare(tokens, texts, self.tokeniser.tokenizer)

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
    """The prompts of a recipe's model."""
    return prompts_named(model.prompts)


def prompts_named(words: PromptWords) -> Prompts:
    """The prompts that a recipe names or spells out, for its model or for one of its sources."""
    if isinstance(words, str):
        return BY_NAME[words]
    return Prompts(words.get("query", ""), words.get("document", ""))


def tokeniser_of(model: Model, path: str | Path) -> Tokeniser:
    """The tokenizer of the base at `path`, as the readout wants it: with EOS or not, the prompt to be left out or not.

    Raises:
        InputError: there is none, or it lacks a token that is needed.
    """
    readout_class = READOUTS[model.readout.name]
    apart = None if readout_class.pools_prompt(model.readout) else prompts_of(model)
    return load_tokeniser(path, append_eos="eos" in readout_class.needs, apart=apart)


def build(
    model: Model,
    path: str | Path,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    seed: int = 0,
    tokeniser: Tokeniser | None = None,
) -> EmbeddingModel:
    """Load the base at `path` and put readout, head and adapters on it as `model` says.

    The base is in `dtype`, readout and head in fp32 (float64 where the base is). New parameters depend on `seed` alone.
    A `tokeniser` that is given is used instead of the base's own.

    Raises:
        InputError: what the recipe asks for does not fit the base (see `model.encoder.check_config`); no weight was
        loaded.
    """
    check_recipe(model, read_config(path), folder=Path(path))
    tokeniser = tokeniser or tokeniser_of(model, path)
    backbone = load_backbone(
        path, causal=model.attention == "causal", dtype=dtype, device=device, allow_untested=model.allow_untested
    )
    return assemble(model, backbone, tokeniser, seed=seed, folder=Path(path))


def assemble(
    model: Model,
    backbone: Backbone,
    tokeniser: Tokeniser,
    *,
    seed: int = 0,
    folder: Path | None = None,
    layers: int | None = None,
) -> EmbeddingModel:
    """Put readout, head and adapters on a backbone, wherever its weights are: the meta device counts parameters.

    `folder` is where the backbone was loaded from: a saved model has its readout's second encoder there. `layers` is
    how many the readout is told of, where that is not the backbone's own number
    (`model.backbone.meta_model.give_as_many_states`).
    """
    dtype, device = backbone.dtype, backbone.device
    adapters = None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if model.lora is not None:
            from gemma4vec.model.adapters.lora import (
                add_lora,  # peft takes seconds to import; a merged model needs none
            )

            adapters = add_lora(backbone, model.lora)
        else:
            train_base(backbone, full=model.train == "full", embeddings=model.train_embeddings)
        count = layers or len(backbone.layers)
        base = Base(backbone.hidden_size, count, _embedding_size(backbone), folder, backbone.input_size)
        readout = READOUTS[model.readout.name](model.readout, base)
        head = Head(readout.dimension, model.head) if model.head is not None else None
    encoder = TextEncoder(backbone, readout, head)
    for part in (readout, head):
        if part is not None:
            part.to(device, torch.float64 if dtype == torch.float64 else torch.float32)
    return EmbeddingModel(encoder, tokeniser, prompts_of(model), adapters)


def _embedding_size(backbone: Backbone) -> float:
    """Root mean square of token embeddings, over a thousand tokens of the vocabulary; 1 where there are no values."""
    if backbone.device.type == "meta":
        return 1.0
    vocabulary = int(backbone.config.vocab_size)
    with torch.no_grad():
        states = backbone.input_states(torch.arange(0, vocabulary, max(1, vocabulary // 1000)))
    return float(states.float().square().mean().sqrt())
