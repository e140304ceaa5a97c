"""Benchmark programs that no test runs: what they import exists, and the README lists them."""

import ast
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = sorted(path for path in BENCHMARKS.rglob("*.py") if path.name != "__init__.py")


def _names(path: Path) -> set[str]:
    """What a module defines or imports at its top level."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.If | ast.Try):
            found |= {name for child in node.body for name in _names_of_imports(child)}
    return found


def _names_of_imports(node: ast.stmt) -> set[str]:
    return {a.asname or a.name for a in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_imports_of_siblings_exist(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("benchmarks."):
            continue
        place = BENCHMARKS.parent.joinpath(*node.module.split(".")) if node.module else BENCHMARKS
        for alias in node.names:
            module = place / f"{alias.name}.py"
            assert module.exists() or alias.name in _names(place.with_suffix(".py")), f"{node.module}.{alias.name}"


def test_every_program_is_in_the_readme_and_folders_are_small() -> None:
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    programs = [path for path in MODULES if "as_program(" in path.read_text(encoding="utf-8")]
    assert len(programs) > 30
    missing = [
        str(path.relative_to(BENCHMARKS))
        for path in programs
        if path.parent.name != "shared"
        and f"`{path.relative_to(BENCHMARKS)}" not in text
        and not (path.name == "__main__.py" and f"`{path.parent.name} " in text)
    ]
    assert missing == []
    folders = [folder for folder in BENCHMARKS.rglob("*") if folder.is_dir() and folder.name != "results"]
    assert [str(folder) for folder in folders if len(list(folder.glob("*.py"))) > 17] == []
