"""Which run and which documents a search means."""

import io
import json

import pytest
from fake_embedder import FakeEmbedder, functions

from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.serving.search import sources
from gemma4vec.serving.search.documents import documents_from_suite
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.text.prompts import Document


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run with an index of its test corpus, the latest under home."""
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GEMMA4VEC_CACHE", str(tmp_path / "cache"))
    made = RunFolder.create(tmp_path / "home", "quickstart", "name: quickstart\n")
    made.model.mkdir()
    SearchIndex.build(made.path / "index" / "test", functions(20), FakeEmbedder())
    return made


@pytest.fixture
def embedder(monkeypatch):
    """The model that every run loads."""
    import sys
    import types

    class Loader:
        @staticmethod
        def load(path):
            return FakeEmbedder()

    module = types.ModuleType("gemma4vec.model.inference.embedder")
    module.Embedder = Loader
    monkeypatch.setitem(sys.modules, "gemma4vec.model.inference.embedder", module)


@pytest.fixture
def code(tmp_path):
    """Somebody's own code."""
    folder = tmp_path / "My Code"
    folder.mkdir()
    for name in ("one", "two"):
        body = f"    total = 0\n    for item in items:\n        total += item\n    return total  # {name}\n"
        (folder / f"{name}.py").write_text(f'def sum_{name}(items):\n    """Add the items up."""\n{body}')
    return folder


def test_the_latest_run_is_the_last_one_with_a_model(run, tmp_path):
    RunFolder.create(tmp_path / "home", "unfinished", "")
    assert sources.find_searchable_run("latest") == run.path
    assert sources.find_searchable_run(str(run.path)) == run.path
    assert sources.find_searchable_run(run.run_id) == run.path


@pytest.mark.parametrize(
    ("name", "words"), [("parse a date", 'search latest "parse a date"'), ("nothing", "no run 'nothing'")]
)
def test_what_is_no_run_is_one_line(run, name, words):
    with pytest.raises(InputError, match=words) as failure:
        sources.find_searchable_run(name)
    assert "\n" not in str(failure.value)


def test_no_run_at_all_names_quickstart(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="quickstart"):
        sources.find_searchable_run("latest")


def test_an_unfinished_run_has_no_model(run, tmp_path):
    unfinished = RunFolder.create(tmp_path / "home", "unfinished", "")
    with pytest.raises(InputError, match="no model/ yet"):
        sources.find_searchable_run(str(unfinished.path))


def test_a_query_is_answered_as_json(run, embedder, capsys):
    assert execute(["search", "latest", "three", "-k", "3", "--json"]) == 0
    out = capsys.readouterr().out
    answer = json.loads(out)
    assert out.count("\n") == 1 and answer["query"] == "three" and len(answer["hits"]) == 3
    assert set(answer["hits"][0]) == {"rank", "score", "id", "text", "path", "line"}


def test_queries_from_a_pipe_are_answered_line_by_line(run, embedder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\n\ntwo\n")))
    assert execute(["search", "--json"]) == 0
    assert [json.loads(line)["query"] for line in capsys.readouterr().out.splitlines()] == ["one", "", "two"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["latest", ""], "query is empty"),
        (["latest", "x", "--all", "--folder", "."], "exclude each other"),
        (["latest", "x", "--folder", "not/there"], "not a folder"),
        (["latest", "x", "-k", "0"], "-k"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(run, embedder, capsys, words, said):
    assert execute(["search", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_run_without_an_index_says_how_to_make_one(run, embedder, capsys):
    (run.path / "index" / "test" / "meta.json").unlink()
    assert execute(["search", "latest", "x"]) == 2
    assert "--all" in capsys.readouterr().err


def test_a_folder_is_embedded_once_and_again_where_it_changed(run, embedder, code, capsys):
    words = ["search", "latest", "sum", "--folder", str(code), "--json"]
    assert execute(words) == 0
    first = capsys.readouterr()
    assert {hit["id"] for hit in json.loads(first.out)["hits"]} == {"one.py:sum_one", "two.py:sum_two"}
    assert "2 of 2 functions" in first.err
    assert execute(words) == 0
    assert "functions" not in capsys.readouterr().err
    (code / "two.py").unlink()
    assert execute(words) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 1


def test_stopping_says_how_far_it_came_and_how_to_go_on(run, code):
    class Stopped(FakeEmbedder):
        def encode_document(self, texts):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="0 of 2 functions are embedded; run the same command to continue"):
        sources.open_index(run.path, Stopped(), False, code)


def test_folders_of_one_name_have_indexes_of_their_own(run, tmp_path):
    places = {sources.index_folder(run.path, False, tmp_path / where / "My Code") for where in ("a", "b")}
    assert len(places) == 2 and all(place.name.startswith("folder-my-code-") for place in places)


def test_documents_of_a_suite_know_their_place():
    suite = RetrievalSuite("s", ["m.py:f", "x"], [Document("def f()"), Document("text", "title")], [], [], {})
    from gemma4vec.data.pycode.extract import Function

    function = Function("m.py:f", "m", "m.py", "f", 12, "def f()", None)
    first, second = documents_from_suite(suite, [function])
    assert (first.path, first.line, second.title, second.line) == ("m.py", 12, "title", None)
