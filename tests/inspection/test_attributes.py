"""Attributes of queries, of queries that nobody has seen, and of rows of training data."""

from typing import Any

import pytest

from gemma4vec.data.rows.rows import Row
from gemma4vec.inspection.attributes import ATTRIBUTES, Case, Facts, describe_cases, document_frequency, split_sentences
from gemma4vec.retrieval.tokenize import tokenize_text
from gemma4vec.text.prompts import Document

CORPUS = ["cats chase mice", "cats sleep", "dogs bark at cats"]
FACTS = Facts(
    tokenize_text,
    document_frequency(CORPUS, tokenize_text),
    count_tokens=lambda document: len(document.text.split()),
    limit=5,
    detect=lambda text: "de" if "der" in text.split() else "en",
    in_training=lambda query: query == "cats",
    topic_of=lambda query: "0-cat@abc" if "cats" in query.split() else None,
)
LONG = Document("Rain fell all day. Nobody slept. The mice hid. Then the cats came home again.")


@pytest.mark.parametrize(
    ("name", "query", "gold", "expected"),
    [
        ("query_words", "two words", [], 2.0),
        ("overlap", "chasing mice quickly", [Document("cats chase mice"), Document("mice")], 2 / 3),
        ("overlap", "the of", [Document("the of")], None),
        ("gold_documents", "q", [Document("a"), Document("b")], 2.0),
        ("gold_words", "q", [Document("one two", "title"), LONG], 3.0),
        ("digits", "in 1999", [], True),
        ("digits", "then", [], False),
        ("negation", "why don\u2019t cats bark", [], True),
        ("negation", "ist kein Hund", [], True),
        ("negation", "notable knots", [], False),
        ("question_word", "In which year did it rain", [], "which"),
        ("question_word", "the cat that knows what it wants", [], "none"),
        ("rarest_word", "cats bark", [], 1.0),
        ("rarest_word", "cats", [], 3.0),
        ("rarest_word", "cats meow", [], 0.0),
        ("unknown_words", "cats meow", [], 0.5),
        ("gold_truncated", "q", [LONG], True),
        ("gold_truncated", "q", [LONG, Document("short")], False),
        ("evidence_place", "where did mice hide", [LONG], pytest.approx(2 / 3)),
        ("evidence_place", "mice", [Document("Only mice.")], None),
        ("evidence_place", "rain", [Document("Wet rain. Dry days. Sun.")], 0.0),
        ("evidence_cut", "where did mice hide", [LONG], True),
        ("evidence_cut", "when did it rain or fall", [LONG], False),
        ("evidence_cut", "quietly", [LONG], False),
        ("evidence_cut", "quietly", [], None),
        ("script", "где cat кошка", [], "cyrillic"),
        ("script", "1999", [], "none"),
        ("language", "der Hund", [], "de"),
        ("other_language", "der Hund", [Document("the dog")], True),
        ("in_training", "cats", [], True),
        ("in_training", "dogs", [], False),
        ("topic", "cats", [], "0-cat@abc"),
        ("topic", "dogs", [], None),
        ("gold_title", "q", [Document("a"), Document("b", "t")], True),
        ("gold_title", "q", [Document("a", "")], False),
    ],
)
def test_values(name: str, query: str, gold: list[Document], expected: Any) -> None:
    assert ATTRIBUTES[name].function(Case(query, gold), FACTS) == expected


def test_every_attribute_has_a_test() -> None:
    marks = test_values.pytestmark[0].args[1]
    assert {one[0] for one in marks} == set(ATTRIBUTES)


def test_rows_of_training_data_have_all_values_too() -> None:
    row = Row("why cats sleep", [Document("cats sleep"), Document("sleep")])
    values = describe_cases([Case(row.query, row.pos), Case("", [])], FACTS)
    assert set(values) == set(ATTRIBUTES)
    assert values["overlap"] == [2 / 3, None] and values["question_word"] == ["why", "none"]


def test_sentences_begin_where_they_are_found() -> None:
    text = "One here. Two!\n\nThree? "
    assert split_sentences(text) == [(0, "One here."), (10, "Two!"), (16, "Three?")]
    assert all(text[start:].startswith(sentence) for start, sentence in split_sentences(text))
    assert split_sentences("  ") == []


def test_a_model_without_a_limit_truncates_nothing() -> None:
    assert ATTRIBUTES["gold_truncated"].function(Case("q", [LONG]), Facts(tokenize_text)) is None
