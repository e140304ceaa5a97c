"""Check a recipe's model part against a base's config, before any weight is loaded."""

from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.architectures import state_width, text_config
from gemma4vec.model.readout import READOUTS
from gemma4vec.model.readout.context_encoder import find_encoder
from gemma4vec.recipe import schema
from gemma4vec.recipe.readouts import Attention, ContextualToken, EchoDelta, LatentAttention


def read_config(path: str | Path) -> dict[str, Any]:
    """Config of the text tower in a model folder, plus `state_width`, the width of its final states.

    Empty if it cannot be read; loading the model then reports the reason.
    """
    try:
        config = text_config(path)
    except InputError:
        return {}
    return {**config.to_dict(), "state_width": state_width(config)}


def check_recipe(model: schema.Model, config: dict[str, Any], folder: Path | None = None) -> None:
    """Refuse a readout that cannot work on a base, naming the key.

    Args:
        model: the recipe's model part.
        config: result of `read_config`; missing keys are not checked.
        folder: folder of a saved model, which contains its second encoder.

    Raises:
        InputError: the readout needs another attention mode; or mixes layers of different widths; or its heads do not
            divide its width; or its second encoder does not exist; or two copies of a text exceed what the base reads.
    """
    readout = model.readout
    needs = READOUTS[readout.name].needs
    if "bidirectional" in needs and model.attention == "causal":
        raise InputError(
            f"model.readout.name: {readout.name} needs model.attention=bidirectional: "
            "in a causal model the first token sees nothing but itself; or use last_token"
        )
    entering = config.get("hidden_size")
    width = config.get("state_width", entering)
    if "all_layers" in needs and width != entering:
        raise InputError(
            f"model.readout.name: {readout.name} mixes layers, but the last states of a "
            f"{config.get('model_type')!r} are {width} wide and the others {entering}; choose another readout or base"
        )
    if isinstance(readout, Attention) and width:
        _check_heads(readout.heads, int(width), "the base's width")
    if isinstance(readout, LatentAttention) and (readout.hidden_size or width):
        _check_heads(readout.heads, int(readout.hidden_size or width or 0), "hidden_size")
    if isinstance(readout, ContextualToken):
        find_encoder(readout.encoder, saved_with=folder)
    longest = config.get("max_position_embeddings")
    if isinstance(readout, EchoDelta) and longest and 2 * model.max_tokens > int(longest):
        raise InputError(
            f"model.max_tokens: echo_delta reads a text twice, {2 * model.max_tokens} tokens, "
            f"and the base reads {longest}; give at most {int(longest) // 2}"
        )


def _check_heads(heads: int, width: int, what: str) -> None:
    if width % heads:
        fitting = [n for n in (1, 2, 4, 5, 8, 10, 12, 16, 20, 32) if width % n == 0]
        raise InputError(
            f"model.readout.heads: {heads} heads do not divide {what}, {width}; "
            f"these do: {', '.join(map(str, fitting))}"
        )
