"""Quantization schemes: which matrix of a model gets which grid.

`q8_0` and `q4_0` quantize what our GGUF exporter quantizes: every matrix of the base, the token embeddings included.
Vectors (norms, biases) stay as they are; so do the head, which the exporter writes in fp32 as one folded matrix, and
the parameters of a readout, which a GGUF file cannot hold.

`mixed` is EmbeddingGemma's per-channel scheme (arXiv:2509.20354, table 1: int4 embedding, feed-forward and projection
layers, int8 attention). Its projection layers are the head's. GGUF has no per-channel grid.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from gemma4vec.errors import InputError
from gemma4vec.model.adapters.grids import INT4, INT8, Q4_0, Q8_0, Grid

Kind = Literal["embedding", "attention", "feed_forward", "head"]
# scheme -> the grid of each kind of matrix; None: not quantized
SCHEMES: dict[str, dict[Kind, Grid | None]] = {
    "q8_0": {"embedding": Q8_0, "attention": Q8_0, "feed_forward": Q8_0, "head": None},
    "q4_0": {"embedding": Q4_0, "attention": Q4_0, "feed_forward": Q4_0, "head": None},
    "mixed": {"embedding": INT4, "attention": INT8, "feed_forward": INT4, "head": INT4},
}
HEAD = "head."


def check_scheme(scheme: str, key: str = "--scheme") -> None:
    """Refuse a scheme that does not exist.

    Raises:
        InputError: it names those that do.
    """
    if scheme not in SCHEMES:
        raise InputError(f"{key}: there is no scheme {scheme!r}; use {', '.join(SCHEMES)}")


def kind_of(name: str) -> Kind:
    """The kind of a matrix by its name: `head.0`, or in the base `embed_tokens.weight`, `layers.0.self_attn...`."""
    if name.startswith(HEAD):
        return "head"
    if "embed_tokens" in name:
        return "embedding"
    return "attention" if "self_attn." in name else "feed_forward"


def grids_of(scheme: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, Grid]:
    """The grid of each weight that the scheme quantizes, by name.

    Args:
        scheme: a key of `SCHEMES`.
        shapes: shape of every weight of the base by name, and of the head's matrices as `head.N`.

    Raises:
        InputError: a block does not divide a matrix's rows, or a weight has more than two dimensions; it is named.
    """
    found: dict[str, Grid] = {}
    for name, shape in shapes.items():
        grid = SCHEMES[scheme][kind_of(name)]
        if grid is None or len(shape) < 2:
            continue
        if len(shape) > 2:
            raise InputError(f"{scheme}: {name} has {len(shape)} dimensions; only matrices can be quantized")
        if grid.block is not None and shape[1] % grid.block:
            raise InputError(
                f"{scheme}: the rows of {name} have {shape[1]} values, which do not divide into blocks of "
                f"{grid.block}; choose mixed, which has one scale a row"
            )
        found[name] = grid
    return found
