"""Texts by a language model and a prompt alone, such as paraphrases of a query: no vector, no training.

What a decoder's walk gains beyond paraphrases is what the vector brings, not the model that writes.
"""

from collections.abc import Sequence
from typing import Any

import torch

from gemma4vec.inversion.candidates import clean
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.backbone.architectures import find_architecture, text_config
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


class PromptWriter:
    """A base model that continues prompts: no vector, no training.

    Args:
        base: name of a base, as `model.base` of a recipe.

    Raises:
        InputError: there is no such base, it cannot be loaded, or it is an encoder, which writes nothing.
    """

    def __init__(self, base: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        found = resolve_base(base)
        refuse_foreign_code(found.path)
        check_weight_files(found.path)
        find_architecture(text_config(found.path), causal=True)
        self.base = found
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
        self._line_ends = [
            ids[0]
            for end in ("\n", "\n\n")
            if len(ids := self._tokenizer(end, add_special_tokens=False)["input_ids"]) == 1
        ]

    def write(
        self, prompts: Sequence[str], *, tokens: int, draws: int = 0, seed: int = 0, one_line: bool = False
    ) -> list[list[str]]:
        """Continue prompts, which are read together.

        Args:
            prompts: what is continued.
            tokens: most tokens that are written after each.
            draws: continuations of each prompt, sampled by `seed`; 0: the greedy one.
            seed: of the samples.
            one_line: end a continuation at its first line end, where the tokenizer has a token for it.

        Returns:
            The continuations of each prompt as they are; some may be equal or empty.
        """
        read = self._tokenizer(list(prompts), return_tensors="pt", padding=True).to(self._model.device)
        sampled = {"do_sample": True, "top_p": _TOP_P, "temperature": _TEMPERATURE, "num_return_sequences": draws}
        ends = {"eos_token_id": [self._tokenizer.eos_token_id, *self._line_ends]} if one_line else {}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            written = self._model.generate(
                **read,
                **(sampled if draws else {"do_sample": False}),
                **ends,
                max_new_tokens=tokens,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        new = written[:, read["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        each = draws or 1
        return [texts[place * each : (place + 1) * each] for place in range(len(prompts))]


class Paraphraser:
    """A base model that rewords queries.

    Args:
        base: name of a base, as `model.base` of a recipe.

    Raises:
        InputError: as `PromptWriter`.
    """

    def __init__(self, base: str) -> None:
        self._writer = PromptWriter(base)
        self.name = f"paraphrases by {self._writer.base.name}"

    def write(self, queries: Sequence[str], n: int, seed: int) -> list[list[str]]:
        """`n` sampled paraphrases of each query, each one line; some may be equal or empty."""
        found: list[list[str]] = []
        for start in range(0, len(queries), _BATCH):
            prompts = [PROMPT.format(query=query) for query in queries[start : start + _BATCH]]
            written = self._writer.write(prompts, tokens=_WORDS, draws=n, seed=seed * 1_000_003 + start)
            found += [[first_line(text) for text in texts] for texts in written]
        return found


def first_line(text: str) -> str:
    """What the model wrote before it went on with another example."""
    line = text.strip().split("\n")[0]
    return clean(line.split("Query:")[0].strip())[0]
