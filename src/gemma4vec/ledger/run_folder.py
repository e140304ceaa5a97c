"""Run folders: all files of one run, readable after a kill at any moment.

`recipe.yaml`, `manifest.json`, `events.jsonl`, `checkpoints/`, `model/`, `evals/<model>/<suite>/`, `report.html`.
"""

import contextlib
import fcntl
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_write, disk_errors, write_json
from gemma4vec.reading.json_values import load_foreign_json, loads_json

MANIFEST, RECIPE, EVENTS = "manifest.json", "recipe.yaml", "events.jsonl"
# What a run that goes on or is compared reads of its own events. A line with other values is as good as torn.
_NUMBER, _MAYBE_NUMBER, _MAYBE_SWITCH = (int,), (int, type(None)), (bool, type(None))
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "prepared": {"stage": _NUMBER, "tokens_per_forward": _MAYBE_NUMBER, "grad_cache": _MAYBE_SWITCH},
    "stage_finished": {"stage": _NUMBER},
    "clusters": {
        "stage": _NUMBER,
        "batch": _NUMBER,
        "stop": _MAYBE_NUMBER,
        "sha256": (str,),
        "identity": (str,),
    },
    "cell": {"stage": _NUMBER},
}
_NAMES = 8  # to find one for a run that another of the same second has not
_TRIES = 5  # to hold a folder that somebody only looks at


