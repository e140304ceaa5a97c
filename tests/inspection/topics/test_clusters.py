"""Topics: planted ones are found and named, a planted gap is the largest, small suites are a note."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_suite import PlantedModel, planted_suite
from scipy.sparse import csr_matrix

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject, Wanted
from gemma4vec.inspection.inspection_files import CLUSTERS, MAP, load_extra
from gemma4vec.inspection.topics.clusters import cluster_queries, main_axes, name_clusters, query_space
from gemma4vec.inspection.topics.map import read_map
from gemma4vec.retrieval.tokenize import tokenize_text
from gemma4vec.text.prompts import Document

TOPICS = {"ships": "harbor sail anchor mast", "bread": "flour yeast oven crust", "stars": "orbit comet moon nebula"}
TOPICS["birds"] = "feather wing nest beak"


def topical(each: int = 30) -> tuple[RetrievalSuite, np.ndarray]:
    """Queries and documents of four topics."""
    generator, rows, labels = np.random.default_rng(0), [], []
    for label, words in enumerate(TOPICS.values()):
        for _ in range(each):
            rows.append(" ".join(generator.choice(words.split(), 3, replace=False)))
            labels.append(label)
    suite = planted_suite(len(rows))
    return replace(suite, queries=rows, corpus=[Document(f"{text} stands here") for text in rows]), np.array(labels)


def test_topics_are_found_named_and_tested() -> None:
    suite, labels = topical()
    open_N = np.arange(len(labels)) % 2 == 0
    values = np.random.default_rng(1).normal(0.5, 0.05, len(labels)) - 0.3 * (labels == 2)
    found = cluster_queries(suite, tokenize_text, values, open_N, permutations=499)
    assert sum(one["n"] + one["n_sealed"] for one in found["clusters"]) == 120 and found["tested"] >= 2
    assigned = np.array([found["queries"][key] for key in suite.query_ids])
    for cluster in np.unique(assigned):
        assert len(np.unique(labels[assigned == cluster])) == 1  # no cluster mixes topics
    tested = [one for one in found["clusters"] if one["gap"] is not None]
    worst = min(tested, key=lambda one: one["gap"])
    assert set(worst["words"].split(", ")) <= set(TOPICS["stars"].split()) and worst["p_max_t"] < 0.01
    members = open_N & (assigned == worst["cluster"])
    assert worst["gap"] == pytest.approx(values[members].mean() - values[open_N & ~members].mean())
    assert cluster_queries(suite, tokenize_text, values, open_N, permutations=499) == found


def test_main_axes_are_those_of_the_svd() -> None:
    rows = np.random.default_rng(2).normal(size=(40, 30)) * np.linspace(10, 0.1, 30)
    found = main_axes(csr_matrix(rows), 5, np.random.default_rng(0))
    _, _, expected = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(np.abs(found @ expected[:5].T), np.eye(5), atol=1e-3)
    flat = csr_matrix(np.outer(np.arange(1, 9), np.ones(4)))
    assert main_axes(flat, 3, np.random.default_rng(0)).shape == (1, 4)


def test_names_are_frequent_inside_and_rare_elsewhere() -> None:
    texts = ["the red apple", "the red cherry", "the blue sea", "the blue sky"]
    names = name_clusters(texts, np.array([0, 0, 1, 1]), tokenize_text)
    assert names[0].startswith("red") and names[1].startswith("blue") and "the" not in names[0].split(", ")


def test_small_and_empty_suites_are_notes() -> None:
    suite, _ = topical(5)  # 20 queries
    found = cluster_queries(suite, tokenize_text, np.zeros(20), np.ones(20, dtype=bool))
    assert found["clusters"] == [] and found["note"] == "20 queries are too few for topics"
    suite, _ = topical()
    suite = replace(suite, queries=["unknown"] * 120)
    assert np.abs(query_space(suite, tokenize_text, 0)).max() < 1e-9
    found = cluster_queries(suite, tokenize_text, np.zeros(120), np.ones(120, dtype=bool))
    assert found["note"] == "the queries share too few words with the documents"


def test_topics_and_the_map_are_files_without_sealed_values(tmp_path: Path) -> None:
    suite, _ = topical()
    against = Subject(Bm25Model(), "bm25")
    found = inspect(
        Subject(PlantedModel(), "planted"), suite, tmp_path / "out", against=against, wanted=Wanted(map=True)
    )
    assert set(load_extra(tmp_path / "out", CLUSTERS)["queries"]) == set(suite.query_ids)
    header, columns = read_map(tmp_path / "out" / "map.bin")
    assert header == load_extra(tmp_path / "out", MAP) and header["points"] == 240
    queries = columns["kind"] > 0
    assert (columns["failed"][columns["kind"] != 1] == 255).all() and queries.sum() == 120
    opened = columns["row"][columns["kind"] == 1]
    assert sorted(opened.tolist()) == np.flatnonzero(found.open).tolist()
    assert not np.array_equal(columns["row"], np.sort(columns["row"]))
    inspect(Subject(PlantedModel(), "planted"), suite, tmp_path / "out", against=against)
    assert not (tmp_path / "out" / "map.bin").exists()
