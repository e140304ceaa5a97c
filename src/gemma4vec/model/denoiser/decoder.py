"""The decoder of an encoder-decoder in the layout of T5Gemma 2: the base's layers again, with merged attention.

It starts as the base. Its embeddings are the encoder's (tied), as is the language-model head. It serves training alone:
what it learns is in checkpoints, and the saved model is the encoder.

Shapes: R rows, C columns, E columns of encoder states, T real tokens, D hidden size.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from gemma4vec.errors import InputError
from gemma4vec.model import upstream
from gemma4vec.model.backbone.architectures import Reach
from gemma4vec.model.backbone.attention import LONGEST_ROW
from gemma4vec.model.backbone.backbone import KEPT_FRACTION, Backbone, selective_policy
from gemma4vec.model.backbone.gelu import use_sigmoid_gelu
from gemma4vec.model.denoiser.layout import DecoderLayout
from gemma4vec.model.denoiser.merged_layer import MergedLayer
from gemma4vec.recipe import denoising
from gemma4vec.recipe.lora import Lora

MODEL_TYPE = "gemma3_text"
"""The one model type whose layers were verified with merged attention (tests/model/denoiser)."""


class Decoder(nn.Module):
    """Restores hidden tokens from an encoder's states.

    Attributes:
        layers: its layers, first to last.
        norm: the norm after the last one.
        kinds: the attention type of each layer.
        compiled: whether its layers are compiled.
    """

    norm: Any

    def __init__(self, backbone: Backbone, settings: denoising.Decoder, *, seed: int = 0):
        """Copy the base's last layers, or share them.

        Args:
            backbone: the encoder, with the weights that the decoder starts from. LoRA adapters are left out of copies.
            settings: the recipe's.
            seed: initial values of adapters depend on it alone.

        Raises:
            InputError: it is no Gemma 3; or it has fewer layers, or other linear layers, than the recipe names.
        """
        super().__init__()
        kind, every = str(backbone.config.model_type), len(backbone.layers)
        if kind != MODEL_TYPE:
            raise InputError(f"ul2 is verified for Gemma 3 alone, the base is a {kind!r}; use masked_next_token")
        count = every if settings.layers == "all" else settings.layers
        if count > every:
            raise InputError(f"decoder.layers: {count} requested, the base has {every} layers")
        numbers = range(every - count, every)
        self.kinds = [str(backbone.config.layer_types[number]) for number in numbers]
        self.shared = settings.shared
        self.compiled = False
        self.compile_failed = False
        trained = not settings.shared and settings.lora is None
        chosen = [backbone.layers[number] for number in numbers]
        norm = backbone.model.norm
        if not settings.shared:
            with torch.device("meta"):  # no values, and nothing is drawn from a random generator
                empty: list[Any] = [
                    type(layer)(backbone.config, number) for layer, number in zip(chosen, numbers, strict=True)
                ]  # type: ignore[call-arg]
                empty_norm = type(norm)(backbone.hidden_size, eps=norm.eps)
            chosen = [_copy_weights(layer, copy, trained) for layer, copy in zip(chosen, empty, strict=True)]
            norm = _copy_weights(norm, empty_norm, trained)
        self.layers = nn.ModuleList(MergedLayer(layer) for layer in chosen)
        self.norm = norm
        if settings.lora is not None:
            _add_lora(self.layers, settings.lora, backbone.dtype, seed)
        self.own = {
            name: parameter
            for name, parameter in self.named_parameters()
            if not settings.shared and parameter.requires_grad
        }

    @property
    def has_dropout(self) -> bool:
        """Whether any module has dropout."""
        return any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.modules())

    def forward(self, layout: DecoderLayout, encoded_TD: Tensor, backbone: Backbone) -> Tensor:
        """States of the decoder's real tokens after its norm, document after document, `[T, D]`.

        Args:
            layout: its tokens, and the encoder states that each row attends to.
            encoded_TD: states of all documents of the batch, as the encoder returns them.
            backbone: the encoder, whose embeddings and rotary embeddings it shares.
        """
        layout = layout.to(backbone.device)
        tokens = layout.tokens
        use_compiled = self.compiled and layout.compilable
        states_RCD = backbone.input_states(tokens.input_ids_RC)
        encoded_RED = encoded_TD.index_select(0, layout.states_RE.flatten()).unflatten(0, tuple(layout.states_RE.shape))
        rotary = {
            kind: backbone.model.rotary_emb(states_RCD, tokens.positions_RC, kind) for kind in dict.fromkeys(self.kinds)
        }
        masks = self._masks(layout, backbone)
        seen = layout.states_RE.shape[1] + tokens.input_ids_RC.shape[1]
        matmul = backbone.fast.matmul_attention and use_compiled and seen <= 2 * LONGEST_ROW
        with ExitStack() as stack:
            if use_compiled:
                stack.enter_context(upstream.activation_memory_budget(KEPT_FRACTION if backbone.selective else 1.0))
            elif self.compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for layer, kind in zip(self.layers, self.kinds, strict=True):
                run = _checkpointed(layer, backbone, use_compiled)
                states_RCD = run(states_RCD, encoded_RED, *rotary[kind], masks[kind], matmul)
        states: Tensor = self.norm(states_RCD)
        return states.flatten(0, 1).index_select(0, tokens.cells_T)

    def _masks(self, layout: DecoderLayout, backbone: Backbone) -> dict[str, Tensor]:
        full = layout.mask(None)
        window = backbone.window
        near = window is None or layout.tokens.input_ids_RC.shape[1] <= window
        sliding = full if near or window is None else layout.mask(Reach(window - 1, 0))
        return {"full_attention": full, "sliding_attention": sliding}

    def compile_layers(self, backbone: Backbone) -> None:
        """Compile the layers as the encoder's are compiled (`training.prepare_model.compile_for_training`)."""
        if backbone.fast.sigmoid_gelu:
            use_sigmoid_gelu(self.layers)
        if backbone.fast.fused_lora and not self.shared:
            from gemma4vec.model.adapters.fused_lora import fuse_lora  # imports peft, which only LoRA needs

            fuse_lora(self)
        for layer in self.layers:
            layer.compile(dynamic=True, fullgraph=True)
        self.compiled = True

    def uncompile_layers(self) -> None:
        """Undo `compile_layers`, for good: the compiler failed."""
        for layer in self.layers:
            upstream.drop_compiled_call(layer)
        self.compiled, self.compile_failed = False, True


