"""Which Python files are on this machine: the running environment, or a folder of a user's own code."""

import importlib.metadata
import os
import platform
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text

TEST_FOLDERS = frozenset({"test", "tests", "idle_test", "idlelib", "turtledemo", "lib2to3"})
OTHER_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules", "lib-dynload"})
BUILD_FOLDERS = frozenset({"build", "dist", "venv", "env", "virtualenv"})
# Our own package, wherever it is installed; editable installs leave only finder modules behind.
OWN = ("gemma4vec", "__editable__")


class SourceFile(NamedTuple):
    """A file: the folder that was walked, the path below it (with slashes), and its top-level package."""

    root: str
    path: str
    package: str
    size: int
    modified: int


def find_environment_files() -> list[SourceFile]:
    """Python files of the standard library and of the installed packages, ordered by path; no tests, not ourselves."""
    paths = sysconfig.get_paths()
    roots = [paths["stdlib"], paths["purelib"], paths["platlib"]]
    unique = list(dict.fromkeys(os.path.realpath(root) for root in roots))
    return sorted(
        (file for root in unique for file in _walk(Path(root), _skip_in_environment)),
        key=lambda file: (file.path, unique.index(file.root)),
    )


def find_folder_files(folder: Path) -> list[SourceFile]:
    """Python files below a folder, ordered by path; no hidden folders, virtual environments, builds or tests.

    Raises:
        InputError: there is no such folder, or no Python file in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds Python files")
    files = sorted(_walk(folder.resolve(), _skip_in_folder), key=lambda file: file.path)
    if not files:
        raise InputError(f"{folder}: no Python files (tests, hidden folders and virtual environments are passed over)")
    return files


def _skip_in_environment(folder: Path, name: str, top: bool) -> bool:
    # config-3.11-x86_64 and foo-1.0.dist-info hold no code that anybody wrote for us to read.
    return name in TEST_FOLDERS | OTHER_FOLDERS or (top and (name.startswith(OWN) or "-" in name))


def _skip_in_folder(folder: Path, name: str, top: bool) -> bool:
    if name.startswith(".") or name in TEST_FOLDERS | OTHER_FOLDERS | BUILD_FOLDERS:
        return True
    return name.endswith(".egg-info") or (folder / name / "pyvenv.cfg").exists()


def _walk(root: Path, skip: Callable[[Path, str, bool], bool]) -> Iterator[SourceFile]:
    for folder, names, files in os.walk(root):
        here = Path(folder)
        names[:] = sorted(name for name in names if not skip(here, name, here == root))
        for name in files:
            if not name.endswith(".py") or _is_test(name) or skip(here, name, here == root):
                continue
            path = (here / name).relative_to(root).as_posix()
            try:
                status = os.stat(here / name)
            except OSError:
                continue  # a dangling link is no file
            package = path.split("/", 1)[0].removesuffix(".py")
            yield SourceFile(str(root), path, package, status.st_size, status.st_mtime_ns)


def _is_test(name: str) -> bool:
    return name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"


def installed_versions() -> dict[str, str]:
    """Name -> version of every installed distribution, ordered by name, Python itself included."""
    paths = sysconfig.get_paths()
    found = importlib.metadata.distributions(path=list({paths["purelib"], paths["platlib"]}))
    versions = {distribution.metadata["Name"] or "": distribution.version for distribution in found}
    versions["python"] = platform.python_version()
    return {name: versions[name] for name in sorted(versions, key=str.lower) if name}


def hash_files(files: list[SourceFile], *further: str) -> str:
    """A hash of names, sizes and times of files (quick: reads none of them) and of what else decides the result."""
    return sha256_text(*further, *(f"{file.path}\t{file.size}\t{file.modified}" for file in files))
