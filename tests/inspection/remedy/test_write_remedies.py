"""Recipes that `inspect remedy` writes: each loads, differs in one thing, and has a control of as many rows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from planted_suite import PlantedModel, planted_suite

from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.inspection_files import load_inspection
from gemma4vec.inspection.remedy.remedies import NO_ROWS, REMEDIES
from gemma4vec.inspection.remedy.write_remedies import write_remedies
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.recorded.fingerprint import recipe_id
from gemma4vec.recipe.schema import Recipe, source_of
from gemma4vec.text.prompts import Document

SUITE = planted_suite()


def rows(digits: int, others: int, start: int = 0) -> list[Row]:
    """Rows of which some have a digit in their query, and negatives that share words with it."""
    made = [Row(f"how is {4 * chr(97 + n)} made 7", [Document(f"{4 * chr(97 + n)} is made so")]) for n in range(digits)]
    made += [Row(f"where is {5 * chr(97 + n)}", [Document(f"{5 * chr(97 + n)} is there")]) for n in range(others)]
    return [Row(row.query, row.pos, [Document(f"other {number + start}")]) for number, row in enumerate(made)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    inspect(Subject(PlantedModel(), "planted"), SUITE, tmp_path / "found", against=Subject(Bm25Model(), "bm25"))
    write_rows(tmp_path / "rows.jsonl", rows(4, 12))
    write_rows(tmp_path / "plain.jsonl", rows(0, 12))
    write_rows(tmp_path / "more.jsonl", rows(5, 5, 50))
    return tmp_path


def recipe(place: Path, file: str = "rows.jsonl", **task: Any) -> Recipe:
    stage = {"data": [{"name": "pairs", "path": str(place / file)}], "budget": {"steps": 2}, "task": task}
    return load_recipe({"name": "small", "stages": [stage]})


def write(place: Path, changed: Recipe, name: str | None = None, suite: RetrievalSuite = SUITE, **how: Any) -> Any:
    chosen = name or load_inspection(place / "found")[1][0]["id"]
    return write_remedies(
        chosen,
        place / "found",
        changed,
        place / how.pop("out", "out"),
        lambda _: Subject(PlantedModel(), "planted"),
        lambda _: suite,
        **how,
    )


def offered(found: Any, name: str) -> dict[str, Any]:
    return next(one for one in found["remedies"] if one["name"] == name)


def read(name: str) -> Sequence[Row]:
    return load_sources(load_recipe(name).stages[0].data).rows


def test_every_remedy_loads_and_its_control_has_as_many_rows(place: Path) -> None:
    more = source_of(name="more", path=str(place / "more.jsonl"))
    found = write(place, recipe(place, hard_negatives=1, terms=[{"kind": "nce", "hardness": 0}]), sources=[more])
    assert found["rule"] == "digits is yes" and found["sources"] == [
        {"name": "pairs", "rows": 16, "matching": 4, "share": 0.25}
    ]
    assert [one["name"] for one in found["remedies"]] == list(REMEDIES)
    assert json.loads((place / "out" / "remedies.json").read_text())["remedies"] == found["remedies"]
    base = recipe_id(recipe(place, hard_negatives=1, terms=[{"kind": "nce", "hardness": 0}]))
    for name in ("reweight", "mine_negatives", "add_source"):
        one = offered(found, name)
        changed, control = load_recipe(one["recipe"]), load_recipe(one["control_recipe"])
        assert len({base, recipe_id(changed), recipe_id(control)}) == 3
        assert changed.claim is not None and control.claim is None
        assert changed.claim.slice == "digits is yes" and changed.claim.suite_fingerprint == SUITE.fingerprint
        assert (
            len(read(one["recipe"]))
            == len(read(one["control_recipe"]))
            == {"add_source": 21}.get(name, 24 if name == "reweight" else 16)
        )
    weighed = read(offered(found, "reweight")["recipe"])
    assert sum("7" in row.query for row in weighed) == 12
    mined = read(offered(found, "mine_negatives")["recipe"])
    assert all(("other" in row.neg[0].text) is ("7" not in row.query) for row in mined)
    added = read(offered(found, "add_source")["recipe"])
    assert sum("7" in row.query for row in added) == 9 and found["other_sources"][0]["share"] == 0.5
    hard = load_recipe(offered(found, "objective")["recipe"])
    assert hard.stages[0].task.terms[0].hardness == 5.0  # type: ignore[union-attr]
    again = load_recipe(offered(found, "objective")["control_recipe"])
    assert recipe_id(again) == base and again.seed == 1


def test_data_without_such_rows_says_so(place: Path) -> None:
    found = write(place, recipe(place, "plain.jsonl"))
    assert offered(found, "reweight")["why_not"] == NO_ROWS == "your data has no such rows"
    assert offered(found, "mine_negatives")["why_not"] == NO_ROWS and offered(found, "reweight")["recipe"] is None
    assert offered(found, "add_source")["why_not"] == "no other source was named (--source)"
    assert "do not" in offered(found, "architecture")["why_not"].replace("does not", "do not")
    cooler = load_recipe(offered(found, "objective")["recipe"])
    assert cooler.stages[0].task.temperature == 0.025  # type: ignore[union-attr]
    assert any("is not confirmed" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("digits", "times", "words"),
    [
        (9, 3, "a pass reads matching rows 3 times: 79% of a pass are such rows for 56%"),
        (12, 3, None),  # 75% would be 90%
        (9, 20, "a pass reads matching rows 20 times: 96% of a pass are such rows for 56%"),
        (16, 20, None),
    ],
)
def test_rows_that_are_frequent_already_are_reweighted_where_that_changes_something(
    place: Path, digits: int, times: int, words: str | None
) -> None:
    write_rows(place / "frequent.jsonl", rows(digits, 16 - digits))
    found = offered(write(place, recipe(place, "frequent.jsonl"), times=times), "reweight")
    assert (found["recipe"] is None) is (words is None)
    if words is None:
        assert f"{digits / 16:.0%} of your rows are such rows already, and would be" in found["why_not"]
    else:
        assert found["words"] == words


def test_a_longer_limit_is_offered_where_texts_are_cut(place: Path) -> None:
    from gemma4vec.inspection.predicates import parse_predicate
    from gemma4vec.inspection.remedy.remedies import architecture
    from gemma4vec.inspection.remedy.setting import Setting

    columns = {"half": ["discovery"] * 4, "digits": [True] * 4, "gold_truncated": [True, True, False, False]}
    small = recipe(place).model_copy(update={"model": recipe(place).model.model_copy(update={"max_tokens": 32})})
    rule = parse_predicate("digits is yes")
    found = architecture(Setting(rule, small, 0, [], [], columns, [40, 90, 100], 3, 0, place), place)
    assert found.changes == {"model.max_tokens": 128} and "50%" in found.words
    uncut = {**columns, "gold_truncated": [None] * 4}
    assert architecture(Setting(rule, small, 0, [], [], uncut, [], 3, 0, place), place).changes is None


def test_bad_input_is_one_line(place: Path) -> None:
    known = recipe(place)
    with pytest.raises(InputError, match="no measured gap; say what gain you claim with --effect"):
        write(place, known, "digits is no")
    with pytest.raises(InputError, match="this inspection has no slice 'abc'"):
        write(place, known, "abc")
    with pytest.raises(InputError, match="must be between 0 and 1"):
        write(place, known, effect=2.0)
    with pytest.raises(InputError, match="a remedy changes a contrast, and stage 3 is none"):
        write(place, known, stage=3)
    with pytest.raises(InputError, match="planted has changed since the inspection"):
        write(place, known, suite=planted_suite(seed=9))
    with pytest.raises(InputError, match="asks where a model cuts texts"):
        write(place, known, "gold_truncated is yes", effect=0.1)
    with pytest.raises(InputError, match="no query of planted is in the slice 'query_words > 99'"):
        write(place, known, "query_words > 99", effect=0.1)
    assert not (place / "out").exists()
    write(place, known)
    with pytest.raises(InputError, match="has files already, which recipes may name"):
        write(place, known)
