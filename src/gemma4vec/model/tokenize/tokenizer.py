"""Tokenize texts: BOS as the base expects it, and exactly one closing token if the readout needs it, also when cut.

The closing token is the one with which the base's own tokenizer ends a text (Qwen3-Embedding: <|endoftext|>, although
its eos_token is <|im_end|>), else EOS. The tokenizer's post-processor adds both, so that the saved tokenizer behaves
the same in every program. `add_eos_token=True` would drop BOS on Gemma's tokenizer.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gemma4vec.errors import InputError
from gemma4vec.machine.terminal import prints_on_stderr
from gemma4vec.model import upstream
from gemma4vec.model.bases.foreign_code import needs_own_code
from gemma4vec.model.bases.sentence_transformers_folder import transformer_folder
from gemma4vec.model.packing.packed_batch import Tokens
from gemma4vec.model.tokenize.prompt_boundary import strip_final_prompt_space
from gemma4vec.model.tokenize.tokenizer_files import (
    refuse_half_characters,
    refuse_impossible_merges,
    refuse_shared_ids,
)
from gemma4vec.reading.json_values import load_foreign_json
from gemma4vec.text.encodable import encodable
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Prompted, Prompts

logger = logging.getLogger(__name__)

MOST_IDS = 2**24  # the largest vocabularies have a million tokens
_PROMPTS_KEPT = 1024
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token", "cls_token", "sep_token")


@dataclass
class Counts:
    """Counts of the texts read so far."""

    texts: int = 0
    tokens: int = 0
    empty: int = 0
    at_limit: int = 0  # as long as the limit: truncated, or an exact fit

    def as_dict(self) -> dict[str, int]:
        """The counts by name, for reports."""
        return dict(vars(self))


@dataclass
class TextTokenizer:
    """Tokenizes prompts and texts for one model.

    Attributes:
        hf_tokenizer: the transformers tokenizer, with its post-processor set.
        counts: counts of the texts read so far.
        prompt_lengths: number of tokens of recent prompts; prompts that contain titles can be thousands.
        rows: rows of the embedding, if some tokens have none (`model.encoder.outline`); they are read as unknown.
        closing_id: the token that ends every text; EOS if the post-processor adds none.
        lock: the Hugging Face tokenizer stores truncation as state, and another thread prepares the next batches.
    """

    hf_tokenizer: PreTrainedTokenizerFast
    counts: Counts = field(default_factory=Counts)
    prompt_lengths: dict[str, int] = field(default_factory=dict)
    rows: int | None = None
    closing_id: int | None = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        _, closing = added_tokens(self.hf_tokenizer)
        self.closing_id = closing[-1] if closing else self.hf_tokenizer.eos_token_id

    @property
    def padding_id(self) -> int:
        """Token of padding cells; no document sees it."""
        return int(self.hf_tokenizer.pad_token_id or 0)

    def encode(self, texts: Sequence[Prompted], max_tokens: int) -> list[Tokens]:
        """Tokens of texts with their prompts, at most `max_tokens` each, special tokens included.

        As in sentence-transformers, the number of a prompt's tokens is that of the prompt alone, without EOS.
        """
        if not texts:
            return []
        with self.lock:
            plain = [prompted for prompted in texts if not isinstance(prompted.text, PretokenizedText)]
            whole = [encodable(prompted.prompt + prompted.text) for prompted in plain]
            self._count_prompts([prompted.prompt for prompted in plain])
            encoded = iter(self._ids(whole, max_tokens))
            result = []
            for prompted in texts:
                self.counts.empty += not prompted.text.strip()
                if isinstance(prompted.text, PretokenizedText):
                    ids = prompted.text.cut(max_tokens, self.closing_id)
                    result.append(Tokens(ids, min(prompted.text.prompt, len(ids))))
                else:
                    ids = next(encoded)
                    # Without BOS, an empty text has no tokens; use one padding token.
                    length = self.prompt_lengths[prompted.prompt]
                    result.append(Tokens(ids or [self.padding_id], min(length, len(ids))))
                self.counts.at_limit += len(ids) >= max_tokens
            self.counts.texts += len(result)
            self.counts.tokens += sum(tokens.length for tokens in result)
            return result

    def _ids(self, texts: list[str], max_tokens: int) -> list[list[int]]:
        if not texts:
            return []
        found = self.hf_tokenizer(texts, truncation=True, max_length=max_tokens, return_attention_mask=False)
        ids: list[list[int]] = found["input_ids"]
        if self.rows is None:
            return ids
        unknown = self.hf_tokenizer.unk_token_id
        other = self.padding_id if unknown is None else int(unknown)
        return [[one if one < self.rows else other for one in text] for text in ids]

    def prompt_tokens(self, prompt: str) -> int:
        """Number of tokens that every text with this prompt has before and after its own: special tokens included."""
        return len(self.hf_tokenizer(encodable(prompt))["input_ids"])

    def _count_prompts(self, prompts: Sequence[str]) -> None:
        """Add the lengths of `prompts` to `prompt_lengths`, which is cleared before it grows too large."""
        if len(self.prompt_lengths) > _PROMPTS_KEPT:
            self.prompt_lengths.clear()
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.prompt_lengths]
        encodings = self.hf_tokenizer([encodable(prompt) for prompt in new])["input_ids"] if new else []
        for prompt, ids in zip(new, encodings, strict=True):
            closing = bool(ids) and ids[-1] == self.closing_id
            self.prompt_lengths[prompt] = len(ids) - closing if prompt else 0


def load_saved_tokenizer(path: Path) -> TextTokenizer:
    """Load the tokenizer of a model folder that gemma4vec wrote, whose post-processor is already set.

    It takes a third of `load_tokenizer`'s time, which matters for a single search: AutoTokenizer reads and rebuilds a
    large vocabulary several times.

    Raises:
        InputError: a file is missing or damaged.
    """
    try:
        tokenizer = _read_quickly(path, _SPECIAL[:4])
    except Exception as error:  # tokenizers raises plain Exception
        raise InputError(
            f"the tokenizer in {path} is damaged ({error}); export the model again from its run"
        ) from error
    return TextTokenizer(tokenizer)


def load_tokenizer(
    path: str | Path, *, append_eos: bool, unpooled_prompts: Prompts | None = None, ids_alone: bool = False
) -> TextTokenizer:
    """Load the tokenizer of a base.

    Args:
        path: folder of the base.
        append_eos: append one closing token to every text: the base's own, else EOS. BOS stays as in the base.
        unpooled_prompts: prompts that the readout does not pool (see `model.tokenize.prompt_boundary`).
        ids_alone: of a folder that this program wrote, when the tokenizer will not be saved: its ids are the same, its
            class is not, and 262,144 tokens are read in a third of the time.

    Raises:
        InputError: there is no fast tokenizer, or a required EOS or padding token is missing.
    """
    tokenizer = _read_quickly(Path(path), _SPECIAL) if ids_alone else _read_foreign(path)
    if append_eos and tokenizer.eos_token_id is None and not added_tokens(tokenizer)[1]:
        raise InputError(
            f"model.readout: it needs an EOS token, and the tokenizer at {path} has none; "
            "choose one that needs none, such as mean"
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise InputError(f"model.base: the tokenizer at {path} has neither a padding nor an EOS token")
        tokenizer.pad_token = tokenizer.eos_token
    _set_special_tokens(tokenizer, append_eos)
    if unpooled_prompts is not None:
        strip_final_prompt_space(tokenizer, unpooled_prompts)
    tokenizer.padding_side = "right"
    tokenizer.init_kwargs.pop("auto_map", None)  # the saved model would name code that it does not hold
    # A multimodal base's tokenizer names an image processor, without which the saved text model could not be opened.
    upstream.forget_processor(tokenizer)
    return TextTokenizer(tokenizer)


def _read_foreign(path: str | Path) -> PreTrainedTokenizerFast:
    """A tokenizer as its own class reads it; refused in one line where it cannot be used."""
    folder = transformer_folder(path)
    refuse_impossible_merges(folder)
    try:
        with prints_on_stderr():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer("a")  # some settings, such as a limit that is no number, are first read here
    except Exception as error:  # tokenizers raises plain Exception, the library many types
        needed = needs_own_code(Path(path), error)
        if needed is not None:
            raise needed from error
        raise InputError(
            f"model.base: cannot read a tokenizer at {path}: {' '.join(str(error).split())[:200]}"
        ) from error
    refuse_half_characters(folder)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"model.base: the tokenizer at {path} is not a fast one (tokenizer.json is missing)")
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= MOST_IDS:  # the tokenizers library allocates memory for all ids up to it, and ends the process
        raise InputError(f"model.base: the tokenizer at {path} has a token of the id {largest}; check tokenizer.json")
    refuse_shared_ids(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False), path)
    return tokenizer


def _read_quickly(folder: Path, special_tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that this program wrote; its class is lost."""
    settings = load_foreign_json(folder / "tokenizer_config.json")
    special = {key: settings[key] for key in special_tokens if key in settings}
    # Passing a tokenizer object would copy it, which takes longer than reading the file.
    with prints_on_stderr():  # the library prints settings that it does not know
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), padding_side="right", **special)


