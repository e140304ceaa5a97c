"""One text as bytes: the format of a row store, and what is hashed to find exact duplicates.

A plain text is UTF-8. A title comes first, with a zero byte after it. Token ids start with a one byte, then the length
of the prompt, the key, and the ids. `data.rows.rows.CONTROL` keeps both bytes out of texts.
"""

import struct

import numpy as np

from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document

TITLE, TOKENS = b"\x00", b"\x01"
HEADER = struct.Struct("<iqi")  # prompt length, key, whether there is a key


def to_bytes(document: Document) -> bytes:
    """The bytes of a text; two texts have equal bytes exactly if they are equal."""
    text, title = document
    if isinstance(text, PretokenizedText):
        header = HEADER.pack(text.prompt, text.key or 0, text.key is not None)
        return TOKENS + header + np.asarray(text.ids, dtype="<i4").tobytes()
    raw = text.encode("utf-8", errors="replace")
    return raw if not title else title.encode("utf-8", errors="replace") + TITLE + raw


def from_bytes(raw: bytes) -> Document:
    """The inverse of `to_bytes`."""
    if raw[:1] == TOKENS:
        prompt, key, has_key = HEADER.unpack_from(raw, 1)
        ids = np.frombuffer(raw, dtype="<i4", offset=1 + HEADER.size).tolist()
        return Document(PretokenizedText(ids, prompt, key if has_key else None))
    title, separator, text = raw.partition(TITLE)
    return Document(text.decode("utf-8"), title.decode("utf-8")) if separator else Document(title.decode("utf-8"))
