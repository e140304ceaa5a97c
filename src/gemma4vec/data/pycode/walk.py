"""Find Python files on this machine: those of the running environment, or of a folder of the user's own code."""

import importlib.metadata
import os
import platform
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text

TEST_FOLDERS = frozenset({"test", "tests", "idle_test", "idlelib", "turtledemo", "lib2to3"})
OTHER_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules", "lib-dynload"})
BUILD_FOLDERS = frozenset({"build", "dist", "venv", "env", "virtualenv"})
# This package is skipped wherever it is installed; of an editable install only finder modules are there.
OWN_PACKAGES = ("gemma4vec", "__editable__")


class SourceFile(NamedTuple):
    """A file.

    Attributes:
        root, path: the folder that was walked, and the file's path below it with slashes.
        package: top-level package.
        size, modified: bytes, and nanoseconds since the epoch.
    """

    root: str
    path: str
    package: str
    size: int
    modified: int


@dataclass
class _Look:
    """What was found of the environment."""

    files: list[SourceFile] | None = None
    versions: dict[str, str] | None = None


_look: ContextVar[_Look | None] = ContextVar("look", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """While this is open, the environment is looked at once: stages of a recipe that read it find the same files."""
    token = _look.set(_Look())
    try:
        yield
    finally:
        _look.reset(token)


def find_environment_files() -> list[SourceFile]:
    """Find Python files of the standard library and of installed packages, by path, without tests and this package."""
    look = _look.get() or _Look()
    if look.files is None:
        look.files = _walk_environment()
    return look.files


def _walk_environment() -> list[SourceFile]:
    paths = sysconfig.get_paths()
    roots = [paths["stdlib"], paths["purelib"], paths["platlib"]]
    unique = list(dict.fromkeys(os.path.realpath(root) for root in roots))
    return sorted(
        (file for root in unique for file in _walk(Path(root), _skip_in_environment)),
        key=lambda file: (file.path, unique.index(file.root)),
    )


def find_folder_files(folder: Path) -> list[SourceFile]:
    """Find Python files below a folder, by path, without hidden folders, virtual environments, builds and tests.

    Raises:
        InputError: the folder does not exist or has no Python files.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a folder of Python files")
    files = sorted(_walk(folder.resolve(), _skip_in_folder), key=lambda file: file.path)
    if not files:
        raise InputError(f"{folder}: no Python files (tests, hidden folders and virtual environments are skipped)")
    return files


def _skip_in_environment(folder: Path, name: str, top: bool) -> bool:
    # Top-level names with a hyphen, such as config-3.11-x86_64 and foo-1.0.dist-info, hold metadata, not source code.
    return name in TEST_FOLDERS | OTHER_FOLDERS or (top and (name.startswith(OWN_PACKAGES) or "-" in name))


def _skip_in_folder(folder: Path, name: str, top: bool) -> bool:
    if name.startswith(".") or name in TEST_FOLDERS | OTHER_FOLDERS | BUILD_FOLDERS:
        return True
    return name.endswith(".egg-info") or (folder / name / "pyvenv.cfg").exists()


def _walk(root: Path, skip: Callable[[Path, str, bool], bool]) -> Iterator[SourceFile]:
    """The Python files below a folder. An environment has ten thousands, so paths are joined as strings."""
    top = str(root)
    for folder, names, files in os.walk(root):
        here, is_top = Path(folder), folder == top
        names[:] = sorted(name for name in names if not skip(here, name, is_top))
        below = folder[len(top) :].replace(os.sep, "/").lstrip("/")
        for name in files:
            if not name.endswith(".py") or _is_test(name) or skip(here, name, is_top):
                continue
            try:
                status = os.stat(os.path.join(folder, name))
            except OSError:
                continue  # a dangling link
            path = f"{below}/{name}" if below else name
            package = path.split("/", 1)[0].removesuffix(".py")
            yield SourceFile(top, path, package, status.st_size, status.st_mtime_ns)


def _is_test(name: str) -> bool:
    return name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"


def installed_versions() -> dict[str, str]:
    """Return name -> version of every installed distribution and of Python, ordered by name."""
    look = _look.get() or _Look()
    if look.versions is None:
        look.versions = _read_versions()
    return look.versions


def _read_versions() -> dict[str, str]:
    paths = sysconfig.get_paths()
    found = importlib.metadata.distributions(path=list({paths["purelib"], paths["platlib"]}))
    # A distribution parses its file each time that it is asked for metadata.
    each = [distribution.metadata for distribution in found]
    versions = {metadata["Name"] or "": metadata["Version"] for metadata in each}
    versions["python"] = platform.python_version()
    return {name: versions[name] for name in sorted(versions, key=str.lower) if name}


def hash_files(files: list[SourceFile], *further: str) -> str:
    """Hash names, sizes and times of files, without reading them, and any `further` settings."""
    return sha256_text(*further, *(f"{file.path}\t{file.size}\t{file.modified}" for file in files))
