"""Names that become paths stay inside their folder."""

import pytest
from pydantic import ValidationError

from gemma4vec.errors import InputError
from gemma4vec.reading.names import as_name, check_name, is_name
from gemma4vec.recipe.plans.matrix import Entry, Matrix
from gemma4vec.recipe.schema import Recipe, Stage, source_of

GOOD = ["a", "warm up", "nq-train_2.1", "Bücher", "x@y=1,2", "_dev", "a<b>: c?", "漢字"]
BAD = [
    "x/../../../../escaped",
    "..",
    ".",
    "",
    " a",
    "a ",
    "a.",
    ".a",
    "-a",
    "a\\b",
    "a\nb",
    "a\x00",
    "a" * 101,
    "漢" * 70,
    "\ud800",
]


@pytest.mark.parametrize("name", GOOD)
def test_names_of_folders(name: str) -> None:
    assert check_name(name, "suite") == name
    assert as_name(name) == name


@pytest.mark.parametrize("name", BAD)
def test_other_names_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=r"^suite: the name .* cannot name a folder") as caught:
        check_name(name, "suite")
    assert len(str(caught.value).splitlines()) == 1
    assert is_name(as_name(name))


@pytest.mark.parametrize("part", [Recipe, Stage, Matrix, Entry])
def test_parts_of_recipes_and_plans_check_their_names(part: type[Recipe]) -> None:
    with pytest.raises(ValidationError) as caught:
        part.model_validate({"name": BAD[0], "recipe": "r.yaml"})
    assert any(one["loc"] == ("name",) and "cannot name a folder" in one["msg"] for one in caught.value.errors())


def test_a_source_checks_its_name() -> None:
    with pytest.raises(ValidationError, match="cannot name a folder"):
        source_of(name=BAD[0], source="jsonl", path="a.jsonl")
