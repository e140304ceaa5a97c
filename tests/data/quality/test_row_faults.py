"""Flaws of rows that do not depend on a suite."""

from gemma4vec.data.quality.row_faults import FlawFinder
from gemma4vec.data.rows.rows import OVERLONG, Row
from gemma4vec.text.prompts import Document


def row(query, pos, *neg):
    return Row(query, [Document(pos)] if isinstance(pos, str) else pos, [Document(text) for text in neg])


def kinds(*rows, **settings):
    finder = FlawFinder(**settings)
    return [[(flaw.kind, flaw.negatives) for flaw in finder.check(one)] for one in rows]


def test_each_flaw_is_found_where_it_is():
    found = kinds(
        row("What is rain?", "Water that falls."),
        row("what is RAIN", "water that falls"),
        row("What is rain?", "Snow, melted."),
        row("Rain.", "rain"),
        row("...", "words"),
        row("a", "One answer!", "other", "one answer", "ONE ANSWER?"),
        row("long", "x" * (OVERLONG + 1)),
        row("cut", "and so on ..."),
        row("good", [Document("text", "title")], "text"),
        row("bad", [Document("text", "title")], "Title: text", "fine"),
    )
    assert found == [
        [],
        [("duplicate", ())],
        [("repeated_query", ())],
        [("positive_is_query", ())],
        [("no_words", ())],
        [("positive_is_negative", (1, 2))],
        [("overlong", ())],
        [("ellipsis", ())],
        [],
        [("positive_is_negative", (0,))],
    ]


def test_counts_and_examples_are_kept():
    finder = FlawFinder()
    for _ in range(9):
        finder.check(row("same", "row"))
    assert finder.counts == {"duplicate": 8} and finder.rows == 9
    assert [one["row"] for one in finder.examples["duplicate"]] == [2, 3, 4]


def test_a_language_is_a_flaw_only_where_one_is_expected_and_another_is_sure():
    def detect(text):
        return "de" if "der" in text else "en" if "the" in text else "und"

    rows = [row("the one", "der eine"), row("the one", "the other"), row("3", "1 2")]
    assert kinds(*rows, detect=detect, languages=["en"]) == [[("wrong_language", ())], [("repeated_query", ())], []]
    assert kinds(rows[0], detect=detect, languages=["en", "de"]) == [[]]
    assert kinds(rows[0]) == [[]]


def test_positives_that_were_cut_at_a_length_are_seen():
    def cut_of(texts):
        finder = FlawFinder()
        for number, text in enumerate(texts):
            finder.check(row(f"query {number}", text))
        return finder.find_cut()

    short = [f"An answer number {number}." for number in range(40)]
    assert cut_of(short) is None
    cut = [("word " * 100)[: 400 - number % 2] for number in range(12)]
    assert cut_of(short + cut) == {"characters": 400, "texts": 12}
    assert cut_of(short + cut[:9]) is None
    assert cut_of(short + [text[:-1] + "." for text in cut]) is None
