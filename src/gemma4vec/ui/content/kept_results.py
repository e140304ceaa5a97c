"""Results of `gemma4vec fanout` and `gemma4vec invert` that a person kept with --keep: one JSON file each.

They are looked up by the names of their files, which never become paths.

| folder below the home | kinds |
|---|---|
| `walks/` | `walk`: the steps from one query to a target; `table`: what methods are worth on a suite |
| `inversions/` | `texts`: what came back of vectors; `measured`: a decoder beside its floors |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gemma4vec.errors import InputError
from gemma4vec.files import check_writable, sha256_text, write_json
from gemma4vec.ledger.ledger import now
from gemma4vec.ledger.run_folder import replace_nonfinite, slug
from gemma4vec.reading.json_values import load_own_json

Kind = Literal["walk", "table", "texts", "measured"]
Folder = Literal["walks", "inversions"]
NEWEST = 50
FOLDERS: dict[str, str] = {"walk": "walks", "table": "walks", "texts": "inversions", "measured": "inversions"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Result(_Part):
    kind: Kind
    created: str | None = None
    model: str


class _Bounds(_Part):
    mean: float | None
    low: float | None
    high: float | None


class _Step(_Part):
    degrees: float
    text: str
    to_query: float
    to_target: float
    to_point: float | None = None
    rank: int | None = None


class _Walk(_Result):
    query: str
    writer: str
    target: str
    degrees: float
    points: int
    rank: int | None = None
    documents: int | None = None
    steps: list[_Step]


class _Method(_Part):
    method: str
    oracle: bool
    kept: float
    gain: _Bounds
    best_minus_noise: _Bounds | None


class _Table(_Result):
    suite: str
    writer: str
    queries: int
    own: _Bounds = Field(alias="ndcg@10")
    rows: list[_Method]
    sentence: str


class _Text(_Part):
    text: str
    cosine: float
    how: str
    given: str | None = None
    nearest: str | None
    nearest_cosine: float | None


class _Texts(_Result):
    decoder: str
    role: str
    rows: list[_Text]


class _Measured(_Result):
    decoder: str
    role: str
    n: int
    texts: int
    rows: dict[str, dict[str, _Bounds]]
    differences: dict[str, _Bounds]
    remark: str


_SHAPES: dict[str, type[_Result]] = {"walk": _Walk, "table": _Table, "texts": _Texts, "measured": _Measured}


def keep_result(home: Path, kind: Kind, result: Mapping[str, Any]) -> Path:
    """Write a result below `home`; the same one again is the same file.

    Raises:
        WorkError: it cannot be written.
    """
    plain = replace_nonfinite(dict(result))
    name = f"{slug(str(plain['model']))}-{sha256_text(kind, repr(plain))[:8]}.json"
    file = home / FOLDERS[kind] / name
    check_writable(file.parent)
    write_json(file, {"kind": kind, "created": now(), **plain})
    return file


def kept_files(home: Path, folder: Folder) -> list[Path]:
    """Kept results, newest first."""
    return sorted((home / folder).glob("*.json"), key=lambda file: (-file.lstat().st_mtime_ns, file.name))


def load_kept(file: Path) -> dict[str, Any]:
    """Read a kept result; fields that older ones lack are None.

    Raises:
        InputError: it is damaged, or of another kind than its folder.
    """
    try:
        found = load_own_json(file)
        if not isinstance(found, dict) or FOLDERS.get(str(found.get("kind"))) != file.parent.name:
            raise ValueError("it has no 'kind' of this folder")
        checked: dict[str, Any] = _SHAPES[found["kind"]].model_validate(found).model_dump(by_alias=True)
    except ValidationError as error:
        one = error.errors()[0]
        reason = f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
        raise InputError(f"the kept result {file} is damaged ({reason}); delete it, or keep it again") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the kept result {file} is damaged ({reason}); delete it, or keep it again") from error
    return checked


@dataclass(frozen=True)
class KeptResult:
    """One file: `key` is its name in addresses; `damaged` says why it cannot be read."""

    key: str
    about: dict[str, Any]
    damaged: str = ""


def list_kept(home: Path, folder: Folder) -> tuple[list[KeptResult], int]:
    """(the newest results, newest first; number of all)."""
    files = kept_files(home, folder)
    found = []
    for file in files[:NEWEST]:
        try:
            found.append(KeptResult(file.stem, load_kept(file)))
        except InputError as error:
            found.append(KeptResult(file.stem, {}, str(error)))
    return found, len(files)


def find_kept(home: Path, folder: Folder, key: str) -> dict[str, Any]:
    """One result.

    Raises:
        InputError: there is none with this key, or it is damaged.
    """
    for file in kept_files(home, folder):
        if file.stem == key:
            return load_kept(file)
    raise InputError(f"nothing is kept as '{key[:100]}'; the page lists what is")
