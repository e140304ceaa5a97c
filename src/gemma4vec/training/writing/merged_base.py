"""The base of a checkpoint with its adapters merged, in fp32: what decoders and suggesters are saved from."""

from collections.abc import Mapping

import torch

from gemma4vec.model.backbone.lm_head import load_head
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.encoder.build import build
from gemma4vec.model.inverter.causal_base import CausalBase
from gemma4vec.recipe.schema import Recipe

PREFIX = "objective.prefix."
"""How a decoder's layers for soft tokens are named in checkpoints."""


def merge_base(recipe: Recipe, base: ResolvedBase, weights: Mapping[str, torch.Tensor]) -> CausalBase:
    """Load the base, put a checkpoint's full-precision weights into it, and merge its adapters.

    Raises:
        InputError: the weights belong to another recipe.
    """
    built = build(recipe.model, base.path, dtype=torch.float32, seed=recipe.seed)
    built.load_trained({key: value.float() for key, value in weights.items()})
    backbone = built.encoder.backbone
    head = load_head(backbone, base.path, recipe.stages[0].task.kind)
    if built.adapters is not None:
        backbone.model = built.adapters.merge_and_unload()
    return CausalBase(backbone, head, built.tokenizer)
