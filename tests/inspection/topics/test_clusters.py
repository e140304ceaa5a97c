"""Topics: planted ones are found and named, a planted gap is the largest, small suites are a note."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_suite import PlantedModel, planted_suite
from scipy.sparse import csr_matrix

from gemma4vec.data.rows.rows import Row
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.files import home
from gemma4vec.inspection.confirm import confirm
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject, Wanted
from gemma4vec.inspection.inspection_files import CLUSTERS, MAP, load_extra
from gemma4vec.inspection.predicates import parse_predicate
from gemma4vec.inspection.remedy.matching import facts_for_rows, match_rows
from gemma4vec.inspection.remedy.verify import verify
from gemma4vec.inspection.topics.clusters import cluster_queries
from gemma4vec.inspection.topics.map import read_map
from gemma4vec.inspection.topics.space import (
    TopicSpace,
    find_topics,
    main_axes,
    make_space,
    name_topics,
    space_of,
    with_topics,
)
from gemma4vec.recipe.stop_rule import Claim
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


HALF = np.arange(120) % 2 == 0


def test_topics_are_found_named_and_tested() -> None:
    suite, labels = topical()
    space = make_space(suite, HALF)
    assert isinstance(space, TopicSpace)
    values = np.random.default_rng(1).normal(0.5, 0.05, len(labels)) - 0.3 * (labels == 2)
    found = cluster_queries(suite, space, values, HALF, permutations=499)
    assert sum(one["n"] + one["n_sealed"] for one in found["clusters"]) == 120 and found["tested"] >= 2
    assigned = np.array([found["queries"][key] for key in suite.query_ids])
    for cluster in np.unique(assigned):
        assert len(np.unique(labels[assigned == cluster])) == 1  # no cluster mixes topics
    tested = [one for one in found["clusters"] if one["gap"] is not None]
    worst = min(tested, key=lambda one: one["gap"])
    assert set(worst["words"].split(", ")) <= set(TOPICS["stars"].split()) and worst["p_max_t"] < 0.01
    members = HALF & (assigned == worst["cluster"])
    assert worst["gap"] == pytest.approx(values[members].mean() - values[HALF & ~members].mean())
    assert found["fingerprint"] == space.fingerprint and worst["rule"].endswith(f"@{space.fingerprint}")


def test_main_axes_are_those_of_the_svd() -> None:
    rows = np.random.default_rng(2).normal(size=(40, 30)) * np.linspace(10, 0.1, 30)
    found = main_axes(csr_matrix(rows), 5, np.random.default_rng(0))
    _, _, expected = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(np.abs(found @ expected[:5].T), np.eye(5), atol=1e-3)
    flat = csr_matrix(np.outer(np.arange(1, 9), np.ones(4)))
    assert main_axes(flat, 3, np.random.default_rng(0)).shape == (1, 4)


def test_names_are_frequent_inside_and_rare_elsewhere() -> None:
    texts = ["the red apple", "the red cherry", "the blue sea", "the blue sky", "the odd one out"]
    names = name_topics(texts, np.array([0, 0, 1, 1, -1]), tokenize_text)
    assert names[0][0] == "red" and names[1][0] == "blue" and "the" not in names[0] and len(names) == 2


def test_small_and_empty_suites_are_notes() -> None:
    suite, _ = topical(5)  # 20 queries
    assert make_space(suite, np.ones(20, dtype=bool)) == "20 queries are too few for topics"
    suite, _ = topical()
    suite = replace(suite, queries=["unknown"] * 120)
    note = make_space(suite, HALF)
    assert note == "the queries share too few words with the documents"
    assert cluster_queries(suite, note, np.zeros(120), HALF) == {"clusters": [], "queries": {}, "note": note}


def test_a_text_belongs_to_the_nearest_frozen_center() -> None:
    suite, _ = topical()
    space = make_space(suite, HALF)
    assert isinstance(space, TopicSpace)
    unseen = ["mast and sail and anchor", "a comet", "Feathers of a nest", "nothing known", ""]
    vectors = space.vectors(unseen)
    slow = [min(range(len(space.centers)), key=lambda at: np.linalg.norm(one - space.centers[at])) for one in vectors]
    assert space.labels(unseen).tolist() == [*slow[:3], -1, -1]
    of_topics = [space.names[label].split("-")[1] for label in slow[:3]]
    assert [next(name for name, words in TOPICS.items() if word in words) for word in of_topics] == [
        "ships",
        "stars",
        "birds",
    ]
    # Sealed queries moved nothing: the space of a suite with other sealed queries is the same.
    changed = [query if HALF[row] else "orbit orbit orbit" for row, query in enumerate(suite.queries)]
    other = make_space(replace(suite, queries=changed), HALF)
    assert isinstance(other, TopicSpace) and other.fingerprint == space.fingerprint


def test_a_space_is_made_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    suite, _ = topical()
    made = find_topics(suite, HALF)
    assert isinstance(made, TopicSpace)
    with monkeypatch.context() as patch:
        patch.setattr("gemma4vec.inspection.topics.space.make_space", lambda *_: pytest.fail("made again"))
        known = find_topics(suite, HALF)
    assert isinstance(known, TopicSpace) and known.fingerprint == made.fingerprint
    assert known.topics(suite.queries) == made.topics(suite.queries)
    rule = parse_predicate(f"topic is {made.rule_value(1)}")
    made_words = ", ".join(made.names[1].split("-")[1:])
    assert str(rule) == f"topic is {made.rule_value(1)}" and rule.words() == f"the query's topic is {made_words}"
    assert rule.short() == f"topic: {made_words}" and "@" not in rule.short() + rule.words()
    columns = with_topics({"digits": [False] * 120}, rule, suite.queries)
    assert rule.mask(columns).sum() == (made.labels(suite.queries) == 1).sum() > 0
    assert with_topics({"digits": [True]}, parse_predicate("digits is yes"), ["q"]) == {"digits": [True]}
    (file,) = (home() / "topics").iterdir()
    with pytest.raises(InputError, match="names topics of two spaces"):
        space_of(parse_predicate(f"{rule} and topic is 1-x@abc"))
    file.write_bytes(file.read_bytes()[:-100])
    for name in (str(rule), "topic is 1-x@abc", "topic is ships", "topic is 1@../x"):
        with pytest.raises(InputError, match=r"are not below .*inspect again with --clusters"):
            space_of(parse_predicate(name))
    assert isinstance(find_topics(suite, HALF), TopicSpace) and space_of(rule) is not None


class OfTopics(PlantedModel):
    """Answers every query, or all but those about stars."""

    def __init__(self, weak: bool) -> None:
        super().__init__(f"weak {weak}")
        self.weak = weak

    def _vector(self, text: str) -> np.ndarray:
        stars = set(text.split()) & set(TOPICS["stars"].split())
        return super()._vector(f"7{text}" if stars and self.weak else text.replace(" stands here", ""))


def test_a_topic_goes_through_the_loop_and_the_map_holds_no_sealed_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, labels = topical()
    model, against = Subject(OfTopics(weak=True), "weak"), Subject(Bm25Model(), "bm25")
    found = inspect(model, suite, tmp_path / "out", against=against, wanted=Wanted(map=True))
    best = next(one for one in found.slices if one.view == "absolute")
    rule = parse_predicate(best.rule)
    assert best.rule.startswith("topic is ") and best.p_max_t < 0.01
    assert rule.mask(found.columns).tolist() == (labels == 2).tolist()

    assert set(load_extra(tmp_path / "out", CLUSTERS)["queries"]) == set(suite.query_ids)
    header, columns = read_map(tmp_path / "out" / "map.bin")
    assert header == load_extra(tmp_path / "out", MAP) and header["points"] == 240
    queries = columns["kind"] > 0
    assert (columns["failed"][columns["kind"] != 1] == 255).all() and queries.sum() == 120
    opened = columns["row"][columns["kind"] == 1]
    assert sorted(opened.tolist()) == np.flatnonzero(found.open).tolist()
    assert not np.array_equal(columns["row"], np.sort(columns["row"]))

    confirmed = confirm(best.id, tmp_path / "out", lambda _: model, lambda _: suite, permutations=499)
    assert confirmed.verdict == "confirmed" and confirmed.found.n_inside == (labels == 2)[~found.open].sum()
    with pytest.raises(InputError, match="is spent on planted"):
        confirm(best.id, tmp_path / "out", lambda _: model, lambda _: suite)
    rows = [Row("comets and moons", [Document("a")]), Row("bread with flour", [Document("b")])]
    assert match_rows(rows, rule, facts_for_rows(rule, suite, rows, None)).tolist() == [True, False]
    claim = Claim(slice=best.rule, suite="planted", suite_fingerprint=suite.fingerprint, smallest_effect=0.2)
    monkeypatch.setattr("gemma4vec.inspection.remedy.verify._claim", lambda runs: claim)
    verified = verify([Subject(OfTopics(weak=False), "mended")], [model], suite).judgment
    assert verified.verdict == "verified" and verified.inside.n == confirmed.found.n_inside, verified.reasons

    inspect(model, suite, tmp_path / "out", against=against)
    assert not (tmp_path / "out" / "map.bin").exists()
