"""Two rooms decide whether a held-out text equals another; they must agree."""

import pytest

from gemma4vec.inversion.held_out import normalized
from gemma4vec.text.text_hash import words_key

TEXTS = [
    "Read  the File!",
    "read the file",
    "READ-the file",
    "readthe file",
    "x\u00b2 + 1",
    "x2 1",
    "...",
    "?!",
    "",
    " ",
    "\ufb01le",
]


@pytest.mark.parametrize("one", TEXTS)
def test_keys_are_equal_where_normalized_texts_are(one: str) -> None:
    for other in [*TEXTS, "file"]:
        assert (words_key(one) == words_key(other)) == (normalized(one) == normalized(other)), (one, other)
    assert len(words_key(one)) == 16 and int(words_key(one), 16) >= 0
