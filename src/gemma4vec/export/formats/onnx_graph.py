"""A saved model as one ONNX graph: token ids and a mask of real tokens in, unit vectors out.

There is one output, `sentence_embedding`, so that nobody can pool another one or leave out the head. Batch size and
length are dynamic; padding may be on either side.

Shapes: B texts, S tokens of the longest, D dimensions.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from gemma4vec.errors import InputError
from gemma4vec.export.source import Source
from gemma4vec.model.backbone.masks import attention_mask
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.recipe.schema import Model

READOUTS = ("mean", "weighted_mean", "last_token", "first_token")
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "sentence_embedding"
MODEL_FILE = "model.onnx"


def check_onnx(model: Model) -> None:
    """Refuse what a graph with these two inputs cannot hold.

    Raises:
        InputError: it names the property.
    """
    if model.readout.name not in READOUTS:
        raise InputError(f"onnx cannot hold readout {model.readout.name}: it holds {', '.join(READOUTS)}; use --to st")
    if not getattr(model.readout, "pool_prompt", True):
        raise InputError(
            "onnx cannot hold a readout without the prompt (pool_prompt: false): the graph does not know where the "
            "prompt ends; use --to st"
        )


class Graph(nn.Module):
    """The computation that is exported.

    Args:
        encoder: backbone, readout and head.
        readout: name of the readout.
        dimension: number of leading dimensions to keep.
    """

    def __init__(self, encoder: TextEncoder, readout: str, dimension: int):
        super().__init__()
        self.tower = encoder.backbone.model
        self.head = encoder.head
        self.readout, self.dimension = readout, dimension
        self.causal, self.reach = encoder.backbone.causal, encoder.backbone.reach
        self.masks_by_layer_type = encoder.backbone.architecture.masks_by_layer_type

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors `[B, D]`.

        Args:
            input_ids: `[B, S]`, int64.
            attention_mask: `[B, S]`, int64, 1 for real tokens.
        """
        positions_BS = (attention_mask.cumsum(1) - 1).clamp(min=0)
        states_BSD = self.tower(
            input_ids=input_ids,
            position_ids=positions_BS,
            attention_mask=self._masks(positions_BS, attention_mask - 1),
            use_cache=False,
        ).last_hidden_state.float()
        pooled_BD = self._pool(states_BSD, positions_BS, attention_mask)
        if self.head is not None:
            pooled_BD = self.head(pooled_BD)
        return functional.normalize(pooled_BD[:, : self.dimension], dim=-1)

    def _masks(self, positions_BS: Tensor, segments_BS: Tensor) -> Tensor | dict[str, Tensor]:
        full = attention_mask(positions_BS, segments_BS, causal=self.causal)
        sliding = full if self.reach is None else self._sliding(positions_BS, segments_BS)
        if not self.masks_by_layer_type:
            return sliding
        return {"full_attention": full, "sliding_attention": sliding}

    def _sliding(self, positions_BS: Tensor, segments_BS: Tensor) -> Tensor:
        return attention_mask(positions_BS, segments_BS, causal=self.causal, reach=self.reach)

    def _pool(self, states_BSD: Tensor, positions_BS: Tensor, mask_BS: Tensor) -> Tensor:
        if self.readout in ("mean", "weighted_mean"):
            weights_BS = mask_BS if self.readout == "mean" else mask_BS * (positions_BS + 1)
            weights_BS1 = weights_BS.float().unsqueeze(-1)
            return (states_BSD * weights_BS1).sum(1) / weights_BS1.sum(1)
        # One token has weight 1: a sum over tokens keeps the graph free of indices.
        first = self.readout == "first_token"
        at_BS = (positions_BS == (0 if first else mask_BS.sum(1, keepdim=True) - 1)) & (mask_BS > 0)
        return torch.where(at_BS.unsqueeze(-1), states_BSD, 0.0).sum(1)


def write_onnx_graph(source: Source, folder: Path, dimension: int) -> None:
    """Write `model.onnx` and, for its weights, `model.onnx.data` into a folder.

    Raises:
        InputError: a graph cannot hold this readout; it names it.
        WorkError: torch cannot trace the model.
        OSError: writing failed.
    """
    check_onnx(source.model)
    graph = Graph(source.embedder.encoder, source.model.readout.name, dimension).eval()
    ids = torch.ones((2, 7), dtype=torch.int64)
    mask = torch.ones((2, 7), dtype=torch.int64)
    mask[1, 5:] = 0
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph,
            (ids, mask),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
            verbose=False,
        )
        assert program is not None
        program.save(str(folder / MODEL_FILE), external_data=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's remarks about its own inside."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    before = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
