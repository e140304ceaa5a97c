"""Settings that a benchmark has measured already, so that one that was stopped goes on with the next.

They lie beside other outputs (`$GEMMA4VEC_HOME/benchmarks`), and count only for the same machine, commit and `about`:
whatever the program says that its numbers depend on. Scores that took hours count for any commit.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.shared.record import machine_slug, say
from gemma4vec.files import home, write_json
from gemma4vec.ledger.environment import environment
from gemma4vec.machine.describe import describe_machine

Measured = dict[str, Any]


class SavedMeasurements:
    """What is measured, by the setting's name.

    Args:
        name: the benchmark's.
        about: what all settings depend on, as plain values.
        fresh: forget what is there.
        folder: where it is kept.
        any_commit: what another commit measured counts too.
    """

    def __init__(
        self,
        name: str,
        about: dict[str, Any],
        *,
        fresh: bool = False,
        folder: Path | None = None,
        any_commit: bool = False,
    ):
        self.file = (folder or home() / "benchmarks") / f"{name}.json"
        around = {"machine": machine_slug(describe_machine()), "git": None if any_commit else environment()["git"]}
        self.about = json.loads(json.dumps(around | about))
        self.settings: dict[str, Measured] = {}
        if not fresh and self.file.is_file():
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            if kept["about"] == self.about:
                self.settings = kept["settings"]

    def take(self, setting: str, measure: Callable[[], Measured]) -> Measured:
        """What was measured of a setting, or what `measure` gives now, which is kept."""
        if setting in self.settings:
            say(f"{setting}: measured before ({self.file}; --fresh measures again)")
            return self.settings[setting]
        found = measure()
        self.settings[setting] = json.loads(json.dumps(found))
        write_json(self.file, {"about": self.about, "settings": self.settings})
        return self.settings[setting]
