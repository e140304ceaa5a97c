"""Check a recipe's model part and a tokenizer against a base's config, before any weight is loaded."""

import logging
import re
from pathlib import Path
from typing import Any, Literal

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.architectures import state_width, text_config
from gemma4vec.model.readout import READOUTS
from gemma4vec.model.readout.context_encoder import find_encoder
from gemma4vec.model.tokenize.tokenizer import TextTokenizer
from gemma4vec.recipe import schema
from gemma4vec.recipe.readouts import Attention, ContextualToken, EchoDelta, LatentAttention
from gemma4vec.text.prompts import Prompts

logger = logging.getLogger(__name__)

# Tokens that stand for something other than text. A text-only Gemma 3 has one more token than rows, <image_soft_token>.
_NOT_TEXT = re.compile(r"image|audio|video|vision")
# Tokens left for a text below which a prompt is reported.
_ROOM = 8

Role = Literal["query", "document"]


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


def longest_text(config: dict[str, Any]) -> int | None:
    """Tokens of the longest text that a base was trained to read; None: its config does not say.

    `config` is a result of `read_config`. Stretched positions count, as by YaRN (arXiv:2309.00071).
    """
    longest = config.get("max_position_embeddings")
    if not isinstance(longest, int) or longest < 1:
        return None
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    first, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    stretched = int(first * factor) if isinstance(first, int) and isinstance(factor, int | float) else 0
    return max(longest, stretched)


def check_positions(max_tokens: int, config: dict[str, Any], key: str = "model.max_tokens") -> None:
    """Refuse a limit beyond the positions that the base was trained for.

    Args:
        max_tokens: the limit.
        config: result of `read_config`.
        key: what sets the limit, for messages.

    Raises:
        InputError: both numbers.
    """
    longest = longest_text(config)
    if longest is not None and max_tokens > longest:
        raise InputError(
            f"{key}: {max_tokens} tokens, and the base reads {longest} (max_position_embeddings); "
            f"give at most {longest}"
        )


def check_vocabulary(tokenizer: TextTokenizer, config: dict[str, Any], path: str | Path) -> None:
    """Refuse a tokenizer with tokens that have no row in the embedding.

    Special tokens for images, audio and video are exempt: no text needs them. They are read as unknown tokens.

    Args:
        tokenizer: the base's; its `rows` are set where tokens are exempt.
        config: result of `read_config`; without `vocab_size` nothing is checked.
        path: folder of the base, for messages.

    Raises:
        InputError: both sizes and the first token without a row.
    """
    rows = config.get("vocab_size")
    if isinstance(rows, int) and lacks_rows(tokenizer.hf_tokenizer, rows, tokenizer.padding_id, path):
        tokenizer.rows = rows


def lacks_rows(hf_tokenizer: Any, rows: int, padding_id: int, path: str | Path) -> bool:
    """Whether a tokenizer has special tokens for images, audio or video alone that have no row in the embedding.

    Args:
        hf_tokenizer: a tokenizer of transformers.
        rows: of the embedding.
        padding_id: of the padding token.
        path: folder of the model, for messages.

    Raises:
        InputError: other tokens have none; both sizes and the first of them.
    """
    added = hf_tokenizer.added_tokens_decoder
    size = max(len(hf_tokenizer), *(number + 1 for number in added), 0)
    if size <= rows:
        return False
    without = {number: token for number, token in added.items() if number >= rows}
    exempt = all(token.special and _NOT_TEXT.search(token.content) for token in without.values())
    if exempt and size - rows == len(without) and padding_id < rows:
        return True
    first = padding_id if padding_id >= rows else min(without, default=rows)
    what = "the padding token" if first == padding_id else "token"
    raise InputError(
        f"model.base: the tokenizer at {path} has {size:,} tokens and the embedding {rows:,} rows: {what} "
        f"{hf_tokenizer.convert_ids_to_tokens(first)!r} ({first}) has none; add rows to the model "
        "(resize_token_embeddings) or use the tokenizer that belongs to its weights"
    )


def check_prompts(tokenizer: TextTokenizer, prompts: Prompts, limit: int, key: str, role: Role | None = None) -> None:
    """Refuse prompts that fill the limit: no token of a text would be read, and all vectors would be equal.

    Args:
        tokenizer: the model's.
        prompts: for queries and documents.
        limit: tokens of a text, prompt and special tokens included.
        key: what sets the limit, for messages.
        role: check this prompt alone; None: both.

    Raises:
        InputError: the prompt, its tokens and the limit.
    """
    both = {"query": prompts.for_query(""), "document": prompts.for_document("")}
    for name, prompted in both.items():
        if role not in (None, name):
            continue
        used = tokenizer.prompt_tokens(prompted.prompt)
        what = f"the {name} prompt {prompted.prompt!r} takes" if prompted.prompt else "a text's special tokens take"
        if used >= limit:
            raise InputError(
                f"{key}: {what} {used} of {limit} tokens, so that no token of any text would be read; "
                f"give at least {used + _ROOM}, or a shorter prompt"
            )
        if limit - used < _ROOM:
            logger.warning(f"warning: {key}: {what} {used} of {limit} tokens; {limit - used} are left for the text")


def _check_heads(heads: int, width: int, what: str) -> None:
    if width % heads:
        fitting = [n for n in (1, 2, 4, 5, 8, 10, 12, 16, 20, 32) if width % n == 0]
        raise InputError(
            f"model.readout.heads: {heads} heads do not divide {what}, {width}; "
            f"these do: {', '.join(map(str, fitting))}"
        )
