"""Build a trainable encoder from a recipe's `model` part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gemma4vec.errors import InputError
from gemma4vec.model.adapters.full_finetune import train_base
from gemma4vec.model.backbone.backbone import Backbone, load_backbone
from gemma4vec.model.bases.bundled import bundled_base
from gemma4vec.model.encoder.check_config import check_recipe, check_vocabulary, read_config
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.model.encoder.projection_head import Head
from gemma4vec.model.encoder.saved_parts import load_parts
from gemma4vec.model.packing.packed_batch import Tokens
from gemma4vec.model.readout import READOUTS, BaseInfo
from gemma4vec.model.tokenize.tokenizer import TextTokenizer, load_saved_tokenizer, load_tokenizer
from gemma4vec.recipe.schema import Model
from gemma4vec.recipe.sources import PromptWords
from gemma4vec.recipe.start import carried_parts
from gemma4vec.text.prompts import BY_NAME, Prompted, Prompts

if TYPE_CHECKING:
    from peft.peft_model import PeftModel


@dataclass
class EmbeddingModel:
    """An encoder with its tokenizer, prompts and adapters.

    Attributes:
        encoder: backbone, readout and head.
        tokenizer: its tokenizer.
        prompts: its prompts for queries and documents.
        adapters: peft's model around the backbone, if LoRA is trained.
    """

    encoder: TextEncoder
    tokenizer: TextTokenizer
    prompts: Prompts
    adapters: "PeftModel | None"

    def read(self, texts: Sequence[Prompted], max_tokens: int) -> list[Tokens]:
        """Tokens of texts with their prompts, as the readout prepares them for the backbone.

        `max_tokens` limits one copy of a text with its prompt and special tokens.
        """
        readout = self.encoder.readout
        tokens = self.tokenizer.encode(texts, max(1, max_tokens - readout.reserved))
        return readout.prepare(tokens, texts, self.tokenizer.hf_tokenizer)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters, by name."""
        return {name: p for name, p in self.encoder.named_parameters() if p.requires_grad}

    def load_trained(self, values: Mapping[str, Tensor]) -> None:
        """Copy trained values into the trainable parameters.

        Raises:
            InputError: the names differ: the values belong to another recipe.
        """
        parameters = self.trainable()
        if set(parameters) != set(values):
            odd = sorted(set(parameters) ^ set(values))
            raise InputError(f"the trained weights belong to another model: {len(odd)} names differ, first {odd[0]!r}")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(values[name])


def recipe_prompts(model: Model) -> Prompts:
    """The prompts of a recipe's model part."""
    return resolve_prompts(model.prompts)


def resolve_prompts(words: PromptWords) -> Prompts:
    """The prompts that a recipe names or writes out, for its model or one of its sources."""
    if isinstance(words, str):
        return BY_NAME[words]
    return Prompts(words.get("query", ""), words.get("document", ""))


def load_recipe_tokenizer(model: Model, path: str | Path, *, ids_alone: bool = False) -> TextTokenizer:
    """Load the tokenizer of the base at `path`, with EOS and prompt boundaries as the readout needs them.

    `ids_alone`: it will not be saved, so that one of a bundled base may be read quickly.

    Raises:
        InputError: there is no tokenizer, or it lacks a required token.
    """
    if model.start is not None:
        return load_saved_tokenizer(Path(path))
    readout_class = READOUTS[model.readout.name]
    unpooled_prompts = None if readout_class.pools_prompt(model.readout) else recipe_prompts(model)
    return load_tokenizer(
        path,
        append_eos="eos" in readout_class.needs,
        unpooled_prompts=unpooled_prompts,
        ids_alone=ids_alone and bundled_base(model.base) is not None,
    )


def build(
    model: Model,
    path: str | Path,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    seed: int = 0,
    tokenizer: TextTokenizer | None = None,
) -> EmbeddingModel:
    """Load a base and add the recipe's adapters, readout and head. Those of a start have its trained weights.

    Args:
        model: the recipe's model part.
        path: folder of the base, or of the start (`model.bases.start`).
        dtype: dtype of the base. Readout and head are fp32, or float64 like the base.
        device: device of all weights.
        seed: initial values of new parameters depend on it alone.
        tokenizer: replaces the base's own.

    Raises:
        InputError: the recipe does not fit the base (see `model.encoder.check_config`); no weight was loaded. Readout
            or head of the start are missing or damaged.
    """
    config = read_config(path)
    check_recipe(model, config, folder=Path(path))
    tokenizer = tokenizer or load_recipe_tokenizer(model, path)
    check_vocabulary(tokenizer, config, path)
    backbone = load_backbone(
        path,
        causal=model.attention == "causal",
        dtype=dtype,
        device=device,
        allow_untested=model.allow_untested,
        layers=model.layers,
    )
    built = assemble(model, backbone, tokenizer, seed=seed, folder=Path(path))
    if model.start is not None:
        try:
            load_parts(built.encoder, Path(path), carried_parts(model))
        except (KeyError, OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"model.start: readout or head in {path} are damaged ({reason})") from error
    return built


def assemble(
    model: Model,
    backbone: Backbone,
    tokenizer: TextTokenizer,
    *,
    seed: int = 0,
    folder: Path | None = None,
    layers: int | None = None,
) -> EmbeddingModel:
    """Add the recipe's adapters, readout and head to a backbone, which may be on the meta device to count parameters.

    Args:
        model: the recipe's model part.
        backbone: its weights decide dtype and device.
        tokenizer: the tokenizer of the result.
        seed: initial values of new parameters depend on it alone.
        folder: where the backbone was loaded from; a saved model has its readout's second encoder there.
        layers: number of layers for the readout, if it is not the backbone's own
            (`model.backbone.meta_model.repeat_states`).
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
        base = BaseInfo(backbone.hidden_size, count, embedding_size(backbone), folder, backbone.input_size)
        readout = READOUTS[model.readout.name](model.readout, base)
        head = Head(readout.dimension, model.head) if model.head is not None else None
    encoder = TextEncoder(backbone, readout, head)
    for part in (readout, head):
        if part is not None:
            part.to(device, torch.float64 if dtype == torch.float64 else torch.float32)
    return EmbeddingModel(encoder, tokenizer, recipe_prompts(model), adapters)


def embedding_size(backbone: Backbone) -> float:
    """Root mean square of about a thousand token embeddings; 1 on the meta device, which has no values."""
    if backbone.device.type == "meta":
        return 1.0
    vocabulary = int(backbone.config.vocab_size)
    with torch.no_grad():
        states = backbone.input_states(torch.arange(0, vocabulary, max(1, vocabulary // 1000)))
    return float(states.float().square().mean().sqrt())
