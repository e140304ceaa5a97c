"""Dependencies: each is pinned to the version that was tested, and the oldest versions can be listed."""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
