"""A decoder that returns token states: loading, attention mode, isolation of packed documents, compilation.

Shapes: R rows, C columns, T real tokens, D hidden size, L layers.
"""

import logging
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from gemma4vec.errors import InputError
from gemma4vec.model import attention
from gemma4vec.model.masks import attention_mask
from gemma4vec.model.packing import Layout
from gemma4vec.model.recording import recorded
from gemma4vec.model.replaced import Replaced


@dataclass(frozen=True)
class Family:
    """How a model type of the transformers library is told to attend both ways, and where its layers differ."""

    bidirectional: dict[str, Any]
    causal: dict[str, Any]
    masks_by_layer_type: bool


# Only model types whose every attention mode and layout is verified by tests/model/test_backbone.py stand here.
FAMILIES = {
    "gemma3_text": Family({"use_bidirectional_attention": True}, {"use_bidirectional_attention": False}, True),
    "llama": Family({"is_causal": False}, {"is_causal": True}, False),
}


def family_of(model_type: str, allow_untested: bool = False) -> Family:
    """How to drive a model type.

    Raises:
        InputError: the type was never verified, and `allow_untested` does not say to use it all the same.
    """
    family = FAMILIES.get(model_type)
    if family is None and allow_untested:
        return FAMILIES["llama"]
    if family is None:
        raise InputError(
            f"model.base: model type {model_type!r} was never verified for packed and bidirectional attention; "
            f"verified: {', '.join(sorted(FAMILIES))}; set model.allow_untested=true to use it all the same"
        )
    return family


class Backbone(nn.Module):
    """A decoder without its language-model head, driven by layouts."""

    model: Any  # a transformers model; its attributes are not nn.Module's

    def __init__(self, model: nn.Module, *, causal: bool, family: Family):
        super().__init__()
        self.model = model
        self.causal = causal
        self.family = family
        self.compiled = False

    @property
    def config(self) -> Any:
        """Config of the transformers model."""
        return self.model.config

    @property
    def layers(self) -> list[nn.Module]:
        """The decoder layers, first to last."""
        return list(self.model.layers)

    @property
    def hidden_size(self) -> int:
        """Width of a token state."""
        return int(self.config.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the base's weights."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the base's weights are."""
        return next(self.model.parameters()).device

    def forward(self, layout: Layout, *, all_layers: bool = False, replaced: Replaced | None = None) -> Tensor:
        """States after the last layer's norm for the real tokens, document after document: `[T, D]`.

        Args:
            layout: the tokens.
            all_layers: give `[L + 1, T, D]` instead: the input embeddings, then the states after each layer. The last
                entry is taken after the final norm, so it equals the plain result. Costs (L + 1) * T * D values, twice
                over while they are gathered; gradient checkpointing does not save them.
            replaced: input embeddings that stand in for those of some cells.
        """
        layout = layout.to(self.device)
        # A shape that will not come again is not worth half a minute of compilation.
        run_compiled = self.compiled and layout.repeats
        short = layout.input_ids_RC.shape[1] <= attention.LONGEST_ROW
        grouped = run_compiled and short and self.device.type == "cpu"
        self.config._attn_implementation = attention.NAME if grouped else "sdpa"
        with torch.compiler.set_stance("force_eager") if self.compiled and not run_compiled else nullcontext():
            if all_layers:
                with recorded(self.layers) as between:
                    last_RCD = self._states(layout, replaced)
                every = [*between[:-1], last_RCD]
                return torch.stack([x.flatten(0, 1).index_select(0, layout.cells_T) for x in every])
            states_RCD = self._states(layout, replaced)
        return states_RCD.flatten(0, 1).index_select(0, layout.cells_T)

    def _states(self, layout: Layout, replaced: Replaced | None) -> Tensor:
        states_RCD: Tensor = self.model(
            **self._inputs(layout, replaced),
            position_ids=layout.positions_RC,
            attention_mask=self._masks(layout),
            use_cache=False,
        ).last_hidden_state
        return states_RCD

    def _inputs(self, layout: Layout, replaced: Replaced | None) -> dict[str, Tensor]:
        if replaced is None:
            return {"input_ids": layout.input_ids_RC}
        return {"inputs_embeds": replaced.put_into(self.input_states(layout.input_ids_RC))}

    def input_states(self, input_ids: Tensor) -> Tensor:
        """The embeddings of token ids as they enter the first layer: a dimension D is added behind."""
        states: Tensor = self.model.get_input_embeddings()(input_ids.to(self.device))
        return states

    def _masks(self, layout: Layout) -> Tensor | dict[str, Tensor]:
        positions_RC, segments_RC = layout.positions_RC, layout.segments_RC
        full = attention_mask(positions_RC, segments_RC, causal=self.causal)
        if not self.family.masks_by_layer_type:
            return full
        window = self.config.sliding_window
        if window is None or layout.input_ids_RC.shape[1] <= window:
            sliding = full  # no two tokens of a row are far enough apart for the window to matter
        else:
            sliding = attention_mask(positions_RC, segments_RC, causal=self.causal, sliding_window=window)
        return {"full_attention": full, "sliding_attention": sliding}

    def compile_layers(self) -> None:
        """Compile each decoder layer on its own; fixed shapes, so each shape is compiled once."""
        # Layer types, shapes, training and inference: the default of 8 variants is soon used up, and then it fails.
        torch._dynamo.config.recompile_limit = 64
        for layer in self.layers:
            layer.compile(dynamic=False, fullgraph=True)
        self.compiled = True

    def uncompile_layers(self) -> None:
        """Run the layers as they are again."""
        for layer in self.layers:
            layer._compiled_call_impl = None
        self.compiled = False

    def use_gradient_checkpointing(self) -> None:
        """Keep only each layer's input for the backward pass and compute the rest again."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _quiet() -> None:
    """No bars of a second's loading inside ours, and no report that the LM head was left out: it was meant to be."""
    transformers_logging.disable_progress_bar()
    for noisy in ("transformers.modeling_utils", "transformers.distributed.tensor_parallel"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)


def load_backbone(
    path: str | Path,
    *,
    causal: bool,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    allow_untested: bool = False,
) -> Backbone:
    """Load the decoder at `path` with the attention mode set at load, where it takes effect.

    Setting the mode on a loaded config would leave the sliding window at twice its size.

    Raises:
        InputError: the folder holds no decoder of a verified type.
    """
    _quiet()
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model.base: cannot read {path}/config.json: {' '.join(str(error).split())[:200]}") from error
    family = family_of(config.model_type, allow_untested)
    mode = family.causal if causal else family.bidirectional
    # Built anew from its dictionary: overrides given to from_pretrained are set too late to halve the window.
    config = type(config).from_dict(config.to_dict() | mode)
    model = AutoModel.from_pretrained(
        path, config=config, dtype=dtype, attn_implementation="sdpa", local_files_only=True
    )
    model.config.use_cache = False
    return Backbone(model.to(device), causal=causal, family=family)
