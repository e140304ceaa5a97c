"""The backbone: a decoder that returns token states. Loading, attention modes, packed documents, compilation.

Shapes: R rows, C columns, T real tokens, D hidden size, L layers.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers.utils import logging as transformers_logging

from gemma4vec.errors import InputError
from gemma4vec.model import upstream
from gemma4vec.model.backbone import attention
from gemma4vec.model.backbone.architectures import (
    ENCLOSING_MODELS,
    Architecture,
    Reach,
    check_attention,
    first_layers,
    library_attention,
    model_class,
    read_config,
    set_attention_mode,
    state_width,
    tower_config,
)
from gemma4vec.model.backbone.export_wrapper import wrap_for_export
from gemma4vec.model.backbone.gelu import use_sigmoid_gelu
from gemma4vec.model.backbone.kernel_options import fast_paths
from gemma4vec.model.backbone.last_token_layer import add_last_tokens, enable_last_token_only
from gemma4vec.model.backbone.layer_hooks import record_states
from gemma4vec.model.backbone.masks import attention_mask
from gemma4vec.model.backbone.rotary import use_fused_rotary
from gemma4vec.model.bases.load_errors import base_errors
from gemma4vec.model.bases.sentence_transformers_folder import transformer_folder
from gemma4vec.model.packing.embedding_overrides import EmbeddingOverrides
from gemma4vec.model.packing.packed_batch import PackedBatch

# Selective checkpointing. Compiled layers keep this fraction of their activations. Others keep matrix products with at
# least this inner dimension (values: the index of the first operand).
KEPT_FRACTION, _MIN_INNER_SIZE = 0.5, 256
_PRODUCTS = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1, torch.ops.aten.bmm.default: 0}


class Backbone(nn.Module):
    """A text tower without its language-model head, which reads packed or padded layouts.

    Attributes:
        causal: whether a token sees no later token.
        window: sliding window in tokens, as in the base's config file; None: no layer has one.
        reach: what a token sees in a layer with a sliding window; None: no layer has one.
        compiled: whether its layers are compiled.
        fast: the optional kernels in use; choose them before layers are compiled.
        compile_failed: whether compilation failed; it is not tried again.
        remarks: lines that were logged about it: many short-lived embedders share one backbone, and log a line once.
    """

    model: Any  # a transformers model; its attributes are not nn.Module's

    def __init__(self, model: nn.Module, *, causal: bool, architecture: Architecture, window: int | None):
        super().__init__()
        check_attention(model)
        self.model = model
        self.causal = causal
        self.architecture = architecture
        self.window = window
        self.reach: Reach | None = None
        if window is not None:
            self.reach = Reach(window - 1, 0) if causal else architecture.reach(window)
        # Models that cap scores have no fused attention. The library's eager function adds masks, ours are boolean.
        self.plain_attention = "sdpa" if library_attention(self.config) == "sdpa" else attention.NAME
        self.fast = fast_paths(self.device.type)
        self.compiled = False
        self.compile_failed = False
        self.remarks: set[str] = set()
        self.checkpointed = False
        self.selective = False
        self._has_last_token_layer = False
        self.exposes_saved_tensors = False

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
        """D, the width of a final token state."""
        return state_width(self.config)

    @property
    def input_size(self) -> int:
        """Width of a token state that enters the first layer. It differs from D in EmbeddingGemma 2 alone."""
        return int(self.config.hidden_size)

    @property
    def may_share_prefixes(self) -> bool:
        """Whether layouts may store shared prefixes once (`model.packing.shared_prefix`)."""
        return self.causal and self.architecture.may_share_prefixes

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the base's weights."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the base's weights."""
        return next(self.model.parameters()).device

    def supports_last_token_only(self, layout: PackedBatch) -> bool:
        """Whether `forward` supports `last_token_only` for this layout."""
        able = self._has_last_token_layer and not self.checkpointed and not self.fast.flex_attention
        return self.compiled and self.fast.takes(layout) and self.fast.last_token_layer and able

    def forward(
        self,
        layout: PackedBatch,
        *,
        all_layers: bool = False,
        last_token_only: bool = False,
        overrides: EmbeddingOverrides | None = None,
    ) -> Tensor:
        """States of the real tokens after the final norm, document after document: `[T, D]`.

        Args:
            layout: the tokens.
            all_layers: return `[L + 1, T, D]` instead: the input embeddings, then the states after each layer. The last
                entry is taken after the final norm, so it equals the plain result. Takes memory for (L + 1) * T * D
                values, temporarily twice that; gradient checkpointing does not reduce it.
            last_token_only: return the states of the documents' last tokens alone, `[N, D]`, in less time
                (`model.backbone.last_token_layer`). Requires `supports_last_token_only`.
            overrides: vectors that replace the input embeddings of some cells.

        Raises:
            InputError: `all_layers` on a base whose final states are wider than the others (EmbeddingGemma 2).
        """
        if all_layers and self.hidden_size != self.input_size:
            raise InputError(
                f"model.readout: it mixes layers, but the last states of a {self.config.model_type!r} are "
                f"{self.hidden_size} wide and the others {self.input_size}; choose another readout or base"
            )
        layout = (add_last_tokens(layout) if last_token_only else layout).to(self.device)
        use_compiled = self.compiled and self.fast.takes(layout)
        upstream.set_attention_function(self.config, self._attention(layout, use_compiled))
        layer: Any  # the library sets attributes that are not typed
        if self.selective:
            for layer in self.layers:  # the compiler does its own planning, and hooks must see all saved tensors
                layer.gradient_checkpointing = not (use_compiled or self.exposes_saved_tensors)
        budget = KEPT_FRACTION if self.selective else 1.0
        with ExitStack() as stack:
            if use_compiled:
                stack.enter_context(upstream.activation_memory_budget(budget))
            elif self.compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if all_layers:
                with record_states(self.layers) as between:
                    last_RCD = self._states(layout, overrides)
                every = [*between[:-1], last_RCD]
                return torch.stack([x.flatten(0, 1).index_select(0, layout.cells_T) for x in every])
            if last_token_only and layout.last_tokens is not None:
                last_RM, places_N = layout.last_tokens
                return self._states(layout, overrides, last_RM=last_RM).flatten(0, 1).index_select(0, places_N)
            states_RCD = self._states(layout, overrides)
        return states_RCD.flatten(0, 1).index_select(0, layout.cells_T)

    def _attention(self, layout: PackedBatch, use_compiled: bool) -> str:
        """Name of the attention function for the layers."""
        # Uncompiled in a compiled model, block-sparse attention would store all scores.
        if self.fast.flex_attention and use_compiled == self.compiled:
            return attention.FLEX
        short = layout.input_ids_RC.shape[1] <= attention.LONGEST_ROW
        if self.fast.matmul_attention and use_compiled and short:
            return attention.NAME
        return attention.SHARED if layout.shared and self.plain_attention == "sdpa" else self.plain_attention

    def _states(self, layout: PackedBatch, overrides: EmbeddingOverrides | None, **settings: Tensor) -> Tensor:
        states_RCD: Tensor = self.model(
            **self.inputs(layout, overrides),
            position_ids=layout.positions_RC,
            attention_mask=self._masks(layout),
            use_cache=False,
            **settings,
        ).last_hidden_state
        return states_RCD

    def library_states(self, input_ids_RC: Tensor) -> Tensor:
        """States `[R, C, D]` of rows of one document each, computed by the library with its own masks.

        For the attention probe alone: other programs that open the saved model will compute these.
        """
        upstream.set_attention_function(self.config, library_attention(self.config))
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            states_RCD: Tensor = self.model(input_ids=input_ids_RC.to(self.device), use_cache=False).last_hidden_state
        return states_RCD

    def inputs(self, layout: PackedBatch, overrides: EmbeddingOverrides | None) -> dict[str, Tensor]:
        """What the library's model reads of a layout."""
        if overrides is None:
            return {"input_ids": layout.input_ids_RC}
        embeddings_RCD = overrides.put_into(self.input_states(layout.input_ids_RC))
        if self.architecture.multiplies_input:
            embeddings_RCD = embeddings_RCD / self.input_size**0.5
        inputs = {"inputs_embeds": embeddings_RCD}
        if getattr(self.model, "hidden_size_per_layer_input", 0):  # Gemma 4 cannot infer tokens from embeddings
            inputs["per_layer_inputs"] = self.model.get_per_layer_inputs(layout.input_ids_RC)
        return inputs

    def input_states(self, input_ids: Tensor) -> Tensor:
        """Embeddings of token ids as they enter the first layer, `[..., input_size]`."""
        states: Tensor = self.model.get_input_embeddings()(input_ids.to(self.device))
        return states * self.input_size**0.5 if self.architecture.multiplies_input else states

    def _masks(self, layout: PackedBatch) -> Any:
        """The layers' attention mask, or one for each type of layer."""

        flex = upstream.attention_function_name(self.config) == attention.FLEX

        def mask(reach: Reach | None) -> Any:
            seen = attention_mask(
                layout.positions_RC,
                layout.segments_RC,
                causal=self.causal,
                reach=reach,
                prefix_RC=layout.prefix_RC,
                shared=layout.shared,
            )
            return attention.block_mask(seen) if flex else seen

        full = mask(None)
        nearest = None if self.reach is None else self.reach.back if self.causal else min(self.reach)
        # If no two tokens of a document can be farther apart, the window has no effect.
        near = nearest is None or layout.shared + layout.input_ids_RC.shape[1] <= nearest + 1
        sliding = full if near else mask(self.reach)
        if not self.architecture.masks_by_layer_type:
            return sliding
        return {"full_attention": full, "sliding_attention": sliding}

    def compile_layers(self) -> None:
        """Compile each decoder layer separately, once for all heights and widths of a rectangle."""
        # Layer types, training and inference soon exceed the default of 8 variants, which is an error.
        # An adapter's scale must be a constant: as a variable, the layer could not run twice in one graph.
        upstream.set_compiler_limits(recompile_limit=64)
        if self.fast.sigmoid_gelu:
            use_sigmoid_gelu(self.layers)
        use_fused_rotary(self.layers[0], self.fast.fused_rotary)
        if self.architecture.caches_keys and not self.checkpointed and not self._has_last_token_layer:
            enable_last_token_only(self.layers[-1])
            self._has_last_token_layer = True
        for layer in self.layers:
            layer.compile(dynamic=True, fullgraph=True)
        self.compiled = True

    def uncompile_layers(self) -> None:
        """Undo `compile_layers`."""
        for layer in self.layers:
            upstream.drop_compiled_call(layer)
        self.compiled = False

    def save_pretrained(self, folder: Path, dtype: torch.dtype) -> None:
        """Write weights in `dtype` and the config, for AutoModel and sentence-transformers to open."""
        # Keep the tower's names: the library would restore the prefix of the larger model that it was loaded from.
        wrap_for_export(self.model.to(dtype)).save_pretrained(folder, save_original_format=False)

    def use_gradient_checkpointing(self, how: Literal["selective"] | bool = True) -> None:
        """Store only each layer's input for the backward pass and recompute the rest.

        Layers without a backward pass store nothing.

        Args:
            how: "selective" also keeps the results of attention and of large matrix products, so that recomputation is
                cheap (Korthikanti et al. 2022, arXiv:2205.05198, section 5). For compiled layers, the compiler chooses
                what to keep within half of the memory. False switches checkpointing off.
        """
        selective = how == "selective"
        if self.compiled and selective != self.selective:
            torch.compiler.reset()  # layers are planned again
        self.selective, self.checkpointed = selective, how is True
        layer: Any
        if how is False:
            for layer in self.layers:
                layer.gradient_checkpointing = False
            return
        settings: dict[str, Any] = {"use_reentrant": False}
        if selective:
            settings["context_fn"] = partial(create_selective_checkpoint_contexts, selective_policy)
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
        # With adapters, the library by default makes the embeddings require a gradient, which reentrant checkpoints
        # need. Ours do not, and the backward pass would run through all frozen layers below the first adapted one.
        self.model.disable_input_require_grads()
        for layer in self.layers:
            upstream.wrap_checkpointing(layer, partial(_checkpoint_if_needed, layer))

    @contextmanager
    def expose_saved_tensors(self) -> Iterator[None]:
        """While open, `saved_tensors_hooks` see every tensor that is kept for the backward pass.

        Selective checkpointing of uncompiled layers hides results in its own cache, so it is off meanwhile. More is
        kept then: counts are an upper bound.
        """
        self.exposes_saved_tensors = True
        try:
            yield
        finally:
            self.exposes_saved_tensors = False


