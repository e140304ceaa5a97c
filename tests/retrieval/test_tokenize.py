"""Tokenisers: identifiers come apart, words come out as stems."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.retrieval.tokenize import (
    CODE_WORD,
    NAME_WEIGHT,
    STOP_WORDS,
    choose_tokenizer,
    guess_language,
    split_identifier,
    tokenize_code,
    tokenize_code_fields,
    tokenize_text,
)


@pytest.mark.parametrize(
    ("identifier", "parts"),
    [
        ("topological_sort", ["topological", "sort"]),
        ("camelCase", ["camel", "case"]),
        ("HTTPServer", ["http", "server"]),
        ("parseHTTP2Frame", ["parse", "http", "2", "frame"]),
        ("__init__", ["init"]),
        ("ID", ["id"]),
        ("utf8", ["utf", "8"]),
        ("naïveBayes", ["na", "ï", "ve", "bayes"]),
        ("X", ["x"]),
    ],
)
def test_identifiers_come_apart(identifier, parts):
    assert split_identifier(identifier) == parts


@given(st.text("abcXYZ019_éÉß漢", min_size=1, max_size=20))
def test_splitting_loses_no_character_but_underscores(word):
    assert "".join(split_identifier(word)) == word.replace("_", "").lower()


def test_text_tokens_are_stems_without_stop_words():
    assert tokenize_text("The runners were running to a hospital's X-ray") == ["runner", "were", "run", "hospit", "ray"]


def test_code_and_question_meet():
    assert set(tokenize_code("topological sorting")) <= set(tokenize_code("x = topologicalSort(g)"))
    assert "topologicalsort" in tokenize_code("topologicalSort")


def test_names_count_several_times_where_they_are_a_field():
    plain, fielded = tokenize_code("def find_cycle(G): return G"), tokenize_code_fields("def find_cycle(G): return G")
    assert plain.count("cycl") == 1 and fielded.count("cycl") == NAME_WEIGHT
    assert fielded.count("g") == plain.count("g")
    assert tokenize_code_fields("find a cycle") == tokenize_code("find a cycle")


def test_the_corpus_decides_the_language():
    german = ["Die Verteidigung gab nur wenige Punkte ab und belegte den Platz in der Liga."] * 3
    english = ["The panthers gave up just a few points and ranked sixth in the league."] * 3
    assert guess_language(german) == "german" and guess_language(english) == "english"
    assert guess_language([]) == guess_language(["", "12 34"]) == "english"
    assert choose_tokenizer(german)("Punkten") == choose_tokenizer(german)("Punkte")
    assert choose_tokenizer(english, code=True) is tokenize_code


@given(st.lists(st.lists(st.sampled_from(sorted(set().union(*STOP_WORDS.values())) + ["league"] * 9)), max_size=6))
def test_the_language_is_that_of_most_words(drawn):
    texts = [" ".join(words) for words in drawn]
    words = [word for text in texts for word in CODE_WORD.findall(text)]
    covered = {language: len([word for word in words if word in stop]) for language, stop in STOP_WORDS.items()}
    best = max(covered, key=covered.__getitem__)
    assert guess_language(texts) == (best if covered[best] > 1.2 * covered["english"] else "english")
