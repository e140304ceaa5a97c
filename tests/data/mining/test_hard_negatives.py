"""Mining: near, never the row's own, not too near to the positive, the same every time; against a slow loop."""

import numpy as np
import pytest

from gemma4vec.data.mining import hard_negatives
from gemma4vec.data.mining.hard_negatives import Rules, build_corpus, mine
from gemma4vec.data.mining.searchers import Bm25Searcher, ModelSearcher
from gemma4vec.data.ngrams.word_ngrams import normalize
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.text.prompts import Document


class Model:
    """Texts are the vectors that they name: `0.6 0.8` is (0.6, 0.8)."""

    name = "model"

    def _vectors(self, texts):
        found = np.array([[float(word) for word in text.split()[:2]] for text in texts], dtype=np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def encode_query(self, queries):
        return self._vectors(queries)

    def encode_document(self, documents, *, progress=None):
        return self._vectors([document.text for document in documents])


def circle(degrees, words=""):
    return f"{np.cos(np.radians(degrees)):.6f} {np.sin(np.radians(degrees)):.6f} {words}".strip()


CORPUS = [Document(circle(degrees, f"word{degrees}")) for degrees in range(0, 90, 3)]


def mined(rows, rules, *, others=CORPUS, bm25=False, model=True):
    corpus = build_corpus(rows, others)
    searchers = {"bm25": Bm25Searcher(corpus.documents) if bm25 else None}
    searchers["model"] = ModelSearcher(Model(), corpus.documents) if model else None
    return list(mine(rows, corpus, rules, **searchers))


def row(degrees, *neg):
    return Row(circle(0), [Document(circle(degrees, "positive"))], list(neg))


def test_the_best_that_are_not_the_rows_own():
    (found,) = mined([row(10, CORPUS[3])], Rules(n=3, window=(1, 5)))
    assert found.row.neg == [CORPUS[3], CORPUS[0], CORPUS[1], CORPUS[2]]
    assert [(origin.by, origin.rank) for origin in found.origins] == [
        ("given", None),
        ("model", 1),
        ("model", 2),
        ("model", 3),
    ]
    scores = [origin.scores["model"] for origin in found.origins]
    assert scores == pytest.approx([np.cos(np.radians(d)) for d in (9, 0, 3, 6)], abs=1e-5)
    assert found.positive_scores == {"model": [pytest.approx(np.cos(np.radians(10)), abs=1e-5)]}


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        (Rules(n=2, window=(3, 9)), [6, 9]),
        (Rules(n=2, window=(1, 30), share=0.95), [24, 27]),  # cos 12 * .95 = .929 = cos 21.7
        (Rules(n=2, window=(1, 30), margin=0.2), [39, 42]),  # cos 12 - .2 = .778 = cos 38.9
        (Rules(n=2, window=(1, 30), share=0.95, margin=0.2), [39, 42]),
        (Rules(n=2, window=(1, 4), share=0.95), []),
    ],
)
def test_ranks_and_the_distance_to_the_positive(rules, wanted):
    (found,) = mined([row(12)], rules, others=[one for one in CORPUS if "word12" not in one.text])
    assert [int(document.text.split("word")[1]) for document in found.row.neg] == wanted
    if not wanted:
        assert found.dropped == 4


def test_a_positive_on_the_other_side_has_a_share_too():
    rows = [Row(circle(0), [Document(circle(120, "positive"))])]
    (found,) = mined(rows, Rules(n=1, window=(1, 9), share=0.9), others=[Document(circle(121)), Document(circle(130))])
    assert found.row.neg == [Document(circle(130))]  # cos 120 = -.5, its share -.55 = cos 123.4


def test_what_is_nearer_than_the_positive_can_become_one():
    (found,) = mined([row(12, CORPUS[1], CORPUS[9])], Rules(n=2, window=(1, 9), relabel=1.0))
    assert found.row.pos[1:] == [CORPUS[1], CORPUS[0], CORPUS[2], CORPUS[3], CORPUS[4]] and found.relabelled == 5
    assert found.row.neg == [CORPUS[9], CORPUS[5], CORPUS[6]] and len(found.origins) == 3


def test_rows_with_one_query_spare_each_others_positives_in_any_spelling():
    first, second = Row("Red apple", [Document("red apple one")]), Row("red APPLE!", [Document("Red apple: two")])
    other = Row("pear", [Document("red apple three")])
    found = mined([first, second, other], Rules(n=5, window=(1, 5)), others=[], model=False, bm25=True)
    assert found[0].row.neg == found[1].row.neg == [Document("red apple three")] and found[2].row.neg == []
    assert found[0].positive_scores["bm25"][0] > 0