class Events(list[dict[str, Any]]):
    """The events of a run in order; `torn`: numbers (from 1) of lines that a kill left partial."""

    def __init__(self, events: Iterable[dict[str, Any]], torn: Iterable[int]) -> None:
        super().__init__(events)
        self.torn = tuple(torn)


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @classmethod
    def create(cls, home: Path, name: str, recipe_text: str | None, **manifest: Any) -> "RunFolder":
        """Make a new run folder `home/YYYYmmdd-HHMMSS-<name>-<4 hex>` (UTC).

        Args:
            home: folder of all runs.
            name: of the run; see `slug`.
            recipe_text: the recipe as YAML, stored unchanged; None: nothing was trained, as in a soup of other runs.
            manifest: further fields of manifest.json, as JSON values.

        Raises:
            WorkError: the folder cannot be written.
        """
        now = datetime.now(UTC)
        with disk_errors(home):
            home.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(_NAMES)):
            run_id = f"{now:%Y%m%d-%H%M%S}-{slug(name)}-{secrets.token_hex(2)}"
            run = cls(home / run_id)
            with disk_errors(run.path):
                try:
                    run.path.mkdir()
                    break
                except FileExistsError:
                    if not left:
                        raise
        if recipe_text is not None:
            with atomic_write(run.path / RECIPE) as stream:
                stream.write(recipe_text)
        # Last: a folder with a manifest is a complete run.
        write_json(run.path / MANIFEST, {"run_id": run_id, "name": name, "created": now.isoformat(), **manifest})
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open an existing run folder.

        Raises:
            InputError: no such folder, or not one of a run.
        """
        if not path.is_dir():
            raise InputError(f"no run folder at {path}; list the runs with: ls {path.parent}")
        run = cls(path)
        if "run_id" not in run.manifest:
            raise InputError(f"{path / MANIFEST} has no run_id, so {path} is not a run folder of gemma4vec")
        return run

    @property
    def run_id(self) -> str:
        """The run's unique name."""
        return str(self.manifest["run_id"])

    @property
    def recipe_text(self) -> str:
        """The recipe as given.

        Raises:
            InputError: there is none, or it is not UTF-8.
            OSError: it cannot be read.
        """
        try:
            return (self.path / RECIPE).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            what = "is a soup of other runs" if self.manifest.get("soup") else "has lost it"
            raise InputError(f"{self.path} has no {RECIPE}: the run {what}, so there is nothing to train") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path / RECIPE} is damaged ({error}); put the file back") from error

    @property
    def checkpoints(self) -> Path:
        """Folder of the training checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Folder of the merged model."""
        return self.path / "model"

    def evaluation(self, model: str, suite: str) -> Path:
        """Folder of the result of `model` ("bm25", "untrained", "trained") on `suite`."""
        return self.path / "evals" / model / suite

    @property
    def manifest(self) -> dict[str, Any]:
        """Contents of manifest.json.

        Raises:
            InputError: missing or not JSON.
        """
        file = self.path / MANIFEST
        if not file.is_file():
            raise InputError(f"{self.path} is not a run folder: it has no {MANIFEST}")
        try:
            manifest = load_foreign_json(file)
        except ValueError as error:
            raise InputError(f"{file} is damaged ({error}); restore it or start a new run") from error
        if not isinstance(manifest, dict):
            raise InputError(f"{file} is damaged (not a JSON object); restore it or start a new run")
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace manifest.json, atomically; `run_id` is kept."""
        write_json(self.path / MANIFEST, {"run_id": self.run_id, **manifest})

    def update_manifest(self, **fields: Any) -> None:
        """Set top-level fields of manifest.json, atomically. One process writes a run at a time."""
        write_json(self.path / MANIFEST, {**self.manifest, **fields})

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the folder within a `with` block: a second process that trains the same run would damage it.

        Raises:
            InputError: another process holds it.
        """
        with (self.path / ".lock").open("w") as stream:
            for patience in reversed(range(_TRIES)):
                try:
                    # A POSIX lock ends with its process, however that ends, and no child inherits it.
                    fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if not patience:
                        raise InputError(
                            f"{self.path} is being trained by another process; wait for it, or stop it first"
                        ) from error
                    time.sleep(0.05)  # another process may be in `is_held`
            yield

    def is_held(self) -> bool:
        """Return whether another process holds the folder; calling it in the holding process releases the lock."""
        try:
            with (self.path / ".lock").open("r") as stream:
                fcntl.lockf(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                fcntl.lockf(stream, fcntl.LOCK_UN)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def event(self, name: str, **fields: Any) -> None:
        """Append one event as one line with one write: a kill leaves a complete line or a partial last one.

        `time` (seconds since 1970) and `event` are added. Numbers that are not finite become null: JSON has none.

        Raises:
            WorkError: the disk is full.
        """
        file = self.path / EVENTS
        record = {"time": datetime.now(UTC).timestamp(), "event": name, **fields}
        line = (
            json.dumps(replace_nonfinite(record), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
            + b"\n"
        )
        with disk_errors(file):
            descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                # End a partial line of a killed process first, so that it does not join this one.
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                data = b"\n" + line if torn else line
                written = os.write(descriptor, data)
                while written < len(data):  # a disk that fills up accepts part of a write and refuses the next
                    written += os.write(descriptor, data[written:])
            finally:
                os.close(descriptor)

    def events(self, name: str | None = None) -> Events:
        """Return all events, or those named `name`, in order, without partial lines (numbered in `.torn`)."""
        file = self.path / EVENTS
        found = parse_events(file.read_bytes()) if file.is_file() else Events([], [])
        return found if name is None else Events((one for one in found if one.get("event") == name), found.torn)


def parse_events(data: bytes) -> Events:
    """Return the events of some lines of events.jsonl, without partial lines (numbered from 1 in `.torn`)."""
    events, torn = [], []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = loads_json(line, nonfinite=True, surrogates=True, twice=True)
        except ValueError:
            torn.append(number)
            continue
        if not isinstance(record, dict):
            continue
        if _has_its_fields(record):
            events.append(record)
        else:
            torn.append(number)
    return Events(events, torn)


def _has_its_fields(record: dict[str, Any]) -> bool:
    event = record.get("event")
    fields = _FIELDS.get(event, {}) if isinstance(event, str) else {}
    return all(isinstance(record.get(field), types) for field, types in fields.items())


def list_runs(home: Path) -> list[RunFolder]:
    """Return the runs below `home`, oldest first; other folders are skipped."""
    runs = [RunFolder(manifest.parent) for manifest in home.glob(f"*/{MANIFEST}")]
    dated = []
    for run in runs:
        try:
            manifest = run.manifest
        except InputError:
            continue  # a damaged run is reported when it is opened
        if "run_id" in manifest:
            dated.append((str(manifest.get("created", "")), run.path.name, run))
    return [run for _, _, run in sorted(dated, key=lambda item: item[:2])]


def latest_run(home: Path) -> RunFolder:
    """Return the newest run below `home`.

    Raises:
        InputError: there is none.
    """
    runs = list_runs(home)
    if not runs:
        raise InputError(f"no runs in {home}; start one with: gemma4vec quickstart")
    return runs[-1]


def find_run(spec: str, home: Path) -> RunFolder:
    """Find a run: a folder, a run id (or its unambiguous beginning or end) below `home`, or "latest".

    Raises:
        InputError: no run or several runs match.
    """
    if Path(spec).is_dir():
        return RunFolder.open(Path(spec))
    if spec == "latest":
        return latest_run(home)
    fitting = [run for run in list_runs(home) if run.path.name.startswith(spec) or run.path.name.endswith(spec)]
    exact = [run for run in fitting if run.path.name == spec]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    if not fitting:
        raise InputError(f"no run '{spec}' in {home} and no such folder; list the runs with: ls {home}")
    raise InputError(
        f"'{spec}' matches {len(fitting)} runs: {', '.join(run.path.name for run in fitting[:5])}; give more of the id"
    )


def named_run(spec: str | Path, home: Path) -> RunFolder | None:
    """The run folder that `spec` is or, below `home`, names; None where it is another kind of model.

    Raises:
        InputError: the folder's manifest is damaged.
    """
    if Path(spec).exists():
        return RunFolder.open(Path(spec)) if (Path(spec) / MANIFEST).is_file() else None
    if ":" in str(spec) or "/" in str(spec):
        return None
    try:
        return find_run(str(spec), home)
    except InputError:
        return None  # not a run: who opens models says what else it could have been


def slug(name: str) -> str:
    """Turn `name` into a safe part of a file name: ASCII letters, digits, `.`, `_` and `-`, at most 48, never empty."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.").lower()[:48].strip("-.") or "run"


def replace_nonfinite(value: Any) -> Any:
    """Return `value` as JSON values: non-finite numbers as None, numpy scalars and paths as plain values."""
    if isinstance(value, dict):
        return {str(key): replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(item) for item in value]
    if isinstance(value, str | bool | int) or value is None:
        return value
    if hasattr(value, "item"):
        return replace_nonfinite(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
