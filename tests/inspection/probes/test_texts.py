"""The texts of each probe: they differ in one thing, and in nothing where that is not in them."""

import numpy as np
import pytest
from probe_material import WordVectors, material, probe_suite

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.attributes import whole_text
from gemma4vec.inspection.probes import entities, length, literal, negation, numbers, position, truncation
from gemma4vec.inspection.probes.evidence import find_evidence, map_words
from gemma4vec.inspection.probes.limit import limit_curve, recall_of
from gemma4vec.inspection.probes.word_scores import WordScores
from gemma4vec.retrieval.bm25 import BM25Index
from gemma4vec.retrieval.tokenize import tokenize_code, tokenize_text
from gemma4vec.text.prompts import Document

SUITE = probe_suite()


@pytest.mark.parametrize("tokenize", [tokenize_text, tokenize_code])
def test_the_control_is_the_index_of_bm25(tokenize: object) -> None:
    texts = [whole_text(one) for one in SUITE.corpus]
    index = BM25Index.build(texts, tokenize)  # type: ignore[arg-type]
    scorer = WordScores(SUITE.corpus, tokenize)  # type: ignore[arg-type]
    for query in [*SUITE.queries[:5], "The the of unknownword"]:
        expected = index.scores(query)
        found = [scorer.score(query, one) for one in SUITE.corpus]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_evidence_is_the_sentence_with_most_words() -> None:
    found = find_evidence(SUITE.queries[0], [SUITE.corpus[0]], tokenize_text)
    assert found is not None and found.place == 3 and found.sentence.startswith("A ") and found.sentences == 6
    assert SUITE.corpus[0].text.startswith(found.before) and found.sentence not in found.before
    generator = np.random.default_rng(0)
    for share, place in ((0.0, 0), (0.5, 2), (1.0, 5)):
        text = found.with_evidence(share, generator).text
        assert text.index(found.sentence) == len(" ".join(text.split(". ")[:place])) + (2 * place if place else 0) - (
            place - 1 if place else 0
        ) or place in (2, 5)
        assert sorted(text.replace(".", "").split()) == sorted(SUITE.corpus[0].text.replace(".", "").split())
    assert found.sentence not in found.without(generator).text
    assert find_evidence("nothing shared", [SUITE.corpus[0]], tokenize_text) is None
    assert map_words("a_b, c!", str.upper) == "A_B, C!"


def test_position_moves_one_sentence_alone() -> None:
    found = position.cases(material())
    assert len(found) == 60 and set(found[0]) == {"first", "middle", "last", "removed"}
    texts = {name: document.text for name, (_, document) in found[0].items()}
    evidence = texts["first"].split(". ")[0]
    assert texts["last"].rstrip(".").endswith(evidence) and evidence not in texts["removed"]
    assert position.cases(material(limit=10)) == []


def test_length_appends_foreign_sentences() -> None:
    query, padded = length.cases(material())[0]["padded"]
    assert padded.text.startswith(SUITE.corpus[0].text) and len(padded.text.split(".")) == 10
    assert length.cases(material(limit=50)) == [] and query == SUITE.queries[0]


def test_truncation_takes_documents_whose_evidence_is_cut() -> None:
    assert truncation.cases(material()) == [] and truncation.cases(material(limit=100)) == []
    found = truncation.cases(material(limit=12))
    assert len(found) == 60 and found[0]["in front"][1].text.startswith("A ")


def test_baits_have_the_words_and_another_document() -> None:
    case = literal.cases(material())[0]
    query, right = case["right"]
    assert set(query.split()) <= set(case["bait"][1].text.replace(".", "").split())
    assert right == SUITE.corpus[SUITE.queries.index(query)] and case["bait"][1].text != right.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cats are animals.", "Cats are not animals."),
        ("Das ist ein Satz, und er ist kurz.", "Das ist nicht ein Satz, und er ist kurz."),
        ("Cats eat mice.", None),
        ("Cats are not dogs.", None),
        ("It isn't so, it is", None),
    ],
)
def test_negations(text: str, expected: str | None) -> None:
    assert negation.negate(text) == expected


def test_negated_pairs_cross() -> None:
    case = negation.cases(material())[0]
    assert " not " in case["negated, plain"][0] and " not " not in case["negated, plain"][1].text
    assert " not " in case["plain, negated"][1].text and " not " not in case["plain, negated"][0]


def test_numbers_and_names_are_replaced_in_the_document_alone() -> None:
    assert numbers.another_number("1987") == "4210" and numbers.another_number("7") == "0"
    assert numbers.another_number("725") == "158"
    case = numbers.cases(material())[0]
    assert "1000" in case["right"][1].text and "4333" in case["wrong"][1].text and "1000" not in case["wrong"][1].text
    case = entities.cases(material())[0]
    right, wrong = (case[name][1].text.split() for name in ("right", "wrong"))
    changed = [(one, other) for one, other in zip(right, wrong, strict=True) if one != other]
    assert len(changed) == 1 and changed[0][0] in SUITE.queries[0] and changed[0][1].istitle()


def test_limit_is_solved_by_words_and_by_many_dimensions() -> None:
    narrow = limit_curve(WordVectors(dimension=256), material())
    assert narrow is not None and narrow.bm25 == 1.0 and narrow.chance == 2 / narrow.documents
    sizes = sorted(narrow.recall)
    assert sizes == [8, 16, 32, 64, 128, 256] and narrow.recall[256] > narrow.recall[8] > narrow.chance
    assert narrow.queries == narrow.documents * (narrow.documents - 1) // 2
    assert narrow.random_recall[256] == pytest.approx(narrow.recall[256])
    few = RetrievalSuite(
        name="few", corpus_ids=["a"], corpus=[Document("two words")], query_ids=["q"], queries=["x"],
        qrels={"q": {"a": 1}},
    )  # fmt: skip
    assert limit_curve(WordVectors(), material(few)) is None
    scores = np.array([[0.5, 0.5, 0.1], [0.0, 0.2, 0.3]])
    assert recall_of(scores, np.array([[0, 1], [0, 1]])) == 0.75
