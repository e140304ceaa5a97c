"""Full fine-tuning: which of the base's own weights are trained."""

from torch import nn

from gemma4vec.model.backbone.backbone import Backbone


def train_base(backbone: Backbone, *, full: bool, embeddings: bool) -> None:
    """Choose the base's trained weights: none, all, or all except the embedding matrices.

    A language-model head that is tied to the embeddings is trained and frozen with them.
    """
    backbone.requires_grad_(full)
    if full and not embeddings:
        for module in backbone.modules():
            if isinstance(module, nn.Embedding):
                module.requires_grad_(False)
