"""Write the tokenizer of a GGUF file as the files of a Hugging Face folder.

transformers reads one, but for the 262,144 tokens of Gemma that takes as long as everything else in a dry run: it wraps
each token in memory-map views, and sorts half a million merges whose order is known. So Gemma's is made here, from the
metadata that `GgufFile` has read, into files that are the same in every byte.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

_TOKENIZER = "tokenizer.ggml."
_CONTROL, _USER_DEFINED = 3, 4  # types of tokens (ggml's docs/gguf.md)
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def write_tokenizer(gguf_path: Path, metadata: dict[str, Any], folder: Path) -> None:
    """Write the tokenizer of a GGUF file as `tokenizer.json` and `tokenizer_config.json`.

    BOS comes first if the file says so; `eos_token` and `pad_token` are set.
    """
    own = metadata["general.architecture"] == "gemma3" and _TOKENIZER + "merges" not in metadata
    tokenizer = _gemma_tokenizer(metadata) if own else _read_by_transformers(gguf_path, metadata)
    tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    tokenizer.model_max_length = metadata[f"{metadata['general.architecture']}.context_length"]
    tokenizer.save_pretrained(folder)


def _read_by_transformers(gguf_path: Path, metadata: dict[str, Any]) -> "PreTrainedTokenizerFast":
    from tokenizers import pre_tokenizers
    from transformers import GemmaTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

    kind = GemmaTokenizer if metadata[_TOKENIZER + "model"] == "llama" else GPT2Tokenizer
    tokenizer: PreTrainedTokenizerFast = kind.from_pretrained(
        str(gguf_path.parent), gguf_file=gguf_path.name, trust_remote_code=False
    )
    if metadata.get(_TOKENIZER + "pre") == "smollm":
        backend = tokenizer.backend_tokenizer
        # As in SmolLM2's own tokenizer.json; transformers' reader does not know this splitting rule.
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        # GPT2Tokenizer would restore its own splitting rule when loaded.
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **tokenizer.special_tokens_map)
    return tokenizer


def _gemma_tokenizer(metadata: dict[str, Any]) -> "PreTrainedTokenizerFast":
    """What `GemmaTokenizer.from_pretrained(folder, gguf_file=...)` makes."""
    from transformers import GemmaTokenizer

    tokens, types = metadata[_TOKENIZER + "tokens"], metadata.get(_TOKENIZER + "token_type") or ()
    # The file spells tokens of spaces alone as spaces; in the tokenizer a space is U+2581.
    spelled = ["\u2581" * len(token) if " " in token and not token.strip() else token for token in tokens]
    vocabulary = {token: number for number, token in enumerate(spelled)}
    numbers = {name: metadata.get(f"{_TOKENIZER}{key}_token_id") for name, key in _SPECIAL.items()}
    tokenizer: PreTrainedTokenizerFast = GemmaTokenizer(
        vocab=vocabulary,
        merges=merges_of(vocabulary),  # type: ignore[arg-type]  # pairs are what its library takes
        add_bos_token=metadata.get(_TOKENIZER + "add_bos_token", True),
        add_eos_token=metadata.get(_TOKENIZER + "add_eos_token", False),
        is_local=True,
        local_files_only=False,
        **{name: None if number is None else tokens[number] for name, number in numbers.items()},  # type: ignore[arg-type]
    )
    backend = tokenizer.backend_tokenizer  # transformers would write the special ones into the configuration too
    kinds = [*zip(tokens, types, strict=False)]
    backend.add_special_tokens([_added(token, True) for token, kind in kinds if kind == _CONTROL])
    backend.add_tokens([_added(token, False) for token, kind in kinds if kind == _USER_DEFINED and token in vocabulary])
    return tokenizer


def _added(token: str, special: bool) -> "AddedToken":
    from tokenizers import AddedToken

    return AddedToken(token, normalized=False, special=special)


def merges_of(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of a vocabulary in the order of its merges: of each token, all cuts into two tokens, the longest
    first part first. transformers' `generate_merges` sorts them to the same order.
    """
    return [
        (token[:cut], token[cut:])
        for token in sorted(vocabulary, key=vocabulary.__getitem__)
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
