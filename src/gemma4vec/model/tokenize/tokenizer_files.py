"""What is refused in a tokenizer's files because the libraries fail on it too late, or end the process."""

import re
from collections.abc import Mapping
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.reading.json_values import JsonError, load_foreign_json, load_json

_SUBWORD_PREFIX = re.compile(rb'"continuing_subword_prefix"\s*:\s*"[^"]')


def refuse_impossible_merges(folder: Path) -> None:
    """Refuse merges that lack the prefix of subwords: the tokenizers library cuts it off and panics.

    Raises:
        InputError: `tokenizer.json` has such a merge.
    """
    file = folder / "tokenizer.json"
    try:
        if not _SUBWORD_PREFIX.search(file.read_bytes()):
            return
        model = load_foreign_json(file)["model"]
        prefix = str(model["continuing_subword_prefix"])
        merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model.get("merges") or ()]
        wrong = next((second for _, second in merges if not str(second).startswith(prefix)), None)
    except (OSError, JsonError, KeyError, TypeError, ValueError, AttributeError):
        return  # the library says what is wrong
    if wrong is not None:
        raise InputError(
            f"model.base: {file}: the merge with {wrong!r} lacks the prefix of subwords, {prefix!r}; download it again"
        )


def refuse_half_characters(folder: Path) -> None:
    """Refuse settings with lone surrogates: the model trained with them could not be saved.

    Raises:
        InputError: a file has one.
    """
    for file in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        if file.is_file():
            try:
                load_json(file, nonfinite=True, twice=True)
            except JsonError as fault:
                raise InputError(f"model.base: {file}: {fault.reason}") from None


def refuse_shared_ids(vocabulary: Mapping[str, int], path: str | Path) -> None:
    """Refuse two tokens with one id: only one of them would be saved with the trained model.

    Raises:
        InputError: there are two.
    """
    token_of = {number: token for token, number in vocabulary.items()}
    if len(token_of) < len(vocabulary):
        token, number = next((token, number) for token, number in vocabulary.items() if token_of[number] != token)
        raise InputError(
            f"model.base: the tokenizer at {path} gives {token_of[number][:40]!r} and {token[:40]!r} one id, {number}; "
            "check tokenizer.json or download it again"
        )
