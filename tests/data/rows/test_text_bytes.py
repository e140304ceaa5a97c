"""Texts as bytes, and the numbered texts of rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.data.rows.row_texts import TextsInMemory
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.rows.text_bytes import from_bytes, to_bytes
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document

# Rows keep these two bytes out of texts, and surrogates are replaced when rows are read.
WORDS = st.text(st.characters(exclude_characters="\x00\x01", exclude_categories=["Cs"]), max_size=8)
TITLES = st.none() | WORDS.filter(bool)


@given(WORDS, TITLES, WORDS, TITLES)
def test_texts_come_back_and_others_have_other_bytes(
    text: str, title: str | None, other: str, other_title: str | None
) -> None:
    one, two = Document(text, title), Document(other, other_title)
    assert from_bytes(to_bytes(one)) == one
    assert (to_bytes(one) == to_bytes(two)) == (one == two)


@pytest.mark.parametrize("key", [None, 0, -(2**63), 2**63 - 1])
def test_tokens_come_back_with_prompt_and_key(key: int | None) -> None:
    found = from_bytes(to_bytes(Document(PretokenizedText([2, 70_000, 1], 1, key)))).text
    assert isinstance(found, PretokenizedText)
    assert list(found.ids) == [2, 70_000, 1] and found.prompt == 1 and found.key == key


def test_texts_of_rows_are_numbered_in_their_order() -> None:
    rows = [Row("q", [Document("p", "t")], [Document("n")]), Row("q", [Document("q")])]
    wanted = {"all": ["q", "p", "n", "q", "q"], "queries": ["q", "q"], "documents": ["p", "n", "q"]}
    for which, texts in wanted.items():
        found = TextsInMemory(rows, which)  # type: ignore[arg-type]
        assert [found.document(number).text for number in range(len(found))] == texts
        hashes = found.hashes(0).tolist()
        assert len(set(hashes)) == len({found.document(number) for number in range(len(found))})
    assert TextsInMemory([], "all").hashes(0).shape == (0,)
