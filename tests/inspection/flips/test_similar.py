"""Models beside each other: all pairs, seeds of one recipe as the floor, rankers without vectors."""

from dataclasses import replace
from pathlib import Path

import pytest
from planted_suite import PlantedModel, planted_suite

from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.files import home
from gemma4vec.inspection.flips.similar import NO_FLOOR, find_similar
from gemma4vec.inspection.inspected import Subject
from gemma4vec.ledger.run_folder import RunFolder

SUITE = planted_suite(60)


def test_pairs_and_the_floor_of_seeds(tmp_path: Path) -> None:
    runs = [RunFolder.create(home(), f"seed{n}", None, recipe_id="r", soup=True) for n in (1, 2)]
    seeds = [Subject(PlantedModel(str(n)), str(n), run=run) for n, run in enumerate(runs)]
    found = find_similar([*seeds, Subject(Bm25Model(), "bm25")], SUITE)
    assert len(found["pairs"]) == 3 and found["pairs"][0]["same_recipe"] and not found["notes"]
    first, floor = found["pairs"][0], found["floor"]
    assert first["overlap"]["mean"] == 1.0 == floor["overlap"] and floor["pairs"] == 1
    assert first["cka"] == pytest.approx(1.0) and first["rbo"]["mean"] == pytest.approx(1.0)
    assert all(one["cka"] is None for one in found["pairs"][1:]) and found["documents"] == 60


def test_without_seeds_and_bad_input() -> None:
    pair = [Subject(PlantedModel(), "planted"), Subject(Bm25Model(), "bm25")]
    found = find_similar(pair, SUITE)
    assert found["notes"] == [NO_FLOOR] and found["floor"] is None and 0 < found["pairs"][0]["overlap"]["mean"] < 1
    with pytest.raises(InputError, match="name two different models or more"):
        find_similar(pair[:1], SUITE)
    with pytest.raises(InputError, match="inspect similar: planted is a final suite"):
        find_similar(pair, replace(SUITE, role="final"))
