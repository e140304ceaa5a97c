"""The base's own weights: trained or not."""

from torch import nn

from gemma4vec.model.backbone.backbone import Backbone


def train_base(backbone: Backbone, *, full: bool, embeddings: bool) -> None:
    """Say which of the base's weights are trained: none, all, or all but the embedding matrices.

    Tied to the embeddings, a language-model head is trained and frozen with them.
    """
    backbone.requires_grad_(full)
    if full and not embeddings:
        for module in backbone.modules():
            if isinstance(module, nn.Embedding):
                module.requires_grad_(False)
