"""Environment of a result: package versions, the code's commit, the machine."""

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from gemma4vec.machine.describe import cpu_model, memory_bytes, usable_cores

PACKAGES = (
    "gemma4vec", "torch", "transformers", "sentence-transformers", "peft", "accelerate", "safetensors", "tokenizers",
    "numpy", "scipy", "bm25s", "pytrec-eval-terrier", "pyarrow", "datasets", "pydantic",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results depend on."""
    return dict(_versions())


@cache  # it parses the metadata of fifteen packages, 20 ms, for each run and each evaluation
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # an optional package; the record shows its absence
    return found


def environment() -> dict[str, Any]:
    """Return versions, the code's git commit (None outside a checkout) and the machine, as JSON values."""
    return {"versions": versions(), "git": git_state(Path(__file__).resolve()), "machine": machine()}


def machine() -> dict[str, Any]:
    """Return processor model, usable cores, memory in bytes, operating system."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes()[0],
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
    }


def git_state(source: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout that tracks `source`, and whether tracked files differ from it.

    None if git does not track that file: a package in a virtual environment inside another repository is not at that
    repository's commit.
    """
    if _git(source.parent, "ls-files", "--error-unmatch", source.name) is None:
        return None
    commit = _git(source.parent, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(_git(source.parent, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of a git command, or None if it fails or git is missing."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
