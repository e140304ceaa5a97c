"""Answering queries: at a prompt, from lines, as JSON; texts of others cannot harm the terminal."""

import io
import json
import re

import numpy as np
import pytest
from fake_embedder import FakeEmbedder, functions
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gemma4vec.errors import InputError
from gemma4vec.serving.search import session as session_module
from gemma4vec.serving.search.display import excerpt, lines_per_hit, sanitize, to_one_line
from gemma4vec.serving.search.documents import IndexedDocument
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.search.session import SearchSession, print_answer

EVIL = "\x1b[2J\x07\x9b31m\u202edrowssap\x00[bold]"


@pytest.fixture
def session(tmp_path):
    documents = [*functions(20), IndexedDocument(f"evil{EVIL}.py:f", f"def f():\n    return '{EVIL}'\n", line=7)]
    return SearchSession(FakeEmbedder(), SearchIndex.build(tmp_path / "index", documents, FakeEmbedder()), 21)


def printed(terminal: bool = False, width: int = 100, height: int = 40) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=terminal, color_system=None)


def test_answers_show_every_hit_with_score_id_and_line(session):
    console = printed()
    print_answer(console, session.ask("find me"))
    text = console.file.getvalue()
    assert len(re.findall(r"^ ?\d+  -?\d\.\d{3}  ", text, re.M)) == 21
    assert "p/m.py:f3:4" in text and "def f3():" in text and "return 3" in text


def test_control_characters_do_not_reach_the_terminal(session):
    console = printed()
    print_answer(console, session.ask(f"query {EVIL}"))
    text = console.file.getvalue()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "[bold]" in text  # and rich's own markup is text, too
    assert all(ord(character) < 128 for character in session.ask(EVIL).as_json())


@given(st.text())
def test_harmless_text_is_printable_and_keeps_the_rest(text):
    shown = sanitize(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    shown.encode("utf-8")
    kept = [character for character in text if character.isalnum()]
    assert [character for character in shown if character.isalnum()] == kept


@given(st.text(max_size=300), st.integers(min_value=8, max_value=60))
def test_one_line_fits(text, width):
    assert len(to_one_line(text, width)) <= width and "\n" not in to_one_line(text, width)


def test_long_texts_are_cut():
    shown, left_out = excerpt("x" * 100_000 + "\n" + "y\n" * 50, 3)
    assert len(shown) < 500 and left_out == 48
    assert to_one_line("x" * 100_000, 30) == "x" * 27 + "..."


@pytest.mark.parametrize(("height", "hits"), [(24, 5), (40, 5), (60, 10), (24, 1), (24, 0)])
def test_hits_fit_the_screen(height, hits):
    lines = lines_per_hit(height, hits)
    # A head, the lines, what was left out and a blank one for each hit, and the closing line.
    assert lines == 2 or hits * (lines + 3) + 3 <= height


def test_hits_on_a_terminal_fit_its_screen(tmp_path):
    long = [IndexedDocument(f"m.py:f{i}", "def f():\n" + "    x = 1\n" * 99, line=1) for i in range(5)]
    session = SearchSession(FakeEmbedder(), SearchIndex.build(tmp_path / "index", long, FakeEmbedder()), 5)
    console = printed(terminal=True, height=40)
    print_answer(console, session.ask("q"))
    assert console.file.getvalue().count("\n") <= 40
    assert "more lines" in console.file.getvalue()


@pytest.mark.parametrize("query", ["", "   ", "\t"])
def test_a_blank_query_has_no_hits(session, query):
    assert session.ask(query).hits == []


@pytest.mark.parametrize("query", ["x" * 100_000, "\ud800 alone", "\x00"])
def test_odd_queries_are_answered(session, query):
    answer = session.ask(query)
    assert len(answer.hits) == 21
    assert json.loads(answer.as_json())["query"] == query


def test_lines_are_answered_one_for_one(session):
    answers: list[dict] = []
    session.answer_lines(
        ["one\n", "\n", "two\r\n", "three"], lambda answer: answers.append(json.loads(answer.as_json()))
    )
    assert [answer["query"] for answer in answers] == ["one", "", "two", "three"]
    assert [len(answer["hits"]) for answer in answers] == [21, 0, 21, 21]
    scores = [hit["score"] for hit in answers[0]["hits"]]
    assert scores == sorted(scores, reverse=True)


def run_prompt(session, monkeypatch, tmp_path, lines):
    waiting = iter(lines)

    def fake_input(_):
        line = next(waiting, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr("builtins.input", fake_input)
    console = printed(width=200)
    session.prompt(console, tmp_path / "cache" / "history")
    return console.file.getvalue(), list(waiting)


def test_the_prompt_answers_and_knows_its_commands(session, monkeypatch, tmp_path):
    lines = [":show 1", ":k 2", "anything", ":show 2", ":show 9", ":nonsense", ":k zero"]
    text, left = run_prompt(session, monkeypatch, tmp_path, lines)
    assert not left
    assert "search for something first" in text and "hits to show: 2" in text and "2 hits in" in text
    assert "use :show N with N from 1 to 2" in text
    assert text.count("show the whole text of hit 2") == 2  # the help, for both that are no commands


def test_an_empty_line_ends_the_prompt(session, monkeypatch, tmp_path):
    _, left = run_prompt(session, monkeypatch, tmp_path, ["one", "", "never asked"])
    assert left == ["never asked"]


def test_show_prints_the_whole_text(session, monkeypatch, tmp_path):
    session.index = SearchIndex.build(
        tmp_path / "long",
        [IndexedDocument("m.py:f", "def f():\n" + "".join(f"    x{i} = 1\n" for i in range(99)))],
        FakeEmbedder(),
    )
    text, _ = run_prompt(session, monkeypatch, tmp_path, ["q", ":show 1"])
    assert text.count("x98 = 1") == 1 and text.count("x0 = 1") == 2


def test_k_below_one_is_refused(session):
    with pytest.raises(InputError):
        SearchSession(session.embedder, session.index, 0)


def test_stdin_is_read_as_utf8_whatever_comes(monkeypatch):
    class SourceReader:
        buffer = io.BytesIO(b"gr\xc3\xbcn\n\xff\xfe bad\n")

    monkeypatch.setattr(session_module.sys, "stdin", SourceReader)
    assert list(session_module.stdin_lines()) == ["grün\n", "\ufffd\ufffd bad\n"]


def test_vectors_of_queries_are_those_of_the_embedder(session):
    vector = FakeEmbedder().encode_query(["what"])[0]
    best = session.ask("what").hits[0]
    assert best.score == pytest.approx(float(np.max(np.asarray(session.index.vectors_MD) @ vector)), abs=1e-5)
