"""Find where a prompt ends, for readouts that do not pool it, although tokenizers merge its final space into the text.

Alone, the last token of a prompt such as `query: ` is its space. Before `sort`, the space belongs to the text's first
token. sentence-transformers counts the prompt's tokens alone, one too many, and would drop the first word of every
text. So the tokenizer itself removes the final spaces of a text that consists of a prompt alone. Then every program
that reads the saved folder counts correctly, and all other texts keep their tokens.
"""

import json
import re
from pathlib import Path

from tokenizers import Regex, normalizers
from transformers import PreTrainedTokenizerFast

from gemma4vec.reading.json_values import load_foreign_json
from gemma4vec.text.prompts import Prompts

# This class uses tokenizer.json as it is; a model's own class would rebuild the normalizer and lose our rule.
_PLAIN_CLASS = "PreTrainedTokenizerFast"


def strip_final_prompt_space(tokenizer: PreTrainedTokenizerFast, prompts: Prompts) -> None:
    """Let `tokenizer` remove the final spaces of a text that consists of one of `prompts` alone.

    Line breaks and tabs at the end of a prompt stay: they are separate tokens in every tokenizer we know.
    """
    patterns = [_pattern(prompt) for prompt in (prompts.query, prompts.document) if prompt.endswith(" ")]
    if not patterns:
        return
    rule = normalizers.Replace(Regex(rf"\A(?:{'|'.join(patterns)})\K +\z"), "")
    own = tokenizer.backend_tokenizer.normalizer
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([rule] if own is None else [rule, own])


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, *, keep_normalizer: bool) -> None:
    """Write a tokenizer to `folder`; with `keep_normalizer`, other programs that open it keep our rule for prompts."""
    tokenizer.save_pretrained(folder)
    if keep_normalizer:
        file = folder / "tokenizer_config.json"
        settings = load_foreign_json(file)
        settings["tokenizer_class"] = _PLAIN_CLASS
        file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _pattern(prompt: str) -> str:
    """Regular expression (Oniguruma) of the prompt without its final spaces, with any title for `{title}`."""
    return "(?m:.*)".join(re.escape(part) for part in prompt.rstrip(" ").split("{title}"))
