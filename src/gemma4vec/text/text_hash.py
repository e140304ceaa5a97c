"""A 64-bit hash to find equal texts."""

import hashlib
import re
import unicodedata

import numpy as np

from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document

_WORD = re.compile(r"\w+")


# What has no width and no category Cf: fillers, joiners, selectors of variants.
_NO_WIDTH = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0),
            *(*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)),
        ),
    )
)


def visible_text(text: str) -> str:
    """A text in its compatibility form (NFKC) without characters that nobody sees, so that equal looks are equal texts.

    Without width are the category Cf (zero width spaces and joiners, soft hyphens, byte order and direction marks) and
    a few others.
    """
    if text.isascii():
        return text
    unseen = {ord(one): None for one in set(text) if unicodedata.category(one) == "Cf" or one in _NO_WIDTH}
    return unicodedata.normalize("NFKC", text.translate(unseen) if unseen else text)


def text_key(text: str | Document) -> int:
    """Hash of a text with its title, ignoring case and white space; of tokens, their `key` if they have one."""
    given = text.text if isinstance(text, Document) else text
    if isinstance(given, PretokenizedText):
        return tokens_key(np.asarray(given.ids, dtype="<i4").tobytes()) if given.key is None else given.key
    whole = text if isinstance(text, str) else f"{text.title or ''}\n{text.text}"
    return _hash(" ".join(whole.lower().split()).encode("utf-8", "replace"))


def words_key(text: str) -> str:
    """Hash of a text, 16 hexadecimal digits, ignoring compatibility forms, case, punctuation and white space.

    Texts that differ in nothing else are one text where some are held out. A text without words keeps its punctuation.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = " ".join(_WORD.findall(folded)) or " ".join(folded.split())
    return f"{_hash(words.encode('utf-8', 'replace')) % 2**64:016x}"


def tokens_key(ids: bytes) -> int:
    """Hash of token ids, as little-endian int32."""
    return _hash(b"\x00" + ids)


def _hash(raw: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little", signed=True)
