"""Model types: where the text tower is, which config keys set the attention mode, how far sliding windows reach.

Every model type listed here is verified in each attention mode and layout by tests/model/backbone/test_backbone.py; see
model/README.md, "A new model type". Nothing here reads a weight.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig

from gemma4vec.errors import InputError
from gemma4vec.model import upstream
from gemma4vec.model.bases.foreign_code import needs_own_code
from gemma4vec.model.bases.sentence_transformers_folder import transformer_folder


class Reach(NamedTuple):
    """Number of tokens before and after itself that a token sees in a layer with a sliding window."""

    back: int
    ahead: int


@dataclass(frozen=True)
class Architecture:
    """How to drive a text tower of the transformers library.

    Attributes:
        bidirectional: config keys that make attention bidirectional.
        causal: config keys that make it causal; None: an encoder, which is always bidirectional.
        reach: what a token sees with bidirectional attention in a layer with a window of that many tokens (the config
            file's value). With causal attention it sees itself and the `window - 1` tokens before it.
        masks_by_layer_type: whether it takes one mask for each of its layer types.
        tower_class: `module:class` of the tower below `transformers.models`, if AutoModel does not know it.
        multiplies_input: whether its forward pass multiplies input embeddings by sqrt(D).
        width: config key with the width of the final states.
        unverified: config keys that, when true, switch on a feature that no test covers.
        may_share_prefixes: whether, with causal attention, tokens influence each other by attention alone.
        caches_keys: whether each layer passes its keys and values to the library's cache, as
            `model.backbone.last_token_layer` requires.
    """

    bidirectional: Mapping[str, Any]
    causal: Mapping[str, Any] | None
    reach: Callable[[int], Reach]
    masks_by_layer_type: bool = True
    tower_class: str | None = None
    multiplies_input: bool = False
    width: str = "hidden_size"
    unverified: tuple[str, ...] = ()
    may_share_prefixes: bool = True
    caches_keys: bool = False


def _radius(window: int) -> Reach:
    """The library's usual bidirectional window, inclusive."""
    return Reach(window, window)


def _halved(window: int) -> Reach:
    """Gemma 3: the config halves the window and adds one; the mask is exclusive."""
    return Reach(window // 2, window // 2)


def _halved_radius(window: int) -> Reach:
    """Gemma 4: halved as in Gemma 3, but the mask is inclusive, so one token more on either side."""
    return Reach(window // 2 + 1, window // 2 + 1)


def _shared_out(window: int) -> Reach:
    """T5Gemma 2: `window` tokens in total, itself included; if `window` is even, the extra token comes after."""
    return Reach((window + 1) // 2 - 1, window // 2)


_GEMMA4 = Architecture(
    {"use_bidirectional_attention": "all", "is_causal": False},
    {"use_bidirectional_attention": None, "is_causal": True},
    _halved_radius,
    unverified=("enable_moe_block",),
)
_FLAG = ({"is_causal": False}, {"is_causal": True})
ARCHITECTURES = {
    "embedding_gemma2_text": Architecture({}, None, _radius, width="embedding_dim"),
    "gemma3_text": Architecture(
        {"use_bidirectional_attention": True}, {"use_bidirectional_attention": False}, _halved, caches_keys=True
    ),
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "llama": Architecture(*_FLAG, _radius, masks_by_layer_type=False, caches_keys=True),
    "mistral": Architecture(*_FLAG, _radius, masks_by_layer_type=False, caches_keys=True),
    "qwen3": Architecture(*_FLAG, _radius, caches_keys=True),
    "t5_gemma_module": Architecture(
        {}, None, _radius, tower_class="t5gemma.modeling_t5gemma:T5GemmaEncoder", multiplies_input=True
    ),
    "t5gemma2_text": Architecture({}, None, _shared_out, tower_class="t5gemma2.modeling_t5gemma2:T5Gemma2TextEncoder"),
}
# Assumed of a decoder that is not listed, if the user sets `model.allow_untested`.
_UNTESTED = Architecture(*_FLAG, _radius, masks_by_layer_type=False, may_share_prefixes=False)


@dataclass(frozen=True)
class EnclosingModel:
    """A larger model that contains the text tower.

    Attributes:
        text: path of the tower's config in the whole config.
        prefix: regular expression for the prefix of the tower's parameter names in a checkpoint.
    """

    text: tuple[str, ...]
    prefix: str


ENCLOSING_MODELS = {
    "embedding_gemma2": EnclosingModel(("text_config",), r"^(model\.)?language_model\."),
    # Older checkpoints contain a whole language model, with its own "model.".
    "gemma3": EnclosingModel(("text_config",), r"^(model\.)?language_model\.(model\.)?"),
    "gemma4": EnclosingModel(("text_config",), r"^(model\.)?language_model\."),
    "gemma4_unified": EnclosingModel(("text_config",), r"^(model\.)?language_model\."),
    "t5gemma": EnclosingModel(("encoder",), r"^(model\.)?encoder\."),
    "t5gemma2": EnclosingModel(("encoder", "text_config"), r"^(model\.)?encoder\.(text_model\.)?"),
    "t5gemma2_encoder": EnclosingModel(("text_config",), r"^(model\.)?(text_model\.)?"),
}


def read_config(path: str | Path) -> Any:
    """Config of the whole model at `path`; of the transformer, if it is a sentence-transformers folder.

    Raises:
        InputError: there is no config, or the installed transformers does not know its model type.
    """
    folder = transformer_folder(path)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library and its validators raise many types for odd settings
        needed = needs_own_code(Path(path), error)
        if needed is not None:
            raise needed from error
        raise InputError(f"model.base: cannot read {path}/config.json: {' '.join(str(error).split())[:200]}") from error
    if hasattr(config, "auto_map"):
        del config.auto_map  # the saved model would name code that it does not hold
    return config


def tower_config(config: Any) -> Any:
    """The text tower's part of a config."""
    whole = ENCLOSING_MODELS.get(config.model_type)
    for key in whole.text if whole else ():
        config = getattr(config, key)
    return config


def text_config(path: str | Path, layers: int | None = None) -> Any:
    """Config of the text tower at `path`, or of its first layers; reads no weights.

    Raises:
        InputError: as `read_config` and `first_layers`.
    """
    return first_layers(tower_config(read_config(path)), layers)


def first_layers(config: Any, count: int | None) -> Any:
    """The config of a tower's first `count` layers (layer pruning: L3Prune, arXiv:2410.14578); None: of all.

    Raises:
        InputError: it has fewer layers, or layers that lean on others: shared keys, or embeddings of each layer.
    """
    have = int(getattr(config, "num_hidden_layers", 0) or 0)
    if count is None or count == have:
        return config
    if count > have:
        raise InputError(f"model.layers: {count}, and the base has {have}; give at most {have}")
    for key in ("num_kv_shared_layers", "hidden_size_per_layer_input"):
        if getattr(config, key, None):
            raise InputError(
                f"model.layers: the layers of a {config.model_type!r} lean on each other ({key}), so they cannot be "
                "cut; leave the key out, or choose another base"
            )
    return keep_layers(config, range(count))


def keep_layers(config: Any, numbers: Sequence[int]) -> Any:
    """The config of a tower with these of its layers, in this order."""
    values = config.to_dict()
    count = int(config.num_hidden_layers)
    for key, value in values.items():
        if isinstance(value, list) and len(value) == count:
            values[key] = [value[i] for i in numbers]
    overrides = values.get("per_layer_config")
    if overrides:
        by_layer = {int(key): value for key, value in overrides.items()}
        values["per_layer_config"] = {new: by_layer[old] for new, old in enumerate(numbers) if old in by_layer}
    if values.get("num_kv_shared_layers"):
        values["num_kv_shared_layers"] = sum(i >= count - values["num_kv_shared_layers"] for i in numbers)
    values["num_hidden_layers"] = len(numbers)
    return type(config).from_dict(values)


def state_width(config: Any) -> int:
    """Width of the final states of a text tower with this config."""
    architecture = ARCHITECTURES.get(config.model_type, _UNTESTED)
    return int(getattr(config, architecture.width))


def model_class(config: Any) -> Any:
    """Class of the text tower with this config.

    Raises:
        InputError: the library has no model of this type.
    """
    tower_class = ARCHITECTURES.get(config.model_type, _UNTESTED).tower_class
    if tower_class is not None:
        return upstream.library_class(tower_class)
    found = upstream.text_model_class(config)
    if found is None:
        raise InputError(f"model.base: the transformers library has no text model for type {config.model_type!r}")
    return found


def find_architecture(config: Any, *, causal: bool, allow_untested: bool = False) -> Architecture:
    """How to drive the text tower with this config, a result of `text_config`.

    Raises:
        InputError: it is an encoder of another kind; or it cannot attend as requested; or it was never verified and
            `allow_untested` is false.
    """
    kind = config.model_type
    architecture = ARCHITECTURES.get(kind)
    if architecture is None:
        _check_is_decoder(config)
        if not allow_untested:
            raise InputError(
                f"model.base: model type {kind!r} was never verified for packed and bidirectional attention; "
                f"verified: {', '.join(verified_model_types())}; set model.allow_untested=true to use it anyway"
            )
        architecture = _UNTESTED
    if causal and architecture.causal is None:
        raise InputError(
            f"model.attention: {kind!r} is an encoder, which is always bidirectional; set model.attention=bidirectional"
        )
    for key in architecture.unverified:
        if getattr(config, key, False) and not allow_untested:
            raise InputError(
                f"model.base: {kind!r} with {key} was never verified; set model.allow_untested=true to use it"
            )
    return architecture


def set_attention_mode(
    config: Any, *, causal: bool, allow_untested: bool = False
) -> tuple[Any, Architecture, int | None]:
    """Set the attention mode of a text tower.

    The config is rebuilt from its dictionary: a mode that is set later, or passed to from_pretrained, would not halve
    the window.

    Returns:
        The new config, the architecture, and the sliding window in tokens as in the config file (None: no window).

    Raises:
        InputError: as `find_architecture`.
    """
    architecture = find_architecture(config, causal=causal, allow_untested=allow_untested)
    stored = config.to_dict()
    mode = architecture.causal if causal else architecture.bidirectional
    types = stored.get("layer_types")
    slides = "sliding_attention" in types if types and architecture.masks_by_layer_type else True
    window = stored.get("sliding_window") if slides else None
    return type(config).from_dict(stored | dict(mode)) if mode else config, architecture, window


def library_attention(config: Any) -> str:
    """The attention implementation with which the library runs a tower with this config."""
    return "sdpa" if upstream.supports_sdpa(model_class(config)) else "eager"


def check_attention(model: Any) -> None:
    """Refuse attention that cannot be computed: the scale of its scores is not positive, its dropout no probability.

    Raises:
        InputError: it names the layer.
    """
    for name, module in model.named_modules():
        scale, dropout = getattr(module, "scaling", 1.0), getattr(module, "attention_dropout", 0.0)
        if isinstance(scale, complex) or (isinstance(scale, float) and not 0 < scale < math.inf):
            raise InputError(
                f"model.base: {name} multiplies its scores by {scale}; check query_pre_attn_scalar and head_dim "
                "in its config.json"
            )
        if isinstance(dropout, int | float) and not 0 <= dropout <= 1:
            raise InputError(
                f"model.base: {name} drops {dropout} of its scores; check attention_dropout in its config.json"
            )


def verified_model_types() -> list[str]:
    """Verified model types, as a checkpoint's config.json names them."""
    parts = {"t5_gemma_module", "t5gemma2_text"}  # these have no checkpoints of their own
    return sorted((set(ARCHITECTURES) - parts) | set(ENCLOSING_MODELS))


def _check_is_decoder(config: Any) -> None:
    """Refuse models whose attention mode cannot be set by a mask."""
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"model.base: {kind!r} is an encoder-decoder that gemma4vec does not support; "
            "choose a decoder, or an encoder of t5gemma or t5gemma2"
        )
    if upstream.is_masked_language_model(kind):
        raise InputError(
            f"model.base: {kind!r} is an encoder (a masked language model), not a decoder; "
            "use it with sentence-transformers, or choose a decoder"
        )
    layers = set(getattr(config, "layer_types", None) or ())
    other = sorted(layers - {"full_attention", "sliding_attention"})
    if other or not hasattr(config, "num_attention_heads"):
        what = f"layers of {', '.join(other)}" if other else "no attention heads"
        raise InputError(
            f"model.base: {kind!r} has {what}, which no mask can make bidirectional or keep packed documents apart in"
        )
