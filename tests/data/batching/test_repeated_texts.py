"""Repeated texts of rows, against a dictionary."""

from collections import Counter

import numpy as np
import pytest

from gemma4vec.data.batching import repeated_texts
from gemma4vec.data.batching.repeated_texts import find_repeated_texts
from gemma4vec.data.rows.rows import Row
from gemma4vec.text.prompts import Document


@pytest.mark.parametrize("block", [3, 2**18])
def test_rows_that_share_a_text(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_texts, "BLOCK", block)
    random = np.random.default_rng(0)
    rows = [
        Row(
            f"query {random.integers(25)}",
            [Document(f"text {n}") for n in random.integers(30, size=random.integers(1, 4))],
        )
        for _ in range(20)
    ]
    found = find_repeated_texts(rows)
    texts = [[("query", row.query), *(("pos", document.text) for document in row.pos)] for row in rows]
    counts = Counter(text for of_row in texts for text in of_row)
    repeated = {text for text, count in counts.items() if count > 1}
    pairs = [(number, text) for number, of_row in enumerate(texts) for text in of_row if text in repeated]
    assert found.text_count == len(repeated) and found.rows_P.tolist() == [number for number, _ in pairs]
    names = dict(zip(found.texts_P.tolist(), (text for _, text in pairs), strict=True))
    assert [names[text] for text in found.texts_P.tolist()] == [text for _, text in pairs]  # one number a text
    assert len(set(names.values())) == len(names) == len(repeated)


def test_a_query_and_a_positive_of_the_same_words_are_two_texts() -> None:
    assert find_repeated_texts([Row("a", [Document("b")]), Row("b", [Document("a")])]).text_count == 0
    assert find_repeated_texts([Row("a", [Document("b")]), Row("A ", [Document("c")])]).rows_P.tolist() == [0, 1]
