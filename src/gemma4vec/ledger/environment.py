"""What a result depends on besides the recipe: package versions, the code's commit, the machine."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from gemma4vec.machine.describe import cpu_model, memory_bytes, usable_cores

PACKAGES = (
    "gemma4vec", "torch", "transformers", "sentence-transformers", "peft", "accelerate", "safetensors", "tokenizers",
    "numpy", "scipy", "bm25s", "pytrec-eval-terrier", "pyarrow", "datasets", "pydantic",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Python's version and those of the installed packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # an optional package; its absence is what the record says
    return found


def environment() -> dict[str, Any]:
    """Versions, the code's git commit (None where it does not run from a checkout) and the machine, as JSON values."""
    return {"versions": versions(), "git": git_state(Path(__file__).resolve()), "machine": machine()}


def machine() -> dict[str, Any]:
    """Processor model, usable cores, memory in bytes, operating system."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes()[0],
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
    }


def git_state(source: Path) -> dict[str, Any] | None:
    """Commit of the checkout that tracks `source`, and whether tracked files differ from it.

    None where git does not track that file: a package in a virtual environment inside somebody's repository is not at
    that repository's commit.
    """
    if _git(source.parent, "ls-files", "--error-unmatch", source.name) is None:
        return None
    commit = _git(source.parent, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(_git(source.parent, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command, or None where it fails or there is no git."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
