"""The ledger's runs, read again only when the ledger has changed."""

import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.ledger.journal import JOURNAL
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.overview import all_runs
from gemma4vec.ledger.run_folder import MANIFEST, RunFolder


class RecordedRuns:
    """The runs below `home`. Safe for several threads."""

    def __init__(self, home: Path):
        self._home = home
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._runs: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}

    def all(self) -> list[dict[str, Any]]:
        """Every run as `ledger.overview.all_runs` has it, newest first.

        Raises:
            WorkError: the ledger is damaged.
        """
        return list(self._current().values())

    def find(self, run_id: str) -> dict[str, Any]:
        """One run by its whole id: an id is looked up, and never becomes a path.

        Raises:
            InputError: the ledger has no such run.
        """
        found = self._current().get(run_id)
        if found is None:
            raise InputError(f"the ledger has no run '{run_id[:100]}'; the page Runs lists them")
        return found

    def name_of(self, model: str) -> str:
        """What people call a model that goes by a run's id: the run's name, with the id's end where others have it too.

        Other names stay as they are; also all of them where the ledger cannot be read.
        """
        try:
            self._current()
        except Gemma4VecError:
            return model
        return self._names.get(model, model)

    def with_names(self, sentence: str, ids: Iterable[str]) -> str:
        """A sentence of the library about some runs, with their names where it has their ids."""
        for one in ids:
            sentence = sentence.replace(one, self.name_of(one))
        return sentence

    def folder(self, run_id: str) -> RunFolder:
        """The folder of a run.

        Raises:
            InputError: the ledger has no such run, or its folder is gone.
        """
        path = Path(self.find(run_id)["path"])
        if not (path / MANIFEST).is_file():
            raise InputError(f"the folder of {run_id} is gone ({path}); the ledger still has its records")
        return RunFolder(path)

    def _current(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            stamp = _stamp(self._home / JOURNAL)
            if stamp is None or stamp != self._seen:
                with open_ledger(self._home) as ledger:
                    rows = all_runs(ledger)
                self._runs = {str(row["run_id"]): row for row in reversed(rows)}
                self._names = _short_names(self._runs)
                self._seen = stamp
            return self._runs


def _short_names(runs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Id of a run -> its name, if it has one."""
    names = {key: str(row["name"]) for key, row in runs.items() if row["name"]}
    times = Counter(names.values())
    return {key: name if times[name] == 1 else f"{name} {key[-4:]}" for key, name in names.items()}


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes with a file's contents; None if there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
