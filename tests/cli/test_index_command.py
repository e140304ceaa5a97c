"""`gemma4vec index` and `search --store`: mistakes are found before a model is loaded."""

import json

import pytest
from typer.testing import CliRunner

from gemma4vec.cli.main import app
from gemma4vec.errors import InputError


def failure(*words: str) -> str:
    found = CliRunner().invoke(app, list(words))
    assert isinstance(found.exception, InputError), found.output
    return str(found.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "postgresql://host/db"], "needs #NAME"),
        (["--to", "s3://bucket"], "is no store"),
        (["--to", "x", "--field", "year"], "NAME:TYPE"),
        (["--to", "x", "--field", "vector:int"], "field 'vector'"),
        (["--to", "x", "--row-ids", "--id-field", "a"], "exclude each other"),
        (["--to", "x", "--check"], "is no vector store"),
        (["--to", "x", "--check", "--fresh"], "--check and --fresh exclude each other"),
    ],
)
def test_bad_options_of_index(tmp_path, words, message):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "a", "text": "b"}) + "\n")
    assert message in failure("index", "nowhere", str(corpus), *words)


def test_a_missing_corpus_is_named(tmp_path):
    assert "no such file" in failure("index", "nowhere", str(tmp_path / "none.jsonl"), "--to", str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--store", "x", "--all"], "exclude each other"),
        (["--exact"], "--exact is for --store"),
        (["--store", "x", "--filter", "year >"], "filter"),
    ],
)
def test_bad_options_of_search(words, message):
    assert message in failure("search", "nowhere", "query", *words)
