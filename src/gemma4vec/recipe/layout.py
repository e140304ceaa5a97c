"""The recipe's words for how a stage computes: rectangles of tokens, recomputation, optional kernels, quantization."""

from typing import Literal

from pydantic import Field, model_validator

from gemma4vec.recipe.part import Part

Switch = Literal["auto"] | bool


class Quantize(Part):
    """Fake quantization: train weights for the grid on which they will be stored (guides/quantization.md)."""

    scheme: Literal["q8_0", "q4_0", "mixed"] = Field(
        description="q8_0, q4_0: GGUF's, all matrices; mixed: int8 attention, the rest int4, one scale a row"
    )


class FastPaths(Part):
    """Optional kernels with the same results (guides/speed.md); `auto`: whichever is faster on this kind of device."""

    matmul_attention: Switch = Field("auto", description="compiled: attention as two matrix products, for short rows")
    sigmoid_gelu: Switch = Field("auto", description="compiled: the tanh form of GELU through a sigmoid")
    fused_rotary: Switch = Field("auto", description="compiled: rotary embeddings with a gradient of one operation")
    fused_lora: Switch = Field(
        "auto", description="compiled: a frozen weight and its LoRA adapter as one matrix product"
    )
    last_token_layer: Switch = Field(
        "auto", description="compiled: the last layer only for tokens that the readout reads"
    )
    flex_attention: Switch = Field(
        "auto", description="skip attention blocks between documents; GPU only, for long rows"
    )
    keep_freed_memory: Switch = Field("auto", description="let the allocator reuse a step's memory for the next step")


class Layout(Part):
    """How the texts of a batch become rectangles of tokens. Changes speed and memory, not the objective."""

    kind: Literal["padded", "packed"] = Field(
        "packed", description="`padded`: one text a row; `packed`: several texts a row, which do not see each other"
    )
    grouping: Literal["separate", "candidate_packed", "all_packed"] = Field(
        "all_packed",
        description="which texts share a forward: `separate`: of one role; `candidate_packed`: positives and hard "
        "negatives; `all_packed`: all",
    )
    row_tokens: int = Field(
        256, ge=8, le=2**20, description="length of a packed row; raised to that of the longest text"
    )
    tokens_per_forward: int = Field(
        2048, ge=8, le=2**24, description="tokens in one forward (a micro-batch), padding included"
    )
    compile: Literal["auto"] | bool = Field(
        "auto", description="torch.compile for each decoder layer; `auto`: if it pays off"
    )
    gradient_checkpointing: Literal["selective"] | bool = Field(
        False, description="recompute layers in the backward pass; `selective`: all but their matrix products"
    )
    grad_cache: Literal["auto"] | bool = Field(
        "auto",
        description="GradCache: hold one micro-batch's activations at a time; `auto`: if all would not fit into memory",
    )
    share_prefixes: Literal["auto"] | bool = Field(
        "auto",
        description="packed and causal: compute a prefix that texts share (their prompt) once a micro-batch",
    )
    fast_paths: FastPaths = Field(FastPaths(), description="optional kernels; the same for all stages")

    @model_validator(mode="after")
    def _shared_where_packed(self) -> "Layout":
        if self.share_prefixes is True and self.kind == "padded":
            raise ValueError("share_prefixes: padded rows hold one text each; set kind: packed, or leave it auto")
        return self
