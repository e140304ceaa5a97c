"""The recipe's words for readouts and heads: which token states become a vector (docs/guides/readouts.md)."""

from typing import Annotated, Literal

from pydantic import Field

from gemma4vec.recipe.part import Part

_POOL_PROMPT = "pool the prompt's tokens too, BOS included"


class LastToken(Part):
    """State of the appended EOS (Neelakantan et al. 2022, arXiv:2201.10005)."""

    name: Literal["last_token"] = "last_token"


class FirstToken(Part):
    """State of the first token, as BERT's [CLS] (Devlin et al. 2019, arXiv:1810.04805); bidirectional models only."""

    name: Literal["first_token"] = "first_token"


class Mean(Part):
    """Mean of the states (Reimers and Gurevych 2019, arXiv:1908.10084)."""

    name: Literal["mean"] = "mean"
    pool_prompt: bool = Field(True, description=_POOL_PROMPT)


class WeightedMean(Part):
    """Mean with weights that grow linearly with the position (SGPT, Muennighoff 2022, arXiv:2202.08904)."""

    name: Literal["weighted_mean"] = "weighted_mean"
    pool_prompt: bool = Field(True, description=_POOL_PROMPT)


class Attention(Part):
    """One learned query attends to the states (the attention pooling that arXiv:2503.02656 compares with mean)."""

    name: Literal["attention"] = "attention"
    heads: int = Field(1, ge=1, description="number of slices of the state, each with a softmax; divides its width")
    pool_prompt: bool = Field(True, description=_POOL_PROMPT)


class LatentAttention(Part):
    """States attend to trained latents, then MLP, then mean (NV-Embed, Lee et al. 2024, arXiv:2405.17428)."""

    name: Literal["latent_attention"] = "latent_attention"
    latents: int = Field(512, ge=32, le=512, description="number of trained latent vectors")
    heads: int = Field(8, ge=1, description="attention heads; divides hidden_size")
    hidden_size: int | None = Field(None, ge=1, description="width of all heads together; null: the base's width")
    mlp: int = Field(4, ge=1, le=16, description="inner width of the MLP, in widths of the base")
    pool_prompt: bool = Field(False, description=_POOL_PROMPT)


class ContextualToken(Part):
    """A frozen small encoder's vector as one more token; its state and EOS's (Causal2Vec, arXiv:2507.23386)."""

    name: Literal["contextual_token"] = "contextual_token"
    encoder: str = Field(
        "bundled:all-minilm-l6-v2", description="sentence-transformers model: hub id, local folder or bundled:NAME"
    )
    hidden_size: int | None = Field(None, ge=1, description="inner width of the projecting MLP; null: the base's width")


class LayerMix(Part):
    """Trained mix of all layers' states, then mean (ELMo, arXiv:1802.05365; multi-layer pooling, arXiv:2409.02727)."""

    name: Literal["layer_mix"] = "layer_mix"
    normalize: bool = Field(True, description="scale each layer's states to unit root mean square before mixing")
    scale: bool = Field(
        True, description="train a factor on the mix; it changes no vector unless a head with bias follows"
    )
    pool_prompt: bool = Field(True, description=_POOL_PROMPT)


class EchoDelta(Part):
    """The text twice; mean of the second copy and its difference to the first's (echo embeddings, arXiv:2402.15449)."""

    name: Literal["echo_delta"] = "echo_delta"
    join: Literal["sum", "concat"] = Field(
        "sum", description="`sum`: second + delta * (second - first); `concat`: both, so twice the width"
    )
    delta: float = Field(0.5, description="initial factor of the difference; it is trained")
    separator: str = Field("\n", description="text between the two copies")


Readout = Annotated[
    LastToken | FirstToken | Mean | WeightedMean | Attention | LatentAttention | ContextualToken | LayerMix | EchoDelta,
    Field(discriminator="name"),
]


class Head(Part):
    """Linear layers without activation between readout and unit length.

    EmbeddingGemma (arXiv:2509.20354) has two, [3072, 768]; one of 256 is Gemma-Embed's projection.
    """

    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=8)] = Field(
        description="output width of each layer; the last one is the vector's dimension"
    )
    bias: bool = Field(False, description="add a trained bias after each layer")