def _checkpoint_if_needed(layer: nn.Module, checkpoint: upstream.LayerCall) -> upstream.LayerCall:
    """Checkpoint a layer only if its weights or its inputs require a gradient."""
    trained = any(parameter.requires_grad for parameter in layer.parameters())

    def run(call: upstream.LayerCall, *args: Any) -> Any:
        needed = trained or any(isinstance(value, Tensor) and value.requires_grad for value in args)
        return checkpoint(call, *args) if needed else call(*args)

    return run


def selective_policy(_: Any, operator: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    """Selective checkpointing keeps attention, and products with a large inner dimension.

    The cost of each value of a product is its inner dimension. An adapter's second product, whose inner dimension is
    the rank, is cheap to recompute, and its result is as large as the layer's own.
    """
    place = _PRODUCTS.get(operator)
    is_large = place is not None and args[place].shape[-1] >= _MIN_INNER_SIZE
    kept = is_large or "scaled_dot_product" in str(operator)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _silence_transformers() -> None:
    """Silence progress bars of short loads, and the warning that the LM head was not loaded, which is intended."""
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
    layers: int | None = None,
) -> Backbone:
    """Load the text tower at `path`, or its first `layers` layers.

    The attention mode is set before loading: on a loaded config, the sliding window would keep twice its size. From a
    multimodal checkpoint, only the text tower's weights are read.

    Args:
        path: folder of a Hugging Face or sentence-transformers model.
        causal: the attention mode.
        dtype, device: of the weights.
        allow_untested: accept a decoder whose model type was never verified.

    Raises:
        InputError: the folder has no text tower of a verified type; or the tower cannot attend as requested; or weights
            are missing.
    """
    _silence_transformers()
    with base_errors(path):
        whole_config = read_config(path)
        config, architecture, window = set_attention_mode(
            first_layers(tower_config(whole_config), layers), causal=causal, allow_untested=allow_untested
        )
        whole = ENCLOSING_MODELS.get(whole_config.model_type)
        model, loaded = model_class(config).from_pretrained(
            transformer_folder(path),
            config=config,
            dtype=dtype,
            attn_implementation=library_attention(config),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            key_mapping={whole.prefix: ""} if whole else None,
            output_loading_info=True,
        )
    if loaded["missing_keys"]:
        raise InputError(
            f"model.base: {path} lacks {len(loaded['missing_keys'])} weights of a {config.model_type!r}, "
            f"first {min(loaded['missing_keys'])!r}; is the download complete?"
        )
    model.config.use_cache = False
    return Backbone(model.to(device), causal=causal, architecture=architecture, window=window)
