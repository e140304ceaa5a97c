"""The recipe's words for batches: which rows they have, and how they are computed (rectangles, kernels, grids)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gemma4vec.recipe.part import Part

Switch = Literal["auto"] | bool
SELF = "self"  # as the model whose vectors are clustered: the one that is trained


class Clusters(Part):
    """Batches of near rows: k-means on the rows' vectors (Merrick 2024, arXiv:2407.18887; guides/data.md)."""

    by: str = Field(
        "bundled:all-minilm-l6-v2",
        min_length=1,
        description="whose vectors: a model (hub id, folder, run, bundled:NAME), or `self`: the model that is trained",
    )
    text: Literal["query", "positive", "both"] = Field(
        "both", description="what a row's vector is of; `both`: the mean of its query's and its first positive's"
    )
    count: Literal["auto"] | Annotated[int, Field(ge=2, le=4096)] = Field(
        "auto", description="number of clusters; `auto`: one for each 8 groups of rows, at most 2,048"
    )
    across_sources: bool = Field(False, description="a cluster may have rows of several sources")
    refresh: int | None = Field(
        None,
        ge=1,
        description="for `by: self`: cluster the rows of the next such number of steps by the model as it is then; "
        "null: once, before the first step",
    )

    @model_validator(mode="after")
    def _vectors_that_change(self) -> "Clusters":
        if self.refresh is not None and self.by != SELF:
            raise ValueError(
                f"refresh: the vectors of {self.by} do not change in training; leave it out, or set by: self"
            )
        return self


class Batch(Part):
    """The rows of one optimizer step, and how much of each text is read.

    Training may read less of a text than the finished model does: long tails cost time and seldom matter.
    """

    rows: int = Field(32, ge=2, description="rows in one softmax: each row's negatives come from the others")
    accumulate: int = Field(
        1, ge=1, description="batches in an optimizer step; their gradients are averaged, negatives are not shared"
    )
    group_rows: int = Field(
        1,
        ge=1,
        le=2**31 - 1,
        description="number of rows of a batch from the same group (package, topic): harder in-batch negatives",
    )
    clusters: Clusters | None = Field(
        None, description="groups for `group_rows` made from vectors of the rows; null: the rows' own groups"
    )
    no_duplicates: bool = Field(False, description="no two rows of a batch have an equal query or an equal positive")
    query_tokens: int | None = Field(
        None, ge=4, description="cut queries to this length in training; null: `model.max_tokens`"
    )
    document_tokens: int | None = Field(
        None, ge=4, description="cut documents to this length in training; null: `model.max_tokens`"
    )
    tokenize: Literal["each_time", "once"] = Field(
        "each_time",
        description="`once`: store rows as tokens on disk, for millions of rows or many runs (contrast only)",
    )

    @model_validator(mode="after")
    def _groups_of_clusters(self) -> "Batch":
        if self.clusters is not None and not 2 <= self.group_rows <= self.rows:
            raise ValueError(
                f"clusters: group_rows says how many rows of a cluster a batch has together, from 2 to {self.rows}, "
                f"and is {self.group_rows}; set group_rows: {max(2, self.rows // 4)}"
            )
        return self


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
