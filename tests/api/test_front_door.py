"""What `import gemma4vec` promises: its names, that it is light, and that documents use nothing else."""

import ast
import doctest
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gemma4vec as g4v

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "InputError",
    "OnnxEmbedder",
    "Recipe",
    "WorkError",
    "__version__",
    "check_contamination",
    "compare",
    "evaluate",
    "load",
    "load_recipe",
    "mine_hard_negatives",
    "train",
]


def test_the_public_names_are_frozen() -> None:
    """A name more is a promise for years, a name less breaks somebody's notebook: both are decisions."""
    assert g4v.__all__ == NAMES
    assert set(NAMES) <= set(dir(g4v))
    assert all(getattr(g4v, name) is not None for name in NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_public_names_belong_to_the_package_and_are_explained(name: str) -> None:
    found = getattr(g4v, name)
    assert found.__module__ == "gemma4vec" and found.__doc__
    assert pickle.loads(pickle.dumps(found)) is found


def test_type_checkers_see_every_name() -> None:
    tree = ast.parse((ROOT / "src" / "gemma4vec" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"gemma4vec.{module}:{name}" for name, module in g4v._MODULES.items()}
    assert sorted([*seen, "__version__"]) == NAMES


def test_an_unknown_name_is_the_usual_error() -> None:
    with pytest.raises(AttributeError, match="module 'gemma4vec' has no attribute 'trian'"):
        g4v.trian  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        exec("from gemma4vec import nothing_of_this_name")
    assert not hasattr(g4v, "__wrapped__")


@pytest.mark.parametrize("code", ["import gemma4vec", "import gemma4vec; dir(gemma4vec); gemma4vec.InputError"])
def test_the_import_is_light(code: str) -> None:
    heavy = "torch transformers scipy pyarrow numpy pydantic rich"
    check = f"{code}; import sys; found = [n for n in '{heavy}'.split() if n in sys.modules]; assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True)


def snippets() -> Iterator[tuple[str, str]]:
    """(place, code) of every Python block in README and docs, and of every example."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for place, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)):
            yield f"{page.relative_to(ROOT)}#{place}", code
    for file in sorted((ROOT / "examples").glob("*.py")):
        yield str(file.relative_to(ROOT)), file.read_text("utf-8")


@pytest.mark.parametrize(("place", "code"), list(snippets()), ids=[place for place, _ in snippets()])
def test_documents_use_the_public_names_alone(place: str, code: str) -> None:
    tree = ast.parse(code)
    aliases = {"gemma4vec"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gemma4vec":
            assert node.module == "gemma4vec" and {alias.name for alias in node.names} <= set(NAMES), place
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("gemma4vec."), place
                if alias.name == "gemma4vec":
                    aliases.add(alias.asname or alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            assert node.attr in NAMES, f"{place}: {node.value.id}.{node.attr}"


def test_examples_in_docstrings_hold(same_home: Any, tmp_path: Path) -> None:
    """Every function's example runs as it is written."""
    g4v.evaluate(same_home.run, same_home.suite, progress=False)
    g4v.evaluate("bm25", same_home.suite, progress=False)
    model = g4v.load(same_home.run, dtype="fp32")
    known = {
        "folder": same_home.run.model_folder,
        "model": model,
        "out": tmp_path / "mined.jsonl",
        "recipe": same_home.recipe,
        "run": same_home.run,
        "suite": same_home.suite,
    }
    subjects = [getattr(g4v, name) for name in NAMES if name != "__version__"]
    subjects += [type(model).encode_query, type(model).encode_document, type(model).similarity]
    asked = 0
    for subject in subjects:
        parsed = doctest.DocTestParser().get_doctest(subject.__doc__, dict(known), subject.__name__, None, None)
        asked += len(parsed.examples)
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        assert runner.run(parsed).failed == 0, subject
    assert asked >= 15


def test_examples_are_documented_and_every_function_has_one() -> None:
    for name in NAMES:
        found = getattr(g4v, name)
        if callable(found) and not isinstance(found, type):
            for part in ("Args:", "Returns:", "Raises:", "Example:", ">>> import gemma4vec as g4v"):
                assert part in found.__doc__, (name, part)
