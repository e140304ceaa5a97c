"""How a stage computes: rectangles of tokens, what is kept and what is computed again, faster ways to the same."""

from typing import Literal

from pydantic import Field, model_validator

from gemma4vec.recipe.part import Part

Switch = Literal["auto"] | bool


class FastPaths(Part):
    """Faster ways to compute the same (`model.backbone.kernel_options` says what each is). auto: as measured on such
    a device."""

    matmul_attention: Switch = Field("auto", description="compiled: attention as two matrix products, in short rows")
    sigmoid_gelu: Switch = Field("auto", description="compiled: the tanh form of GELU by an exponential")
    fused_rotary: Switch = Field("auto", description="compiled: rotary embeddings whose gradient is no sum of slices")
    fused_lora: Switch = Field("auto", description="compiled: a weight and its adapter as one matrix product")
    last_token_layer: Switch = Field("auto", description="compiled: the last layer for the states that are read alone")
    flex_attention: Switch = Field("auto", description="leave out blocks between documents; GPU only, for long rows")
    keep_freed_memory: Switch = Field("auto", description="the allocator keeps a step's memory for the next one")


class Layout(Part):
    """How the texts of a batch become rectangles of tokens. Changes speed and memory, not the objective."""

    kind: Literal["padded", "packed"] = "packed"
    grouping: Literal["separate", "candidate_packed", "all_packed"] = "all_packed"
    row_tokens: int = Field(256, ge=8, description="length of a packed row; never less than the longest text")
    tokens_per_forward: int = Field(2048, ge=8, description="micro-batch: tokens, padding included, in one forward")
    compile: Literal["auto"] | bool = Field("auto", description="torch.compile for each decoder layer")
    gradient_checkpointing: Literal["selective"] | bool = Field(
        False, description="compute layers again in the backward pass; selective: all but their matrix products"
    )
    grad_cache: Literal["auto"] | bool = Field(
        "auto", description="GradCache: one micro-batch's activations at a time; auto: where all would not fit"
    )
    share_prefixes: Literal["auto"] | bool = Field(
        "auto",
        description="packed and causal: compute what texts begin with alike (their prompt) once a micro-batch",
    )
    fast_paths: FastPaths = FastPaths()

    @model_validator(mode="after")
    def _shared_where_packed(self) -> "Layout":
        if self.share_prefixes is True and self.kind == "padded":
            raise ValueError("share_prefixes: padded rows hold one text each; set kind: packed, or leave it auto")
        return self
