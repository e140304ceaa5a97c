"""What denoising needs of base, tokenizer and texts, checked before weights are loaded."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from gemma4vec.data.denoising.spans import SHORTEST, most_spans
from gemma4vec.errors import InputError
from gemma4vec.model.backbone.lm_head import refuse_encoder
from gemma4vec.model.denoiser.decoder import Decoder
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.tokenize.tokenizer import Counts
from gemma4vec.recipe import schema
from gemma4vec.text.prompts import Prompted

# Texts that are tokenized at a time, to find one that is long enough.
_TEXTS = 256


@dataclass(frozen=True)
class Markers:
    """Token ids that denoising puts into texts.

    Attributes:
        sentinels: mark hidden spans, the first span's first.
        start: what the decoder reads first (BOS).
        end: what it predicts last (EOS).
        special: special tokens; those at a text's ends are never hidden.
    """

    sentinels: tuple[int, ...]
    start: int
    end: int
    special: frozenset[int]


def find_markers(settings: schema.Ul2, built: EmbeddingModel, limit: int, key: str = "task") -> Markers:
    """The tokens of a task; `limit` is its longest text in tokens, `key` names the task in complaints.

    Raises:
        InputError: a sentinel is missing, there are fewer than spans, or the tokenizer has no BOS or EOS.
    """
    tokenizer = built.tokenizer.hf_tokenizer
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise InputError("model.base: ul2 needs a BOS and an EOS token, and the tokenizer lacks one; use another base")
    spans = {denoiser.label: most_spans(limit, denoiser) for denoiser in settings.mix}
    label, needed = max(spans.items(), key=lambda one: one[1])
    rows = int(built.encoder.backbone.config.vocab_size)
    known = {token: number for token, number in tokenizer.get_vocab().items() if number < rows}
    found = _sentinels(settings.sentinels, known, needed, key)
    if len(found) < needed:
        raise InputError(
            f"{key}.sentinels: the vocabulary has {len(found)} of the {needed} sentinels that a text of {limit} tokens "
            f"needs under denoiser {label}; name others, or use longer spans or a smaller batch.document_tokens"
        )
    special = frozenset(int(one) for one in tokenizer.all_special_ids) - set(found)
    return Markers(tuple(found), int(tokenizer.bos_token_id), int(tokenizer.eos_token_id), special)


def _sentinels(wanted: str | tuple[str, ...], known: Mapping[str, int], needed: int, key: str) -> list[int]:
    if isinstance(wanted, str):
        names = [wanted.replace("{}", str(number)) for number in range(needed)]
        return [known[name] for name in names[: next((n for n, name in enumerate(names) if name not in known), None)]]
    missing = next((name for name in wanted if name not in known), None)
    if missing is not None:
        raise InputError(f"{key}.sentinels: the vocabulary has no token {missing!r}; name tokens that it has")
    return [known[name] for name in wanted[:needed]]


def edges(ids: Sequence[int], special: Collection[int]) -> tuple[int, int]:
    """Number of special tokens at the beginning and at the end of a text."""
    opening = next((n for n, token in enumerate(ids) if token not in special), len(ids))
    closing = next((n for n, token in enumerate(reversed(ids[opening:])) if token not in special), 0)
    return opening, closing


def check_denoising(stage: schema.Stage, built: EmbeddingModel, max_tokens: int, key: str) -> None:
    """Refuse a base that cannot be trained by denoising; `built` may be on the meta device.

    Raises:
        InputError: it is an encoder, or no Gemma 3; or it has too few layers or sentinels.
    """
    if not isinstance(stage.task, schema.Ul2):
        return
    refuse_encoder(built.encoder.backbone, "ul2")
    try:
        Decoder(built.encoder.backbone, stage.task.decoder)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None
    find_markers(stage.task, built, min(stage.batch.document_tokens or max_tokens, max_tokens), key)


def check_lengths(texts: Sequence[str], built: EmbeddingModel, limit: int, key: str) -> None:
    """Refuse texts of which none has two tokens, one to hide and one to keep.

    Raises:
        InputError: one line with the number of texts.
    """
    tokenizer = replace(built.tokenizer, counts=Counts())  # a run counts what it reads itself
    special = frozenset(tokenizer.hf_tokenizer.all_special_ids)
    for first in range(0, len(texts), _TEXTS):
        part = [texts[n] for n in range(first, min(first + _TEXTS, len(texts)))]
        for tokens in tokenizer.encode([Prompted("", text) for text in part], limit):
            if tokens.length - sum(edges(tokens.ids, special)) >= SHORTEST:
                return
    raise InputError(
        f"{key}: none of the {len(texts)} texts has {SHORTEST} tokens or more, so nothing can be hidden; use longer "
        "texts, or a larger batch.document_tokens"
    )
