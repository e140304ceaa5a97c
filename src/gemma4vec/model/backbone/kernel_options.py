"""Optional faster kernels, and their defaults for each device.

Most apply to compiled layers. Tests prove that each has the library's values and gradients;
`benchmarks/speed/switches.py` measures what each saves.
"""

from dataclasses import dataclass, replace

from gemma4vec.errors import InputError
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.recipe import schema


@dataclass(frozen=True)
class FastPaths:
    """The kernels in use.

    Attributes:
        matmul_attention: attention as two matrix products, in rows up to `model.backbone.attention.LONGEST_ROW`. Models
            that cap scores always use it, because the library has no fused attention for them.
        sigmoid_gelu: GELU's tanh approximation with an exponential (`model.backbone.gelu`).
        fused_rotary: rotary embeddings with a cheap gradient (`model.backbone.rotary`).
        fused_lora: a frozen layer and its adapter as one product (`model.adapters.fused_lora`).
        last_token_layer: the last layer for last tokens alone (`model.backbone.last_token_layer`).
        flex_attention: block-sparse attention, which skips blocks between documents (`model.backbone.attention`); also
            for uncompiled layers.
        keep_freed_memory: the allocator keeps freed memory for the next step (`training.engine.process_memory`).
        single_rows: compiled layers also take rectangles of one row, by graphs of their own. No recipe asks for it: it
            pays in a server, whose queries are short and few, and which compiles once before it is ready.
    """

    matmul_attention: bool
    sigmoid_gelu: bool
    fused_rotary: bool
    fused_lora: bool
    last_token_layer: bool
    flex_attention: bool
    keep_freed_memory: bool
    single_rows: bool = False

    def takes(self, layout: PackedBatch) -> bool:
        """Whether compiled layers take a layout."""
        return layout.compilable or (self.single_rows and layout.input_ids_RC.shape[1] > 1)


# Used where a recipe says auto. The CPU's are measured (benchmarks/results/switches-*). The GPU's are not: they are the
# library's own kernels, plus what saves work with any kernel.
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
    """The device's defaults (anything but a CPU uses the GPU's), overridden by the recipe.

    Raises:
        InputError: the recipe requests block-sparse attention on a CPU.
    """
    chosen = {name: value for name, value in (asked or schema.FastPaths()).model_dump().items() if value != "auto"}
    if device == "cpu" and chosen.get("flex_attention"):
        raise InputError("layout.fast_paths.flex_attention: torch has no backward pass for it on a CPU; leave it auto")
    return replace(DEFAULTS["cpu" if device == "cpu" else "cuda"], **chosen)
