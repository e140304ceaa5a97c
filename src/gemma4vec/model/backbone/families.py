"""What a model type needs: where its text tower is, how it is told to attend both ways, how far its windows reach.

Only model types whose every attention mode and layout is verified by tests/model/test_backbone.py stand here; see
docs/architecture.md, "A new model type". Nothing here reads a weight.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_MAPPING

from gemma4vec.errors import InputError
from gemma4vec.model.bases.sentence_transformers_folder import transformer_folder


class Reach(NamedTuple):
    """How many tokens before and behind itself a token sees in a layer with a sliding window."""

    back: int
    ahead: int


@dataclass(frozen=True)
class Family:
    """How a text tower of the transformers library is driven.

    Attributes:
        bidirectional: keys of its config that make it attend both ways.
        causal: keys that make it causal; None: it is an encoder, which only attends both ways.
        reach: what a token sees in a layer with a window of so many tokens (as the config file has it) when attention
            is bidirectional. Causal, it is always itself and the `window - 1` tokens before it.
        masks_by_layer_type: whether it takes one mask for each of its layer types.
        architecture: `module:class` of the tower below `transformers.models`, where AutoModel does not know it.
        multiplies_input: whether its forward multiplies input embeddings by sqrt(D) itself.
        width: key of the config with the width of the states that leave the model.
        unverified: keys of the config that, when true, switch on something that no test covers.
        may_share_prefixes: whether a token's state, when causal, depends on other tokens by attention alone.
        caches_keys: whether each layer hands its keys and values to the library's cache (see
        `model.backbone.last_token_layer`).
    """

    bidirectional: Mapping[str, Any]
    causal: Mapping[str, Any] | None
    reach: Callable[[int], Reach]
    masks_by_layer_type: bool = True
    architecture: str | None = None
    multiplies_input: bool = False
    width: str = "hidden_size"
    unverified: tuple[str, ...] = ()
    may_share_prefixes: bool = True
    caches_keys: bool = False


def _radius(window: int) -> Reach:
    """The library's bidirectional window, inclusive."""
    return Reach(window, window)