def test_both_searchers_take_turns_and_the_model_judges():
    rows = [Row(circle(0, "needle"), [Document(circle(10, "positive"))])]
    others = [
        *CORPUS,
        Document(circle(60, "needle")),
        Document(circle(1, "needle")),
        Document(circle(70, "needle hay")),
    ]
    (found,) = mined(rows, Rules(n=4, window=(1, 20), share=0.95), others=others, bm25=True)
    assert {origin.by for origin in found.origins} == {"model", "bm25"}
    assert all(origin.scores["model"] <= 0.95 * np.cos(np.radians(10)) + 1e-6 for origin in found.origins)
    assert Document(circle(1, "needle")) not in found.row.neg
    by_words = [one for one, origin in zip(found.row.neg, found.origins, strict=True) if origin.by == "bm25"]
    assert by_words and all("needle" in document.text for document in by_words)
    assert all("bm25" in origin.scores for origin in found.origins if origin.by == "bm25")


@pytest.mark.parametrize("block", [1, 3, 1_024])
@pytest.mark.parametrize("rules", [Rules(n=3, window=(2, 12), share=0.97), Rules(n=3, window=(1, 15), choose="draw")])
def test_equal_to_a_slow_loop_whatever_the_blocks(monkeypatch, block, rules):
    monkeypatch.setattr(hard_negatives, "BLOCK", block)
    generator = np.random.default_rng(5)
    angles = generator.permutation(360)[:40]
    documents = [Document(circle(one, f"d{one}")) for one in angles[:30]]
    rows = [Row(circle(one + 0.5, f"q{one}"), [documents[place]]) for place, one in enumerate(angles[30:])]
    found = mined(rows, rules, others=documents)
    vectors = Model().encode_document(documents).astype(np.float64)
    for one, item in zip(rows, found, strict=True):
        query = Model().encode_query([one.query])[0].astype(np.float64)
        scores = vectors @ query
        own = documents.index(one.pos[0])
        ranked = [place for place in np.argsort(-scores) if place != own][rules.window[0] - 1 : rules.window[1]]
        limit = np.inf if rules.share is None else scores[own] - (1 - rules.share) * abs(scores[own])
        fitting = [documents[place] for place in ranked if scores[place] <= limit]
        if rules.choose == "top":
            assert item.row.neg == fitting[:3]
        else:
            assert len(item.row.neg) == 3 and [one for one in fitting if one in item.row.neg] == item.row.neg
    again = mined(rows[::-1], rules, others=documents)
    assert [one.row for one in again] == [one.row for one in found[::-1]]


def test_a_corpus_has_no_text_twice_and_none_without_words():
    corpus = build_corpus([row(10), row(10)], [Document("..."), Document("A b"), Document("a, B"), Document("b", "A")])
    assert normalize(corpus.documents[0].text) == "a b" and len(corpus.documents) == 2
    with pytest.raises(InputError, match="no text"):
        build_corpus([])


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (Rules(window=(0, 50)), "from 1"),
        (Rules(window=(9, 2)), "first and last"),
        (Rules(n=10, window=(1, 9)), "fewer than the 10"),
        (Rules(relabel=1.0), "--relabel needs"),
    ],
)
def test_rules_that_make_no_sense(rules, said):
    with pytest.raises(InputError, match=said):
        mined([row(10)], rules, model=False, bm25=True)
    with pytest.raises(InputError, match="no searcher"):
        list(mine([row(10)], build_corpus([row(10)]), Rules()))
    with pytest.raises(InputError, match="row 2 has no positive"):
        list(mine([row(10), Row("a text", [])], build_corpus([row(10)]), Rules(), bm25=Bm25Searcher([Document("a")])))


def test_the_judges_scores_of_all_texts_stand_in_their_order():
    (found,) = mined([row(30, CORPUS[4])], Rules(n=3, window=(1, 5), relabel=1.0), bm25=True)
    texts = [*found.row.pos, *found.row.neg]
    by_hand = [float(Model().encode_query([circle(0)])[0] @ Model().encode_document([text])[0]) for text in texts]
    assert found.relabelled > 0 and found.scores.teacher == "model" and found.row.scores is None
    assert [*found.scores.pos, *found.scores.neg] == pytest.approx(by_hand, abs=1e-5)