def _checkpointed(layer: nn.Module, backbone: Backbone, compiled: bool) -> Callable[..., Tensor]:
    """The layer's call, under gradient checkpointing where the encoder's layers are."""
    if backbone.checkpointed:
        return partial(checkpoint, layer, use_reentrant=False)
    if backbone.selective and not compiled and not backbone.exposes_saved_tensors:
        contexts = partial(create_selective_checkpoint_contexts, selective_policy)
        return partial(checkpoint, layer, use_reentrant=False, context_fn=contexts)
    return layer


def _copy_weights(source: nn.Module, target: nn.Module, trained: bool) -> nn.Module:
    """Give `target` the weights of `source`, without adapters: copies that are trained, or frozen ones.

    Frozen weights that are frozen in `source` too are the same tensors, which take no memory.
    """
    for name, value in source.named_parameters():
        if "lora_" in name:
            continue
        *path, last = name.replace("base_layer.", "").split(".")
        kept = value if not trained and not value.requires_grad else nn.Parameter(value.detach().clone(), trained)
        setattr(target.get_submodule(".".join(path)), last, kept)
    return target


def _add_lora(layers: nn.ModuleList, lora: Lora, dtype: torch.dtype, seed: int) -> None:
    """Add adapters to a frozen decoder, in the base's dtype.

    Raises:
        InputError: a named module does not exist, or `last_layers` exceeds the number of layers.
    """
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import

    from gemma4vec.model.adapters.lora import first_adapted_layer

    first = first_adapted_layer(len(layers), lora, "decoder.lora.last_layers")
    names = [name for name, module in layers.named_modules() if isinstance(module, nn.Linear)]
    if lora.modules != "all-linear":
        known = sorted({name.rsplit(".", 1)[-1] for name in names})
        if odd := [wanted for wanted in lora.modules if wanted not in known]:
            raise InputError(f"decoder.lora.modules: the base has no {odd[0]!r}; it has {', '.join(known)}")
        names = [name for name in names if name.rsplit(".", 1)[-1] in lora.modules]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft only divides it
        lora_dropout=lora.dropout,
        target_modules=[name for name in names if int(name.split(".", 1)[0]) >= first],
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        bias="none",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, layers)
    for name, parameter in layers.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)