def added_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """The tokens that the post-processor puts before and after a text."""
    encoding = tokenizer.backend_tokenizer.encode("a")
    # A tokenizer.json may ask for padding, which has no attention.
    marked = zip(encoding.ids, encoding.special_tokens_mask, encoding.attention_mask, strict=True)
    tokens = [(token, bool(special)) for token, special, real in marked if real]
    own = [place for place, (_, special) in enumerate(tokens) if not special] or [len(tokens)]
    return [token for token, _ in tokens[: own[0]]], [token for token, _ in tokens[own[-1] + 1 :]]


def _set_special_tokens(tokenizer: PreTrainedTokenizerFast, append_eos: bool) -> None:
    opening, closing = added_tokens(tokenizer)
    if append_eos and closing and closing[-1] != tokenizer.eos_token_id:
        logger.info(
            f"texts end with {tokenizer.convert_ids_to_tokens(closing[-1])}, as the base's own tokenizer ends them "
            f"(its eos_token is {tokenizer.eos_token})"
        )
    last = [closing[-1] if closing else int(tokenizer.eos_token_id)] if append_eos else []
    name_of = {token: tokenizer.convert_ids_to_tokens(token) for token in (*opening, *last)}
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*(name_of[token] for token in opening), "$A", *(name_of[token] for token in last)],
        special_tokens=[(name, token) for token, name in name_of.items()],
    )
