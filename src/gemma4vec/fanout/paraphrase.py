"""Paraphrases of a query by a language model and a prompt alone: no vector, no training.

What a decoder's walk gains beyond these is what the vector brings, not the model that writes.
"""

from collections.abc import Sequence
from typing import Any

import torch

from gemma4vec.inversion.candidates import clean
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.bases.foreign_code import refuse_foreign_code
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.bases.weight_files import check_weight_files

PROMPT = """Search queries, each in other words.

Query: how do i sort a list of numbers
In other words: order the elements of a list

Query: symptoms of iron deficiency
In other words: signs that the body lacks iron

Query: {query}
In other words:"""
_BATCH = 8  # queries at once
_WORDS = 24  # tokens of a paraphrase, at most
_TOP_P, _TEMPERATURE = 0.95, 0.7  # as a decoder's samples


class Paraphraser:
    """A base model that continues a prompt with examples.

    Args:
        base: name of a base, as `model.base` of a recipe.

    Raises:
        InputError: there is no such base, or it cannot be loaded.
    """

    def __init__(self, base: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        found = resolve_base(base)
        refuse_foreign_code(found.path)
        check_weight_files(found.path)
        self.name = f"paraphrases by {found.name}"
        device = choose_device().name
        dtype = choose_dtype(device, "auto").dtype
        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            found.path, local_files_only=True, trust_remote_code=False, padding_side="left"
        )
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        model: Any = AutoModelForCausalLM.from_pretrained(
            found.path, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        self._model = model.to(device).eval()

    def write(self, queries: Sequence[str], n: int, seed: int) -> list[list[str]]:
        """`n` sampled paraphrases of each query, each one line; some may be equal or empty."""
        found: list[list[str]] = []
        for start in range(0, len(queries), _BATCH):
            part = queries[start : start + _BATCH]
            read = self._tokenizer([PROMPT.format(query=query) for query in part], return_tensors="pt", padding=True)
            read = read.to(self._model.device)
            with torch.random.fork_rng(), torch.inference_mode():
                torch.manual_seed(seed * 1_000_003 + start)
                written = self._model.generate(
                    **read,
                    do_sample=True,
                    top_p=_TOP_P,
                    temperature=_TEMPERATURE,
                    num_return_sequences=n,
                    max_new_tokens=_WORDS,
                    pad_token_id=self._tokenizer.pad_token_id,
                )
            new = written[:, read["input_ids"].shape[1] :]
            lines = [first_line(text) for text in self._tokenizer.batch_decode(new, skip_special_tokens=True)]
            found += [lines[place * n : (place + 1) * n] for place in range(len(part))]
        return found


def first_line(text: str) -> str:
    """What the model wrote before it went on with another example."""
    line = text.strip().split("\n")[0]
    return clean(line.split("Query:")[0].strip())[0]
