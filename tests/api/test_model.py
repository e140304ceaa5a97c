"""`g4v.load`: vectors, similarity, truncation and saving, against the embedder and sentence-transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_saved import save_tiny

import gemma4vec as g4v
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.text.prompts import Document

TEXTS = ["read the file", "def tree_sort", "return a list of open files and close them"]


@pytest.fixture(scope="module")
def model(trained: Any) -> Any:
    return g4v.load(trained.run, dtype="fp32")


def test_vectors_are_the_embedders(model: Any, trained: Any) -> None:
    embedder = Embedder.load(trained.run.folder, dtype="fp32")
    np.testing.assert_array_equal(model.encode_query(TEXTS), embedder.encode_query(TEXTS))
    documents = ["a", {"text": "b", "title": "of b"}, {"text": "c"}]
    plain = ["a", Document("b", "of b"), Document("c")]
    np.testing.assert_array_equal(model.encode_document(documents), embedder.encode_document(plain))
    np.testing.assert_array_equal(model.encode(TEXTS, "x: "), embedder.encode(TEXTS, "x: "))
    assert model.prompts == embedder.prompts.as_dict() and model.max_tokens == 48


def test_one_text_is_one_vector(model: Any) -> None:
    assert model.encode_query(TEXTS[0]).shape == (model.dimension,)
    np.testing.assert_array_equal(model.encode_query(TEXTS[0]), model.encode_query(TEXTS[:1])[0])
    assert model.encode_document({"text": "a", "title": "b"}).shape == (model.dimension,)
    assert model.encode_query([]).shape == (0, model.dimension)


def test_similarity_is_the_cosine(model: Any) -> None:
    a, b = model.encode_query(TEXTS), model.encode_document(TEXTS[:2])
    expected = [[np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y) for y in 5.0 * b] for x in a]
    found = model.similarity(a, 5.0 * b)
    assert found.dtype == np.float32 and found.shape == (3, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(model.similarity(a[0], b), model.similarity(a, b)[:1], atol=1e-6)
    with pytest.raises(g4v.InputError, match=r"shapes \[3, 32\] and \[2, 31\] do not fit"):
        model.similarity(a, b[:, 1:])


def test_truncation_keeps_the_first_dimensions_at_length_one(trained: Any) -> None:
    whole, short = g4v.load(trained.run, dtype="fp32"), g4v.load(trained.run, dtype="fp32", truncate_dim=8)
    expected = whole.encode_query(TEXTS)[:, :8]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(short.encode_query(TEXTS), expected, atol=1e-6)
    assert (short.dimension, short.truncate_dim, whole.dimension) == (8, 8, 32)
    short.truncate_dim = None
    np.testing.assert_array_equal(short.encode_query(TEXTS), whole.encode_query(TEXTS))
    for bad in (0, 33, -1, 2.5, True):
        with pytest.raises(g4v.InputError, match="from 1 to 32"):
            short.truncate_dim = bad
    assert short.truncate_dim is None


def test_a_truncated_model_is_scored_as_another_one(same_home: Any) -> None:
    whole = g4v.evaluate(same_home.run, same_home.suite, dtype="fp32", progress=False)
    short = g4v.evaluate(g4v.load(same_home.run, dtype="fp32", truncate_dim=2), same_home.suite, progress=False)
    assert short.settings["model"]["dimension"] == 2 and short.settings["model"]["truncated_from"] == 32
    assert short.settings["model_fingerprint"] != whole.settings["model_fingerprint"]
    assert short.folder != whole.folder and short.metrics != whole.metrics
    assert short.settings["run"]["run_id"] == same_home.run.id


@pytest.mark.parametrize("kind", ["both-mean", "attention"])
def test_a_saved_model_returns_equal_vectors(tmp_path: Path, kind: str) -> None:
    opened = g4v.load(save_tiny(tmp_path / kind, kind), dtype="fp32")
    saved = opened.save(tmp_path / "out" / "model")
    again = g4v.load(saved, dtype="fp32")
    np.testing.assert_array_equal(again.encode_document(TEXTS), opened.encode_document(TEXTS))
    assert opened.save(saved) == saved and again.save(saved) == saved  # an earlier model, and itself
    library = again.to_sentence_transformers()
    vectors = library.encode_query(TEXTS)
    np.testing.assert_allclose(vectors, opened.encode_query(TEXTS), atol=1e-5)


def test_what_a_folder_does_not_keep_is_not_saved(model: Any, trained: Any, tmp_path: Path) -> None:
    short = g4v.load(trained.run, truncate_dim=4)
    with pytest.raises(g4v.InputError, match="keeps all 32 dimensions"):
        short.save(tmp_path / "new")
    with pytest.raises(g4v.InputError, match=r"max_tokens=40.* keeps 48"):
        g4v.load(trained.run, max_tokens=40).save(tmp_path / "new")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years")
    with pytest.raises(g4v.InputError, match="holds something else"):
        model.save(tmp_path / "mine")
    base = g4v.load(trained.recipe["model"]["base"])
    for refused in (lambda: base.save(tmp_path / "new"), base.to_sentence_transformers):
        with pytest.raises(g4v.InputError, match="a base that nobody trained"):
            refused()
    assert not (tmp_path / "new").exists()


def test_a_model_of_sentence_transformers_loads_and_saves(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny", "both-mean")
    (folder / "gemma4vec.json").unlink()  # now it is somebody else's
    opened = g4v.load(folder, dtype="fp32", max_tokens=20)
    assert opened.max_tokens == 20 and set(opened.prompts) >= {"query", "document"}
    again = g4v.load(opened.save(tmp_path / "again"), dtype="fp32", max_tokens=20)
    np.testing.assert_array_equal(again.encode_query(TEXTS), opened.encode_query(TEXTS))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model: model.encode_query(["a", 3]), "item 1 is int, not a text"),
        (lambda model: model.encode_query(5), "int is no list of texts"),
        (lambda model: model.encode_document([{"title": "t"}]), "item 0 must be a text or"),
        (lambda model: model.encode([None]), "item 0 is NoneType"),
        (lambda model: g4v.load(model), "is loaded already"),
        (lambda model: g4v.load("nobody/has-this"), "nobody/has-this"),
        (lambda model: g4v.load("no-such-run"), "no-such-run"),
        (lambda model: g4v.load(model.folder, dtype="int3"), "dtype int3: use one of"),
        (lambda model: g4v.load(model.folder, max_tokens=0), "max_tokens 0"),
        (lambda model: g4v.load(model.folder, truncate_dim=33), "truncate_dim 33: give a whole number from 1 to 32"),
    ],
)
def test_bad_input_is_one_line(model: Any, call: Any, said: str) -> None:
    with pytest.raises(g4v.InputError) as refused:
        call(model)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_model_shows_itself(model: Any) -> None:
    assert f"Model {model.name}" in repr(model) and "48 tokens" in repr(model)
    assert "<table>" in model._repr_html_() and "48 tokens" in model._repr_html_()
