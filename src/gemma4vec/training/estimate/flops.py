"""Arithmetic of a step: matrix products alone, 2 operations a multiplication and addition.

Kaplan et al. 2020 (arXiv:2001.08361), section 2.1: 2 operations for each weight and token forward, 2 for the gradient
of the input, 2 for that of the weight where it is trained; and 4 * columns * heads * head size a token for attention.
"""

from collections.abc import Mapping

from torch import nn

from gemma4vec.model.backbone.backbone import Backbone


def step_flops(backbone: Backbone, cells: float, columns: float, first_trained: int) -> Mapping[str, float]:
    """Operations of the decoder layers for so many cells, padding included, by `forward` and `backward`.

    With gradient checkpointing the forward of the layers is done once more, which is not counted.
    """
    forward = backward = 0.0
    config = backbone.config
    heads, default = int(config.num_attention_heads), config.hidden_size // config.num_attention_heads
    for number, layer in enumerate(backbone.layers):
        reached = number >= first_trained
        for module in layer.modules():
            if not isinstance(module, nn.Linear):
                continue
            product = 2.0 * module.in_features * module.out_features
            forward += product
            backward += product * (reached + (reached and module.weight.requires_grad))
        size = getattr(getattr(layer, "self_attn", None), "head_dim", None) or default
        attention = 4.0 * columns * heads * size
        forward += attention
        backward += 2.0 * attention * reached
    return {"forward": forward * cells, "backward": backward * cells}
