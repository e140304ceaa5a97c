"""Vectors of layers: the last one is the model's own; scores against a plain ranking; refusals in one line."""

from pathlib import Path

import numpy as np
import pytest
from planted_suite import PlantedModel, planted_suite
from tiny_saved import save_tiny

from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.metrics import per_query
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject, Wanted
from gemma4vec.inspection.inspection_files import LAYERS, load_extra
from gemma4vec.inspection.layers.scores import layer_scores
from gemma4vec.inspection.layers.states import find_embedder, layer_vectors, pools_by_itself
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.text.prompts import Document

TEXTS = ["one short text", "another text that is a little longer than the first one", "7"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Embedder]:
    folder = tmp_path_factory.mktemp("models")
    kinds = ("both-mean", "causal-last", "layers")
    return {kind: Embedder.load(str(save_tiny(folder / kind, kind)), dtype="fp32") for kind in kinds}  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["both-mean", "causal-last"])
def test_the_last_layer_is_the_models_own_vector(models: dict[str, Embedder], kind: str) -> None:
    model = models[kind]
    assert pools_by_itself(model)
    found = layer_vectors(model, [model.prompts.for_query(text) for text in TEXTS])
    assert found.shape == (3, 3, model.dimension)
    np.testing.assert_allclose(found[-1], model.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1.0, atol=1e-5)
    assert np.abs(found[1] - found[2]).max() > 0.01


def test_layers_of_a_readout_with_parameters_are_means(models: dict[str, Embedder]) -> None:
    model = models["layers"]
    assert not pools_by_itself(model)
    found = layer_vectors(model, [model.prompts.for_document(Document(text)) for text in TEXTS])
    assert len(found) == 3 and np.abs(found[-1] - model.encode_document(TEXTS)).max() > 0.01


def test_scores_of_layers(models: dict[str, Embedder], tmp_path: Path) -> None:
    suite = planted_suite(60)
    model = CachedEmbedder(models["both-mean"])
    assert find_embedder(model) is models["both-mean"]
    found = layer_scores(model, suite, range(40), seed=1)
    assert [one["layer"] for one in found["layers"]] == [0, 1, 2] and found["queries"] == 40
    last = found["layers"][-1]
    assert last["minus_last"] == 0.0 and last["p_holm"] is None and last["cka_with_last"] == pytest.approx(1.0)
    queries, documents = model.encode_query(suite.queries[:40]), model.encode_document(suite.corpus)
    scores = queries @ documents.T
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    expected = per_query(order, ranked, suite.query_ids[:40], suite.corpus_ids, suite.qrels, ("ndcg@10",))["ndcg@10"]
    assert last["ndcg@10"] == pytest.approx(expected.mean(), abs=0.02)
    assert (
        found["best_score"] == pytest.approx(max(one["ndcg@10"] for one in found["layers"]))
        and found["pooling"] == "mean"
    )
    assert layer_scores(model, suite, range(5))["note"] == "5 queries are too few (20 are needed)"


def test_layers_are_a_file_of_an_inspection(models: dict[str, Embedder], tmp_path: Path) -> None:
    suite = planted_suite(60)
    inspect(Subject(models["causal-last"], "tiny"), suite, tmp_path / "out", wanted=Wanted(layers=True))
    stored = load_extra(tmp_path / "out", LAYERS)
    assert len(stored["layers"]) == 3 and stored["pooling"] == "last_token"
    with pytest.raises(InputError, match="--layers reads models that gemma4vec trained or opened as a base"):
        inspect(Subject(PlantedModel(), "planted"), suite, tmp_path / "other", wanted=Wanted(layers=True))
