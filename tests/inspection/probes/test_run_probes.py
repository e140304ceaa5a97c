"""Planted faults are named first, each figure beside BM25 and chance; odd input is one line or a note."""

from pathlib import Path
from typing import Any

import pytest
from probe_material import WordVectors, material, probe_suite

from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject, Wanted
from gemma4vec.inspection.inspection_files import PROBES as FILE
from gemma4vec.inspection.inspection_files import load_extra
from gemma4vec.inspection.probes.registry import Material
from gemma4vec.inspection.probes.run_probes import NAMES, PROBES, chosen_probes, in_order, run_probe
from gemma4vec.inspection.probes.word_scores import WordScores

WORDS = WordScores(probe_suite().corpus, material().tokenize)
ALL = [name for name in NAMES if name != "limit"]


def measured(model: WordVectors, found: Material, names: list[str] = ALL) -> list[dict[str, Any]]:
    return in_order([run_probe(name, model, found, WORDS) for name in names])  # type: ignore[arg-type]


def test_a_model_that_reads_too_little_is_named_first() -> None:
    first = measured(WordVectors(limit=12), material(limit=12))[0]
    assert first["probe"] == "truncation" and first["clear"] and first["value"] == pytest.approx(1.0, abs=0.1)
    assert "evidence behind the limit costs" in first["sentence"] and "BM25 0%" in first["sentence"]


def test_a_model_that_reads_the_beginning_is_named_first() -> None:
    found = measured(WordVectors(decay=0.9), material())
    assert found[0]["probe"] == "position" and found[0]["clear"] and found[0]["value"] > 0.5
    even = {one["name"]: one for one in measured(WordVectors(), material(), ["position"])}
    assert not any(one["clear"] for one in even.values())


def test_lost_prompts_are_named_first() -> None:
    first = measured(WordVectors(needs="prompt"), material())[0]
    assert first["probe"] == "prompts" and first["name"] == "with the prompts retrieval" and first["clear"]
    without = measured(WordVectors(), material(), ["prompts"])
    assert not any(one["clear"] for one in without)
    assert {one["name"] for one in without} == {"with the prompts retrieval", "with the prompts code_retrieval"}


def test_bags_of_words_do_not_know_negation() -> None:
    found = {one["probe"]: one for one in measured(WordVectors(), material())}
    assert found["numbers"]["value"] > 0.9 and found["entities"]["value"] > 0.9
    assert found["numbers"]["control"] == 1.0 and found["literal"]["control"] < 0.6
    assert {one["chance"] for one in found.values()} == {0.0, 0.25, 0.5}
    assert "chance 25%" in found["negation"]["sentence"]
    assert all(one["p_holm"] >= one["p_worse"] for one in found.values())


def test_few_cases_are_a_note() -> None:
    few = material(probe_suite(5))
    found = [run_probe(name, WordVectors(), few, WORDS) for name in ALL]  # type: ignore[arg-type]
    assert all(one["note"].endswith("are too few (20 are needed)") and not one["measures"] for one in found)
    assert in_order(found) == []


def test_names_of_probes() -> None:
    assert chosen_probes("all") == list(NAMES) and chosen_probes("length, position") == ["length", "position"]
    for words in ("", "positions", "position,x"):
        with pytest.raises(InputError, match="--probes"):
            chosen_probes(words)
    assert set(PROBES) | {"prompts", "limit"} == set(NAMES)


def test_probes_are_files_of_an_inspection(tmp_path: Path) -> None:
    suite = probe_suite(80)
    found = inspect(
        Subject(WordVectors(decay=0.9), "words"), suite, tmp_path / "out", against=Subject(Bm25Model(), "bm25"),
        wanted=Wanted(("position", "limit")),
    )  # fmt: skip
    stored = load_extra(tmp_path / "out", FILE)
    assert stored is not None and [one["name"] for one in stored["probes"]] == ["position", "limit"]
    assert stored["figures"][0]["probe"] == "position" and stored["probes"][1]["curve"]["bm25"] == 1.0
    assert stored["figures"][0]["n"] == 40  # queries of the open half
    assert any(one.what.startswith("train on rows whose evidence is not first") for one in found.advice)
    inspect(Subject(WordVectors(decay=0.9), "words"), suite, tmp_path / "out")
    assert load_extra(tmp_path / "out", FILE) is None
