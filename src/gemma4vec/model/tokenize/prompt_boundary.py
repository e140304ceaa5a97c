"""Prompts whose closing space melts into the text: where the prompt ends for a readout that leaves it out.

The last token of a prompt such as `query: ` is its space; in front of `sort` that space is part of the text's first
token. Counted alone, as sentence-transformers does, the prompt is one token too long, the first word of every text is
left out with it, and of a text of one word nothing remains. So the tokenizer itself drops the closing spaces of a text
that is nothing but a prompt: the count is right in every program that reads the saved folder, and the tokens of all
other texts are as they were.
"""

import json
import re
from pathlib import Path

from tokenizers import Regex, normalizers
from transformers import PreTrainedTokenizerFast

from gemma4vec.text.prompts import Prompts

# Says nothing but "as tokenizer.json has it"; a model's own class would rebuild the normalizer and lose ours.
_PLAIN_CLASS = "PreTrainedTokenizerFast"


def count_prompts_without_closing_space(tokenizer: PreTrainedTokenizerFast, prompts: Prompts) -> None:
    """Make `tokenizer` drop the closing spaces of a text that is a prompt of `prompts` and nothing more.

    Line breaks and tabs at the end of a prompt are tokens of their own in every tokenizer we know, and stay.
    """
    patterns = [_pattern(prompt) for prompt in (prompts.query, prompts.document) if prompt.endswith(" ")]
    if not patterns:
        return
    rule = normalizers.Replace(Regex(rf"\A(?:{'|'.join(patterns)})\K +\z"), "")
    own = tokenizer.backend_tokenizer.normalizer
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([rule] if own is None else [rule, own])


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, *, as_it_is: bool) -> None:
    """Write a tokenizer to `folder`; `as_it_is` where a rule of ours must survive being opened by other programs."""
    tokenizer.save_pretrained(folder)
    if as_it_is:
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings["tokenizer_class"] = _PLAIN_CLASS
        file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _pattern(prompt: str) -> str:
    """The prompt without its closing spaces, any title in the place of `{title}`, for Oniguruma."""
    return "(?m:.*)".join(re.escape(part) for part in prompt.rstrip(" ").split("{title}"))
