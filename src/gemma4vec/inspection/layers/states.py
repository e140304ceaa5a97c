"""One vector of each layer for texts, from a single pass through the model.

Shapes: L layers, N texts, D hidden size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.packing.packed_batch import pack
from gemma4vec.model.readout.documents import at_least_fp32, mean_of
from gemma4vec.text.prompts import Prompted

ROW_TOKENS = 256
TEXTS = 64  # at a time: states of all layers are held
SIMPLE = {"mean", "last_token", "first_token", "weighted_mean"}  # readouts without parameters, of one layer's states


def find_embedder(model: Any) -> Embedder:
    """The embedder below caches and cuts.

    Raises:
        InputError: a model of another library, or a ranker: its layers cannot be read.
    """
    inner = model
    while not isinstance(inner, Embedder) and hasattr(inner, "model"):
        inner = inner.model
    if not isinstance(inner, Embedder):
        raise InputError(f"--layers reads models that gemma4vec trained or opened as a base; {model.name} is none")
    return inner


def pools_by_itself(embedder: Embedder) -> bool:
    """Whether the model's own readout is used at each layer; otherwise the mean of the tokens is."""
    return embedder.encoder.readout.name in SIMPLE


def layer_vectors(embedder: Embedder, texts: Sequence[Prompted]) -> npt.NDArray[np.float32]:
    """Unit vectors of the input embeddings and after each layer, float32[L + 1, N, D].

    The last one is the state behind the final norm: the model's own vector, where it has no head and a simple readout.

    Raises:
        InputError: a base whose final states are wider than the others.
    """
    backbone = embedder.encoder.backbone
    blocks = []
    training = embedder.encoder.training
    embedder.encoder.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(texts), TEXTS):
                tokens = embedder.read(list(texts[start : start + TEXTS]), embedder.max_tokens)
                blocks.append(_block(embedder, tokens, backbone))
    finally:
        if training:
            embedder.encoder.train()
    return np.concatenate(blocks, axis=1)


def _block(embedder: Embedder, tokens: Any, backbone: Any) -> npt.NDArray[np.float32]:
    readout = embedder.encoder.readout
    layouts = pack(tokens, ROW_TOKENS, embedder.tokens_per_forward, embedder.tokenizer.padding_id)
    found: npt.NDArray[np.float32] | None = None
    for whole in layouts:
        layout = whole.to(backbone.device)
        states_LTD = backbone(layout, overrides=readout.override_embeddings(layout), all_layers=True)
        pooled = [_pool(embedder, states_TD, layout) for states_TD in states_LTD]
        vectors_LnD = torch.stack([torch.nn.functional.normalize(one, dim=-1) for one in pooled]).float().cpu().numpy()
        if found is None:
            found = np.zeros((len(vectors_LnD), len(tokens), vectors_LnD.shape[2]), dtype=np.float32)
        found[:, list(whole.documents)] = vectors_LnD
    assert found is not None
    return found


def _pool(embedder: Embedder, states_TD: Tensor, layout: Any) -> Tensor:
    readout = embedder.encoder.readout
    if pools_by_itself(embedder):
        return at_least_fp32(readout.pool(states_TD, layout))
    return mean_of(at_least_fp32(states_TD), layout, readout.pool_prompt)
