"""Steps of an inspection on disk: each is computed once for a model, a suite and a version of the code.

`cache()/inspect/<key>/<step>.npz`, arrays of numbers and strings without pickles. A killed inspection goes on behind
the last step that it finished; a damaged file is computed again.
"""

import json
import zipfile
from collections.abc import Callable, Mapping
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np

from gemma4vec.files import NPY_ERRORS, atomic_write, cache, optional_file, sha256_text
from gemma4vec.machine.versions import installed_version

Arrays = dict[str, np.ndarray]
ROOMS = ("inspection", "evaluation/scoring", "retrieval", "statistics")
COMPUTES = ("numpy", "scipy", "bm25s", "pytrec-eval-terrier")


class Steps:
    """The steps of one model on one suite."""

    def __init__(self, fingerprint: str, described: Mapping[str, Any], suite_fingerprint: str):
        key = sha256_text(
            fingerprint,
            json.dumps(described, sort_keys=True, default=str),
            suite_fingerprint,
            *(f"{package} {installed_version(package)}" for package in COMPUTES),
            code_version(),
        )
        self.key = key[:24]
        self.folder = steps_folder(self.key)

    def take(self, step: str, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of a step: from disk, or computed and stored."""
        path = self.folder / f"{step}.npz"
        known = _read(path)
        if known is not None:
            return known
        found = compute()
        with optional_file("a step of the inspection"), atomic_write(path, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **found)
        return found


def pack(value: Any) -> Arrays:
    """JSON as bytes in an array, for a step's file."""
    return {"json": np.frombuffer(json.dumps(value).encode("utf-8", "surrogatepass"), dtype=np.uint8)}


def unpack(stored: Arrays) -> Any:
    """The JSON value of a step."""
    return json.loads(stored["json"].tobytes().decode("utf-8", "surrogatepass"))


def steps_folder(key: str) -> Path:
    """Where the steps of a key are."""
    return cache() / "inspect" / key


def known_step(key: str, step: str) -> Arrays | None:
    """A step that an earlier inspection stored; None if it is gone."""
    return _read(steps_folder(key) / f"{step}.npz")


def _read(path: Path) -> Arrays | None:
    """A stored step; None if there is none, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return None
    except (OSError, zipfile.BadZipFile, KeyError, *NPY_ERRORS):
        return None


@once
def code_version() -> str:
    """Hash of the source of the rooms that compute an inspection."""
    package = Path(__file__).parents[1]
    files = sorted(path for room in ROOMS for path in (package / room).rglob("*.py"))
    return sha256_text(*(path.read_text(encoding="utf-8") for path in files))[:16]
