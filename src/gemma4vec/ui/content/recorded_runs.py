"""The ledger's runs, read again only when the ledger has changed."""

import threading
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
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
                self._seen = stamp
            return self._runs


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes with a file's contents; None if there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
