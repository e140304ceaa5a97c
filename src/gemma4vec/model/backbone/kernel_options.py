"""Faster ways to compute the same, each a switch, and which of them a device takes unasked.

Most are for compiled layers. Each is proven equal to the library's way, in values and gradients;
what each is worth here is measured by `benchmarks/switches.py`.
"""

from dataclasses import dataclass, replace

from gemma4vec.errors import InputError
from gemma4vec.recipe import schema


@dataclass(frozen=True)
class FastPaths:
    """What is on.

    Attributes:
        matmul_attention: attention as two matrix products (`model.backbone.attention`), in rows up to its longest.
        Families
            that cap scores have it whatever is chosen: the library has no fused attention for them.
        sigmoid_gelu: GELU's tanh form by way of the exponential (`model.backbone.gelu`).
        fused_rotary: rotary embeddings with a gradient that is a half turn again (`model.backbone.rotary`).
        fused_lora: a frozen layer and its adapter as one product (`training.lora_linear`).
        last_token_layer: the last layer for what the readout reads alone (`model.backbone.last_token_layer`).
        flex_attention: blocks of attention between documents are left out (`model.backbone.attention`); uncompiled too.
        keep_freed_memory: the allocator keeps what a step frees for the next one (`training.engine.process_memory`).
    """

    matmul_attention: bool
    sigmoid_gelu: bool
    fused_rotary: bool
    fused_lora: bool
    last_token_layer: bool
    flex_attention: bool
    keep_freed_memory: bool


# What is on where a recipe says auto. A CPU's are measured (benchmarks/results/switches-*). On a GPU none has been:
# there it is the library's own kernels, and what saves work whatever the kernels.
DEFAULTS = {
    "cpu": FastPaths(
        matmul_attention=True,
        sigmoid_gelu=True,
        fused_rotary=True,
        fused_lora=True,
        last_token_layer=True,
        flex_attention=False,
        keep_freed_memory=True,
    ),
    "cuda": FastPaths(
        matmul_attention=False,
        sigmoid_gelu=False,
        fused_rotary=False,
        fused_lora=False,
        last_token_layer=True,
        flex_attention=False,
        keep_freed_memory=True,
    ),
}


def fast_paths(device: str, asked: schema.FastPaths | None = None) -> FastPaths:
    """The device's own (of all but a CPU a GPU's), with what a recipe asks for where that is not `auto`.

    Raises:
        InputError: attention by blocks is asked of a CPU.
    """
    chosen = {name: value for name, value in (asked or schema.FastPaths()).model_dump().items() if value != "auto"}
    if device == "cpu" and chosen.get("flex_attention"):
        raise InputError("layout.fast_paths.flex_attention: torch has no backward pass for it on a CPU; leave it auto")
    return replace(DEFAULTS["cpu" if device == "cpu" else "cuda"], **chosen)