def _halved(window: int) -> Reach:
    """Gemma 3: halved when the config is built, one added, and then exclusive."""
    return Reach(window // 2, window // 2)


def _halved_radius(window: int) -> Reach:
    """Gemma 4: halved as Gemma 3's is, but then used as a radius, so one token more on either side."""
    return Reach(window // 2 + 1, window // 2 + 1)


def _shared_out(window: int) -> Reach:
    """T5Gemma 2: `window` tokens in all, itself among them; an even one has the odd token ahead."""
    return Reach((window + 1) // 2 - 1, window // 2)


_GEMMA4 = Family(
    {"use_bidirectional_attention": "all", "is_causal": False},
    {"use_bidirectional_attention": None, "is_causal": True},
    _halved_radius,
    unverified=("enable_moe_block",),
)
_FLAG = ({"is_causal": False}, {"is_causal": True})
FAMILIES = {
    "embedding_gemma2_text": Family({}, None, _radius, width="embedding_dim"),
    "gemma3_text": Family(
        {"use_bidirectional_attention": True}, {"use_bidirectional_attention": False}, _halved, caches_keys=True
    ),
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "llama": Family(*_FLAG, _radius, masks_by_layer_type=False, caches_keys=True),
    "mistral": Family(*_FLAG, _radius, masks_by_layer_type=False, caches_keys=True),
    "qwen3": Family(*_FLAG, _radius, caches_keys=True),
    "t5_gemma_module": Family(
        {}, None, _radius, architecture="t5gemma.modeling_t5gemma:T5GemmaEncoder", multiplies_input=True
    ),
    "t5gemma2_text": Family({}, None, _shared_out, architecture="t5gemma2.modeling_t5gemma2:T5Gemma2TextEncoder"),
}
# What any decoder is taken for that the user wants in spite of everything.
_UNTESTED = Family(*_FLAG, _radius, masks_by_layer_type=False, may_share_prefixes=False)


@dataclass(frozen=True)
class Whole:
    """A model of which only the text tower is wanted.

    Attributes:
        text: where the tower's config stands in the whole config.
        prefix: regular expression for what stands before the tower's names in a checkpoint.
    """

    text: tuple[str, ...]
    prefix: str


WHOLES = {
    "embedding_gemma2": Whole(("text_config",), r"^(model\.)?language_model\."),
    # Older checkpoints hold a whole language model inside, with its own "model.".
    "gemma3": Whole(("text_config",), r"^(model\.)?language_model\.(model\.)?"),
    "gemma4": Whole(("text_config",), r"^(model\.)?language_model\."),
    "gemma4_unified": Whole(("text_config",), r"^(model\.)?language_model\."),
    "t5gemma": Whole(("encoder",), r"^(model\.)?encoder\."),
    "t5gemma2": Whole(("encoder", "text_config"), r"^(model\.)?encoder\.(text_model\.)?"),
    "t5gemma2_encoder": Whole(("text_config",), r"^(model\.)?(text_model\.)?"),
}


def read_config(path: str | Path) -> Any:
    """The config of the whole model at `path` (a sentence-transformers folder: of its transformer).

    Raises:
        InputError: there is none, or none that this version of the library knows.
    """
    try:
        return AutoConfig.from_pretrained(transformer_folder(path), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model.base: cannot read {path}/config.json: {' '.join(str(error).split())[:200]}") from error


def text_of(config: Any) -> Any:
    """The part of a config that belongs to the text tower."""
    whole = WHOLES.get(config.model_type)
    for key in whole.text if whole else ():
        config = getattr(config, key)
    return config


def text_config(path: str | Path) -> Any:
    """Config of the text tower at `path`; reads no weights.

    Raises:
        InputError: as `read_config`.
    """
    return text_of(read_config(path))


def state_width(config: Any) -> int:
    """D of the states that a text tower with this config gives."""
    family = FAMILIES.get(config.model_type, _UNTESTED)
    return int(getattr(config, family.width))


def model_class(config: Any) -> Any:
    """Class of the text tower with this config.

    Raises:
        InputError: the library has no model for it.
    """
    architecture = FAMILIES.get(config.model_type, _UNTESTED).architecture
    if architecture is not None:
        module, name = architecture.split(":")
        return getattr(importlib.import_module(f"transformers.models.{module}"), name)
    if type(config) not in MODEL_MAPPING:
        raise InputError(f"model.base: the transformers library has no text model for type {config.model_type!r}")
    return MODEL_MAPPING[type(config)]


def family_of(config: Any, *, causal: bool, allow_untested: bool = False) -> Family:
    """How to drive the text tower with this config (as `text_config` gives it).

    Raises:
        InputError: it is an encoder of another kind; or cannot attend as asked; or was never verified, and
            `allow_untested` does not say to use it all the same.
    """
    kind = config.model_type
    family = FAMILIES.get(kind)
    if family is None:
        _check_is_decoder(config)
        if not allow_untested:
            raise InputError(
                f"model.base: model type {kind!r} was never verified for packed and bidirectional attention; "
                f"verified: {', '.join(verified())}; set model.allow_untested=true to use it all the same"
            )
        family = _UNTESTED
    if causal and family.causal is None:
        raise InputError(
            f"model.attention: {kind!r} is an encoder, it only attends both ways; set model.attention=bidirectional"
        )
    for key in family.unverified:
        if getattr(config, key, False) and not allow_untested:
            raise InputError(
                f"model.base: {kind!r} with {key} was never verified; set model.allow_untested=true to use it"
            )
    return family


def attending(config: Any, *, causal: bool, allow_untested: bool = False) -> tuple[Any, Family, int | None]:
    """A text tower's config with the attention mode set, its family, and its sliding window in tokens (None: it has
    none) as the config file has it.

    The config is built anew from its dictionary: set on a built one, or given to from_pretrained, the mode would come
    too late to halve the window.

    Raises:
        InputError: as `family_of`.
    """
    family = family_of(config, causal=causal, allow_untested=allow_untested)
    stored = config.to_dict()
    mode = family.causal if causal else family.bidirectional
    types = stored.get("layer_types")
    slides = "sliding_attention" in types if types and family.masks_by_layer_type else True
    window = stored.get("sliding_window") if slides else None
    return type(config).from_dict(stored | dict(mode)) if mode else config, family, window


def library_attention(config: Any) -> str:
    """The library's attention in which a tower with this config runs without us."""
    return "sdpa" if model_class(config)._supports_sdpa else "eager"


def verified() -> list[str]:
    """Model types as a checkpoint's config.json names them."""
    parts = {"t5_gemma_module", "t5gemma2_text"}  # never a checkpoint of their own
    return sorted((set(FAMILIES) - parts) | set(WHOLES))


def _check_is_decoder(config: Any) -> None:
    """Refuse what no mask can make a decoder with a settable direction of."""
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"model.base: {kind!r} is an encoder-decoder that gemma4vec does not know; "
            "a base is a decoder, or an encoder of t5gemma or t5gemma2"
        )
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise InputError(
            f"model.base: {kind!r} is an encoder (a masked language model), not a decoder; "
            "use it as it is with sentence-transformers, or choose a decoder"
        )
    layers = set(getattr(config, "layer_types", None) or ())
    other = sorted(layers - {"full_attention", "sliding_attention"})
    if other or not hasattr(config, "num_attention_heads"):
        what = f"layers of {', '.join(other)}" if other else "no attention heads"
        raise InputError(
            f"model.base: {kind!r} has {what}, which no mask can make bidirectional or keep packed documents apart in"
        )
