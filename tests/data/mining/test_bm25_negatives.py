"""BM25 hard negatives: near, never the answer, the same every time."""

import pytest

from gemma4vec.data.mining.bm25_negatives import mine_bm25
from gemma4vec.data.rows.rows import Row
from gemma4vec.text.prompts import Document

CORPUS = [Document(f"red apple number{number} {'apple ' * number}") for number in range(40)] + [Document("blue sky")]


def test_negatives_are_ranked_documents_that_are_not_the_rows_own():
    rows = [Row("red apple", [CORPUS[0]], [CORPUS[1]]), Row("sky", [Document("elsewhere")]), Row("unseen", [CORPUS[2]])]
    first, second, third = mine_bm25(rows, CORPUS, 4)
    assert first.neg[0] == CORPUS[1] and len(first.neg) == 5 and len(set(first.neg)) == 5
    assert CORPUS[0] not in first.neg and CORPUS[1] not in first.neg[1:] and CORPUS[-1] not in first.neg
    assert second.neg == [CORPUS[-1]] and third.neg == []
    assert [row.query for row in (first, second, third)] == [row.query for row in rows]


def test_the_window_is_kept_and_a_draw_does_not_depend_on_its_neighbours():
    rows = [Row(f"red apple {word}", [Document("p")]) for word in ("one", "two", "three")]
    ranked = mine_bm25(rows, CORPUS, 10, rank_window=(0, 10))[0].neg
    assert mine_bm25(rows, CORPUS, 4, rank_window=(6, 10))[0].neg == ranked[6:]
    drawn = mine_bm25(rows, CORPUS, 3, rank_window=(0, 10))
    assert all(set(row.neg) <= set(ranked) and len(row.neg) == 3 for row in drawn)
    assert mine_bm25(rows[1:], CORPUS, 3, rank_window=(0, 10)) == drawn[1:]
    assert len({tuple(row.neg) for row in drawn}) > 1


@pytest.mark.parametrize("block", [1, 2, 5])
def test_blocks_do_not_matter(log_lines, monkeypatch, block):
    rows = [Row(f"red number{number}", [CORPUS[number]]) for number in range(5)]
    whole = mine_bm25(rows, CORPUS, 2)
    monkeypatch.setattr("gemma4vec.data.mining.bm25_negatives.BLOCK", block)
    assert mine_bm25(rows, CORPUS, 2) == whole
    assert log_lines[-1].endswith("5 of 5")


def test_nothing_to_mine():
    rows = [Row("q", [Document("p")])]
    assert mine_bm25(rows, [], 0) == rows and mine_bm25([], [], 4) == []
