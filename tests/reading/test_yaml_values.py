"""The reader of YAML: limits, keys that are given twice, and one line for every fault."""

from pathlib import Path

import pytest
import yaml

from gemma4vec.errors import InputError
from gemma4vec.reading.yaml_values import YamlError, loads_yaml, parse_yaml, read_yaml
from gemma4vec.recipe.load import parse_recipe, read_tree

TEN_TIMES_TEN = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, 1.5, null]",
        "base: &b {x: 1, y: 2}\nc:\n  <<: *b\n  x: 3",
        "",
        "a: 2024-02-29",
        "\ufeffa: 1",
        "a: .inf",
        'path: "a\\udcff.jsonl"',
    ],
)
def test_what_pyyaml_reads_is_read_alike(text: str) -> None:
    assert loads_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb:\n  c: 1\na: 2", "the key 'a' is given twice, in lines 1 and 4"),
        ("- {x: 1, y: 2,\n   x: 3}", "the key 'x' is given twice, in lines 1 and 2"),
        ("1: a\ntrue: b", "is given twice, in lines 1 and 2"),
        (TEN_TIMES_TEN, "line 6: over 200,000 values once its aliases"),
        ("a: &x\n  - *x", "line 2: an alias (*name) inside what it names"),
        ("[" * 60 + "]" * 60, "nested too deeply (over 50 levels)"),
        ("[" * 100_000, "nested too deeply (over 50 levels)"),
        ("a: 1\nb: 2024-13-01", "line 2: month must be in 1..12"),
        ("a: !!timestamp z", "line 1: "),
        ("a: " + "9" * 5_000, "line 1: an integer of over 300 digits"),
        ('a: "\\ud800"', "line 1: a lone surrogate"),
        ("a: !!python/object/apply:os.system [x]", "line 1, column 4: could not determine a constructor"),
        ("a: [1", "line 1, column 6: "),
        ("? [1]\n: 2", "unhashable key"),
        ("a: \x00", "special characters are not allowed"),
        ("a: 1\n---\nb: 2", "line 2, column 1: "),
    ],
)
def test_every_fault_has_its_line(text: str, reason: str) -> None:
    with pytest.raises(YamlError) as caught:
        loads_yaml(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_with_a_key_twice_is_refused_with_both_lines() -> None:
    recipe = "name: r\nstages:\n- data: []\n  budget: {steps: 2}\n  seed: 1\n  budget: {steps: 500}\n"
    with pytest.raises(InputError, match=r"^r\.yaml is not YAML: the key 'budget' is given twice, in lines 4 and 6"):
        parse_recipe(recipe, "r.yaml")


def test_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    with pytest.raises(InputError, match=r"cannot read the plan .*a\.yaml: .*utf-8"):
        read_yaml(tmp_path / "a.yaml", "plan")
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: [")
    with pytest.raises(InputError, match=r"the plan .*a\.yaml is not YAML: line 1"):
        read_yaml(tmp_path / "a.yaml", "plan")
    with pytest.raises(InputError, match="where is not YAML"):
        parse_yaml("a: *b", "where")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file here")
def test_an_endless_file_ends() -> None:
    with pytest.raises(InputError, match="cannot read the plan /dev/zero: longer than 16 MiB"):
        read_yaml("/dev/zero", "plan")


@pytest.mark.parametrize("index", ["²", "1", "-1", "9" * 30, "x"])
def test_an_override_of_a_list_needs_one_of_its_indices(index: str) -> None:
    with pytest.raises(InputError, match="is not a valid index; use 0 to 0"):
        read_tree("stages: [{a: 1}]", "r.yaml", [f"stages.{index}.a=2"])
