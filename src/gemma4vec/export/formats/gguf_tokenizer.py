"""Gemma's tokenizer as GGUF holds it: tokens, scores and kinds, for llama.cpp's `llama` tokenizer model.

tokenizer.json has merges with ranks; llama.cpp merges the neighboring pair whose result has the highest score. Both
give the same tokens if a token's score is the negative rank of the first merge that makes it, because all merges of a
SentencePiece vocabulary that make the same token have neighboring ranks. The parity gate compares the token ids.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from gemma4vec.errors import InputError

_SPACE = "\u2581"


@dataclass(frozen=True)
class GgufTokenizer:
    """Columns of the vocabulary by token id, and the special tokens.

    Attributes:
        tokens: the tokens' texts.
        scores: negative ranks of merges.
        kinds: numbers of `gguf.TokenType`.
        special: "bos", "eos", "unknown", "padding" -> token id.
        add_bos, add_eos: whether the tokenizer adds them to every text.
    """

    tokens: list[str]
    scores: list[float]
    kinds: list[int]
    special: dict[str, int]
    add_bos: bool
    add_eos: bool

    def write(self, writer: GGUFWriter) -> None:
        """Add the tokenizer's keys to a GGUF file."""
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(self.tokens)
        writer.add_token_scores(self.scores)
        writer.add_token_types(self.kinds)
        for key, add in (
            ("bos", writer.add_bos_token_id),
            ("eos", writer.add_eos_token_id),
            ("unknown", writer.add_unk_token_id),
            ("padding", writer.add_pad_token_id),
        ):
            if key in self.special:
                add(self.special[key])
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        writer.add_add_space_prefix(False)


def read_gguf_tokenizer(folder: Path, vocabulary: int) -> GgufTokenizer:
    """Convert a folder's tokenizer.json.

    Args:
        folder: the model's folder.
        vocabulary: number of rows of the token embeddings, at least the number of tokens.

    Raises:
        InputError: llama.cpp's `llama` tokenizer model cannot hold this tokenizer.
    """
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = whole["model"]
    _check(whole, model)
    ids: dict[str, int] = dict(model["vocab"])
    added = {entry["content"]: entry for entry in whole.get("added_tokens") or ()}
    ids |= {content: entry["id"] for content, entry in added.items()}
    if max(ids.values()) >= vocabulary:
        raise InputError(f"gguf: {folder} has more tokens than the {vocabulary} rows of its token embeddings")
    tokens = [f"[UNUSED{number}]" for number in range(vocabulary)]
    kinds = [int(TokenType.UNUSED)] * vocabulary
    for text, number in ids.items():
        tokens[number], kinds[number] = text, _kind(text, added.get(text), model.get("unk_token"))
    scores = [0.0] * vocabulary
    for rank, (left, right) in reversed(list(enumerate(model["merges"]))):
        scores[ids[left + right]] = -float(rank)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    words = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    special = {key: ids[config[word]] for key, word in words.items() if config.get(word) in ids}
    around = _template(whole.get("post_processor"))
    return GgufTokenizer(
        tokens, scores, kinds, special, config.get("bos_token") in around[:1], config.get("eos_token") in around[1:]
    )


def _check(whole: dict[str, Any], model: dict[str, Any]) -> None:
    normalizer = whole.get("normalizer") or {}
    is_gemma = (
        model.get("type") == "BPE"
        and model.get("byte_fallback") is True
        and normalizer.get("type") == "Replace"
        and normalizer.get("content") == _SPACE
        and (whole.get("pre_tokenizer") or {}).get("type") in (None, "Split")
    )
    if not is_gemma:
        raise InputError(
            "gguf: only Gemma's tokenizer (BPE with byte fallback, spaces as U+2581) can be written; "
            "export this model with --to st or --to onnx"
        )


def _kind(text: str, added: dict[str, Any] | None, unknown: str | None) -> int:
    if text == unknown:
        return int(TokenType.UNKNOWN)
    if added is not None:
        return int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    is_byte = len(text) == 6 and text.startswith("<0x") and text.endswith(">")
    return int(TokenType.BYTE if is_byte else TokenType.NORMAL)


def _template(processor: dict[str, Any] | None) -> tuple[str | None, str | None]:
    """The special tokens before and after a text.

    Raises:
        InputError: the post-processor does something else.
    """
    if processor is None:
        return None, None
    parts = processor.get("single") if processor.get("type") == "TemplateProcessing" else None
    kinds = ["Sequence" if "Sequence" in part else part["SpecialToken"]["id"] for part in parts or ()]
    at = kinds.index("Sequence") if kinds.count("Sequence") == 1 else -1
    if at not in (0, 1) or len(kinds) - at > 2:
        raise InputError("gguf: the tokenizer adds other tokens than one BOS before and one EOS after a text")
    return (kinds[0] if at == 1 else None), (kinds[-1] if len(kinds) - at == 2 else None)
