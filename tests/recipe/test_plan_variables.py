"""Variables of a file: filled in everywhere but where they are set, and named where they are missing."""

from pathlib import Path
from typing import Any

import pytest

from gemma4vec.errors import InputError
from gemma4vec.recipe.part import Part
from gemma4vec.recipe.plans.variables import load_with_variables


class Held(Part):
    """A small file."""

    variables: Any = None
    paths: tuple[str, ...] = ()
    settings: dict[str, Any] | None = None


def held(folder: Path, text: str, *overrides: str) -> Held:
    file = folder / "held.yaml"
    file.write_text(text)
    return load_with_variables(Held, file, "plan", overrides)


def test_variables_are_filled_in_all_the_way_down(tmp_path: Path) -> None:
    text = "variables: {root: /data, seed: 3, literal: '${root}'}\n"
    text += "paths: ['${root}/a', 'b${seed}${root}']\nsettings: {one: {two: ['${seed}', 4, null]}}"
    found = held(tmp_path, text)
    assert found.paths == ("/data/a", "b3/data")
    assert found.settings == {"one": {"two": ["3", 4, None]}}
    assert found.variables["literal"] == "${root}"  # a variable's own value is not filled in
    assert held(tmp_path, text, "variables.root=/other").paths[0] == "/other/a"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "variables: {root: null}\npaths: ['${root}']",
            r"the variable root is not set; give it with --set variables\.r",
        ),
        ("variables: {root: 1}\npaths: ['${rot}']", r"\$\{rot\} is none of its variables \(root\)"),
        ("paths: ['${rot}']", r"\$\{rot\} is none of its variables \(there are none\)"),
        ("variables: [root]", r"variables: names with their values are needed"),
    ],
)
def test_a_variable_without_a_value_is_named(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        held(tmp_path, text)
