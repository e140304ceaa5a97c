"""A fresh virtual environment that sees only the declared dependencies of a wheel, without installing them again.

Installing torch and its neighbors takes a core some minutes, and they are already here. So each of their files is
linked from this environment, with its bytecode: what nobody declared is as absent as it is after an installation.
"""

import re
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


class DependencyError(Exception):
    """One line: which dependency is not installed here, or not in a declared version."""


def make_linked_environment(folder: Path, wheel: Path, extras: Iterable[str]) -> Path:
    """Make an environment with the dependencies of a wheel, and without the wheel; return its folder of programs.

    Raises:
        DependencyError: this environment does not have them.
    """
    venv.create(folder)
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    for found in dependencies(requirements(wheel), extras):
        link_files(found, Path(paths["purelib"]))
    return folder / "bin"


def requirements(wheel: Path) -> list[str]:
    """What the metadata of a wheel asks for."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist", [])


def dependencies(texts: Iterable[str], extras: Iterable[str]) -> list[Distribution]:
    """What is installed here of the requirements, and of what those require in turn.

    Raises:
        DependencyError: something is not installed, or in a version that is not asked for.
    """
    waiting = [(Requirement(text), frozenset(extras), "the wheel") for text in texts]
    found: dict[str, Distribution] = {}
    seen = set()
    while waiting:
        requirement, asked, by = waiting.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in asked | {""}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        try:
            known = found.setdefault(name, distribution(requirement.name))
        except PackageNotFoundError:
            raise DependencyError(f"{by} needs {requirement}, which {sys.prefix} lacks; run make test") from None
        if not requirement.specifier.contains(known.version, prereleases=True):
            raise DependencyError(f"{by} needs {requirement}, and {sys.prefix} has {known.version}; run make test")
        if (name, frozenset(requirement.extras)) not in seen:
            seen.add((name, frozenset(requirement.extras)))
            waiting += [(Requirement(text), frozenset(requirement.extras), name) for text in known.requires or ()]
    return list(found.values())


def link_files(found: Distribution, site: Path) -> None:
    """Link the files that an installation recorded; folders are made, since two packages may share one."""
    for file in found.files or ():
        if ".." in file.parts or file.suffix == ".pyc":  # a program, which would start the other environment
            continue
        link, real = site / file, Path(str(found.locate_file(file)))
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(real)
        bytecode = link.parent / "__pycache__"
        if file.suffix == ".py" and not bytecode.is_symlink() and (real.parent / "__pycache__").is_dir():
            bytecode.symlink_to(real.parent / "__pycache__")
