"""A decoder that returns token states: loading, attention mode, isolation of packed documents, compilation.

Shapes: R rows, C columns, T real tokens, D hidden size, L layers.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers.utils import logging as transformers_logging

from gemma4vec.errors import InputError
from gemma4vec.model.backbone import attention
from gemma4vec.model.backbone.families import (
    WHOLES,
    Family,
    Reach,
    attending,
    library_attention,
    model_class,
    read_config,
    state_width,
    text_of,
)
from gemma4vec.model.backbone.gelu import use_sigmoid_gelu
from gemma4vec.model.backbone.kernel_options import fast_paths
from gemma4vec.model.backbone.last_token_layer import take_ends, with_ends
from gemma4vec.model.backbone.layer_hooks import recorded
from gemma4vec.model.backbone.masks import attention_mask
from gemma4vec.model.backbone.openable_tower import openable
from gemma4vec.model.backbone.rotary import use_fused_rotary
from gemma4vec.model.bases.sentence_transformers_folder import transformer_folder
from gemma4vec.model.packing.embedding_overrides import EmbeddingOverrides
from gemma4vec.model.packing.packed_batch import PackedBatch

# Selective checkpointing: the share of their memory that compiled layers may keep; of others, matrix products (and
# where their first factor stands) with an inner dimension of this at least.
_BUDGET, _DEAR = 0.5, 256
_PRODUCTS = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1, torch.ops.aten.bmm.default: 0}


class Backbone(nn.Module):
    """A text tower without its language-model head, driven by layouts.

    Attributes:
        causal: whether a token sees only what comes before it.
        reach: what a token sees in a layer with a sliding window; None: no layer has one.
        compiled: whether its layers are compiled.
        fast: which of the faster ways to compute the same are taken; to be chosen before layers are compiled.
        given_up: whether they could not be, and it is not to be tried again.
    """

    model: Any  # a transformers model; its attributes are not nn.Module's

    def __init__(self, model: nn.Module, *, causal: bool, family: Family, window: int | None):
        super().__init__()
        self.model = model
        self.causal = causal
        self.family = family
        self.reach: Reach | None = None
        if window is not None:
            self.reach = Reach(window - 1, 0) if causal else family.reach(window)
        # Where the library has no fused attention (it caps scores), ours takes our masks; the library's would add them.
        self.plain_attention = "sdpa" if library_attention(self.config) == "sdpa" else attention.NAME
        self.fast = fast_paths(self.device.type)
        self.compiled = False
        self.given_up = False
        self.checkpointed = False
        self.selective = False
        self._takes_ends = False
        self._counted = False

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
        """D, the width of a token state that leaves the model."""
        return state_width(self.config)

    @property
    def input_size(self) -> int:
        """Width of a token state that enters the first layer; the same but for EmbeddingGemma 2."""
        return int(self.config.hidden_size)

    @property
    def may_share_prefixes(self) -> bool:
        """Whether layouts may hold a beginning once for all documents that have it (see
        `model.packing.shared_prefix`)."""
        return self.causal and self.family.may_share_prefixes

    @property
    def dtype(self) -> torch.dtype:
        """Type of the base's weights."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the base's weights are."""
        return next(self.model.parameters()).device

    def computes_ends(self, layout: PackedBatch) -> bool:
        """Whether it can leave out of the last layer what `only_ends` does not need."""
        able = self._takes_ends and not self.checkpointed and not self.fast.flex_attention
        return self.compiled and layout.compilable and self.fast.last_token_layer and able

    def forward(
        self,
        layout: PackedBatch,
        *,
        all_layers: bool = False,
        only_ends: bool = False,
        replaced: EmbeddingOverrides | None = None,
    ) -> Tensor:
        """States after the last layer's norm for the real tokens, document after document: `[T, D]`.

        Args:
            layout: the tokens.
            all_layers: give `[L + 1, T, D]` instead: the input embeddings, then the states after each layer. The last
                entry is taken after the final norm, so it equals the plain result. Costs (L + 1) * T * D values, twice
                over while they are gathered; gradient checkpointing does not save them.
            only_ends: give the state of each document's last token alone, `[N, D]` (see
            `model.backbone.last_token_layer`); only where
                `computes_ends` says so.
            replaced: input embeddings that stand in for those of some cells.

        Raises:
            InputError: all layers are asked of a base whose last states are wider than the others (EmbeddingGemma 2).
        """
        if all_layers and self.hidden_size != self.input_size:
            raise InputError(
                f"model.readout: it mixes layers, but the last states of a {self.config.model_type!r} are "
                f"{self.hidden_size} wide and the others {self.input_size}; choose another readout or base"
            )
        layout = (with_ends(layout) if only_ends else layout).to(self.device)
        run_compiled = self.compiled and layout.compilable
        self.config._attn_implementation = self._attention(layout, run_compiled)
        layer: Any  # what the library writes into it is no module
        if self.selective:
            for layer in self.layers:  # a compiler plans for itself, and who counts wants to see what is kept
                layer.gradient_checkpointing = not (run_compiled or self._counted)
        budget = _BUDGET if self.selective else 1.0
        with ExitStack() as stack:
            if run_compiled:
                stack.enter_context(torch._functorch.config.patch(activation_memory_budget=budget))
            elif self.compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if all_layers:
                with recorded(self.layers) as between:
                    last_RCD = self._states(layout, replaced)
                every = [*between[:-1], last_RCD]
                return torch.stack([x.flatten(0, 1).index_select(0, layout.cells_T) for x in every])
            if only_ends and layout.ends is not None:
                ends_RM, places_N = layout.ends
                return self._states(layout, replaced, ends_RM=ends_RM).flatten(0, 1).index_select(0, places_N)
            states_RCD = self._states(layout, replaced)
        return states_RCD.flatten(0, 1).index_select(0, layout.cells_T)

    def _attention(self, layout: PackedBatch, run_compiled: bool) -> str:
        """Name of the attention function that the layers are to call."""
        if self.fast.flex_attention and run_compiled == self.compiled:  # kept from compiling, it would hold all scores
            return attention.FLEX
        short = layout.input_ids_RC.shape[1] <= attention.LONGEST_ROW
        if self.fast.matmul_attention and run_compiled and short:
            return attention.NAME
        return attention.SHARED if layout.shared and self.plain_attention == "sdpa" else self.plain_attention

    def _states(self, layout: PackedBatch, replaced: EmbeddingOverrides | None, **settings: Tensor) -> Tensor:
        states_RCD: Tensor = self.model(
            **self._inputs(layout, replaced),
            position_ids=layout.positions_RC,
            attention_mask=self._masks(layout),
            use_cache=False,
            **settings,
        ).last_hidden_state
        return states_RCD

    def library_states(self, input_ids_RC: Tensor) -> Tensor:
        """States `[R, C, D]` of whole rows, one document each, as the library computes them with masks of its own.

        Not for use: it is what other programs that open the saved model will see, for the probe to look at.
        """
        self.config._attn_implementation = library_attention(self.config)
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            states_RCD: Tensor = self.model(input_ids=input_ids_RC.to(self.device), use_cache=False).last_hidden_state
        return states_RCD

    def _inputs(self, layout: PackedBatch, replaced: EmbeddingOverrides | None) -> dict[str, Tensor]:
        if replaced is None:
            return {"input_ids": layout.input_ids_RC}
        embeddings_RCD = replaced.put_into(self.input_states(layout.input_ids_RC))
        if self.family.multiplies_input:
            embeddings_RCD = embeddings_RCD / self.input_size**0.5
        inputs = {"inputs_embeds": embeddings_RCD}
        if getattr(self.model, "hidden_size_per_layer_input", 0):  # Gemma 4 cannot tell tokens from embeddings
            inputs["per_layer_inputs"] = self.model.get_per_layer_inputs(layout.input_ids_RC)
        return inputs

    def input_states(self, input_ids: Tensor) -> Tensor:
        """The embeddings of token ids as they enter the first layer: a dimension of `input_size` is added behind."""
        states: Tensor = self.model.get_input_embeddings()(input_ids.to(self.device))
        return states * self.input_size**0.5 if self.family.multiplies_input else states

    def _masks(self, layout: PackedBatch) -> Any:
        """What the layers' attention takes: a mask, or one for each type of layer."""

        def mask(reach: Reach | None) -> Any:
            seen = attention_mask(
                layout.positions_RC,
                layout.segments_RC,
                causal=self.causal,
                reach=reach,
                beginnings_RC=layout.beginnings_RC,
                shared=layout.shared,
            )
            return attention.block_mask(seen) if self.config._attn_implementation == attention.FLEX else seen

        full = mask(None)
        nearest = None if self.reach is None else self.reach.back if self.causal else min(self.reach)
        # Where no two tokens of a document can be far enough apart, the window does not matter.
        near = nearest is None or layout.shared + layout.input_ids_RC.shape[1] <= nearest + 1
        sliding = full if near else mask(self.reach)
        if not self.family.masks_by_layer_type:
            return sliding
        return {"full_attention": full, "sliding_attention": sliding}

    def compile_layers(self) -> None:
        """Compile each decoder layer on its own, once for all heights and widths of a rectangle."""
        # Layer types, training and inference: the default of 8 variants is soon used up, and then it fails.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        # An adapter's scale is a constant; as a variable, the layer could not be run twice in one graph.
        torch._dynamo.config.specialize_float = True
        if self.fast.sigmoid_gelu:
            use_sigmoid_gelu(self.layers)
        use_fused_rotary(self.layers[0], self.fast.fused_rotary)
        if self.family.caches_keys and not self.checkpointed and not self._takes_ends:
            take_ends(self.layers[-1])
            self._takes_ends = True
        for layer in self.layers:
            layer.compile(dynamic=True, fullgraph=True)
        self.compiled = True

    def uncompile_layers(self) -> None:
        """Run the layers as they are again."""
        for layer in self.layers:
            layer._compiled_call_impl = None
        self.compiled = False

    def save_pretrained(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the weights in `dtype` and the config so that AutoModel and sentence-transformers open them."""
        # The names as they are: the library would put back the prefix of the whole model that this was a part of.
        openable(self.model.to(dtype)).save_pretrained(folder, save_original_format=False)

    def use_gradient_checkpointing(self, how: Literal["selective"] | bool = True) -> None:
        """Keep only each layer's input for the backward pass and compute the rest again; nothing of layers without one.

        "selective" keeps the results of large matrix products and of attention too, so that what is computed again is
        cheap (Korthikanti et al. 2022, arXiv:2205.05198, section 5). Where layers are compiled, the compiler plans it:
        with half of the memory that it could use, by the cheapest choice of what to compute again. False: no more.

        Left alone, the library makes the embeddings need a gradient where there are adapters (reentrant checkpoints
        need that, these do not): the backward pass would run through all frozen layers below the first adapted one.
        """
        selective = how == "selective"
        if self.compiled and selective != self.selective:
            torch._dynamo.reset()  # they are planned anew
        self.selective, self.checkpointed = selective, how is True
        layer: Any
        if how is False:
            for layer in self.layers:
                layer.gradient_checkpointing = False
            return
        settings: dict[str, Any] = {"use_reentrant": False}
        if selective:
            settings["context_fn"] = partial(create_selective_checkpoint_contexts, _kept_in_selection)
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
        self.model.disable_input_require_grads()
        for layer in self.layers:
            layer._gradient_checkpointing_func = _where_needed(layer, layer._gradient_checkpointing_func)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """While this is open, nothing is kept where hooks for saved tensors do not see it.

        Selective checkpointing of uncompiled layers keeps results in a store of its own. Without it more is kept: who
        counts has an upper bound.
        """
        self._counted = True
        try:
            yield
        finally:
            self._counted = False


def _where_needed(layer: nn.Module, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Checkpoint a layer only where its weights or what enters it need a gradient."""
    trained = any(parameter.requires_grad for parameter in layer.parameters())

    def run(call: Callable[..., Any], *args: Any) -> Any:
        needed = trained or any(isinstance(value, Tensor) and value.requires_grad for value in args)
        return checkpoint(call, *args) if needed else call(*args)

    return run


def _kept_in_selection(_: Any, operator: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    """What selective checkpointing keeps: attention, and products that are dear for what they give.

    A product costs as many operations a value as its inner dimension: an adapter's second one, of its rank, is made
    again for little, and its result is as large as the layer's own.
    """
    place = _PRODUCTS.get(operator)
    dear = place is not None and args[place].shape[-1] >= _DEAR
    kept = dear or "scaled_dot_product" in str(operator)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


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
    """Load the text tower at `path` with the attention mode set at load, where it takes effect.

    Setting the mode on a loaded config would leave the sliding window at twice its size. Of a multimodal checkpoint
    only the text tower's weights are read.

    Raises:
        InputError: the folder holds no text tower of a verified type, or one that cannot attend as asked, or its
            weights are not all there.
    """
    _quiet()
    whole_config = read_config(path)
    config, family, window = attending(text_of(whole_config), causal=causal, allow_untested=allow_untested)
    whole = WHOLES.get(whole_config.model_type)
    model, loaded = model_class(config).from_pretrained(
        transformer_folder(path),
        config=config,
        dtype=dtype,
        attn_implementation=library_attention(config),
        local_files_only=True,
        key_mapping={whole.prefix: ""} if whole else None,
        output_loading_info=True,
    )
    if loaded["missing_keys"]:
        first = sorted(loaded["missing_keys"])[0]
        raise InputError(
            f"model.base: {path} lacks {len(loaded['missing_keys'])} weights of a {config.model_type!r}, "
            f"first {first!r}; is the download complete?"
        )
    model.config.use_cache = False
    return Backbone(model.to(device), causal=causal, family=family, window=window)
