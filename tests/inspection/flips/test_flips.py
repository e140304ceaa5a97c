"""The reading list: open queries alone, sorted by what exceeds seed noise, both top tens with grades."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostile_page import HOSTILE, Page
from planted_suite import PlantedModel, planted_suite

from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.inspection.flips.flips import NO_SEEDS, find_flips, seed_noise
from gemma4vec.inspection.inspected import Subject
from gemma4vec.ledger.suite_halves import split_halves
from gemma4vec.report.flips_page import render_flips
from gemma4vec.text.prompts import Document

SUITE = planted_suite(80)
BM25 = Subject(Bm25Model(), "bm25")


class Salted(PlantedModel):
    """Another training: queries with a digit have other random vectors."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(fingerprint)
        self.name = fingerprint

    def _vector(self, text: str) -> np.ndarray:
        return super()._vector(f"{text} {self.fingerprint}" if "7" in text else text)


def test_lost_queries_are_listed_with_both_top_tens() -> None:
    found = find_flips([BM25], [Subject(PlantedModel(), "planted")], SUITE)
    sealed = split_halves(SUITE.fingerprint, SUITE.query_ids)
    assert sealed is not None
    opened = {key for key, one in zip(SUITE.query_ids, sealed, strict=True) if not one}
    listed = found["list"]
    assert {one["query_id"] for one in listed} <= opened and found["queries"] == 40 and found["gained"] == 0
    asked = dict(zip(SUITE.query_ids, SUITE.queries, strict=True))
    assert listed and all("7" in asked[one["query_id"]] for one in listed)
    assert found["lost"] == sum(one["flip"] == "lost" for one in listed) > 3
    differences = [abs(one["difference"]) for one in listed]
    assert differences == sorted(differences, reverse=True) and found["notes"] == [NO_SEEDS]
    first = listed[0]
    assert first["rank_a"] == 1 and first["top_a"][0]["doc_id"] == first["right"][0]
    assert first["top_a"][0]["grade"] == 1 and len(first["top_a"][0]["shared"]) == 2
    assert all(one["grade"] is None for one in first["top_b"]) and len(first["top_b"]) == 10
    assert find_flips([BM25], [Subject(PlantedModel(), "planted")], SUITE, most=2)["list"] == listed[:2]


def test_queries_that_are_sealed_in_the_whole_suite_are_counted_and_not_listed() -> None:
    planted = Subject(PlantedModel(), "planted")
    find_flips([BM25], [planted], SUITE)  # the ledger knows the whole from now on
    part = replace(sample_suite(SUITE, 60, None), name="part", halves=None)  # cut out by somebody else
    found = find_flips([BM25], [planted], part)
    whole, own = (split_halves(one.fingerprint, one.query_ids) for one in (SUITE, part))
    assert whole is not None and own is not None
    sealed = {key for key, one in zip(SUITE.query_ids, whole, strict=True) if one}
    opened = {key for key, one in zip(part.query_ids, own, strict=True) if not one}
    assert found["withheld"] == len(opened & sealed) > 5 and found["queries"] == 30
    assert {one["query_id"] for one in found["list"]} <= opened - sealed
    assert len(found["list"]) < found["differing"] and found["lost"] > sum(
        one["flip"] == "lost" for one in found["list"]
    )
    (note,) = found["notes"][1:]
    assert note.startswith(f"{found['withheld']} queries of the open half are sealed in another suite")


def test_seeds_are_the_noise() -> None:
    seeds = [Subject(Salted(name), name) for name in ("one", "two", "three")]
    found = find_flips([seeds[0], seeds[1]], [seeds[2]], SUITE)
    values = [np.array([[0.2, 0.5, 1.0], [0.2, 0.9, 0.0]]), np.array([[0.1, 0.2, 0.3]])]
    np.testing.assert_allclose(seed_noise(values), [0.0, 0.4, 1.0])
    assert found["flipped_between_seeds"] is not None and not found["notes"]
    assert found["above_noise"] <= found["differing"] and found["a"]["seeds"] == ["two"]
    for one in found["list"]:
        assert one["excess"] == pytest.approx(max(0.0, abs(one["difference"]) - one["noise"]))
    excesses = [one["excess"] for one in found["list"]]
    assert excesses == sorted(excesses, reverse=True)


def test_bad_input_is_one_line() -> None:
    planted = Subject(PlantedModel(), "planted")
    with pytest.raises(InputError, match="one model is on both sides"):
        find_flips([BM25], [planted, BM25], SUITE)
    with pytest.raises(InputError, match="flips shows single queries: planted is a final suite"):
        find_flips([BM25], [planted], replace(SUITE, role="final"))
    one = replace(SUITE, query_ids=["q0"], queries=SUITE.queries[:1], qrels={"q0": {"d0": 1}})
    with pytest.raises(InputError, match="planted has no sealed query"):
        find_flips([BM25], [planted], one)


def test_hostile_texts_are_texts_on_the_page(tmp_path: Path) -> None:
    suite = planted_suite(60)
    suite.queries = [f"{query} {HOSTILE}" if "7" in query else query for query in suite.queries]
    suite.corpus = [Document(f"{text} {HOSTILE}") for text, _ in suite.corpus]
    found = find_flips([BM25], [Subject(PlantedModel(), "planted")], suite)
    page = Page(render_flips(found, suite))
    assert not {"script", "img"} & set(page.tags) and "src" not in dict(page.attributes)
    assert "\x1b" not in page.text and "{{ 7 * 7 }}" in page.text
    assert page.tags.count("details") == len(found["list"]) and found["list"][0]["query_id"] in page.text
