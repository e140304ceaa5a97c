"""A plan on disk: `plan.yaml`, a record for each job in `steps/`, soups and quantized models in `models/`, suites.

Records are written atomically, so that a plan killed at any moment still knows which jobs are finished.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_write, write_json
from gemma4vec.pipeline.plan.jobs import Outline
from gemma4vec.pipeline.plan_folder import first_difference, shorten
from gemma4vec.reading.json_values import load_own_json, read_json
from gemma4vec.reading.yaml_values import loads_yaml
from gemma4vec.recipe.plans.plan import Plan, dump_plan, load_plan

Status = Literal["running", "done", "failed"]

# Keys that finished jobs were measured by.
FIXED = ("name", "suites", "metric")


@dataclass
class Record:
    """The state of a job.

    Attributes:
        definition: what the job is (`jobs.Job.definition`).
        share: of the training time; 0 without training.
        minutes: training time that it was given; None: the recipe's own budget, or no training.
        run: the run's folder; None for a model without a run.
        model: the model's folder.
        dev: mean dev score, None until it is known.
        results: suite -> folder of the model's result.
        lengths: vector length -> suite -> folder of the result of cut vectors.
        held_out: of a decoder: name -> its loss on held-out texts, in nats a token.
        seconds: total wall time in seconds.
        reason: one line on why it failed.
    """

    key: str
    step: str
    kind: str
    definition: dict[str, Any]
    status: Status = "running"
    share: float = 0.0
    minutes: float | None = None
    run: str | None = None
    model: str | None = None
    dev: float | None = None
    results: dict[str, str] = field(default_factory=dict)
    lengths: dict[str, dict[str, str]] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class PlanFolder:
    """The folder of a plan."""

    path: Path

    def model(self, key: str) -> Path:
        """Folder of the model of a job that makes it without a run of its own."""
        return self.path / "models" / _place(key)

    def results(self, key: str) -> Path:
        """Folder of the results that no run's folder takes."""
        return self.path / "evals" / _place(key)

    def log(self, key: str) -> Path:
        """The log of a job's process."""
        return self.path / "logs" / f"{key.replace('/', '--')}.log"

    def made(self, key: str) -> Path:
        """The file in which a job's process says what it made."""
        return self.path / "made" / f"{_place(key)}.json"

    def runs(self, key: str) -> Path:
        """Parent of the run folders of a training for a grid."""
        return self.path / "runs" / _place(key)

    def records(self) -> dict[str, Record]:
        """Read the records of all jobs that ever began, by key.

        Raises:
            InputError: a record is damaged.
        """
        found = {}
        for file in sorted((self.path / "steps").glob("*/*.json")):
            try:
                record = Record(**load_own_json(file))
            except (ValueError, TypeError) as error:
                raise InputError(f"{file} is damaged ({error}); delete it to do this step again") from error
            found[record.key] = record
        return found

    def write(self, record: Record) -> None:
        """Write a job's record."""
        write_json(self.path / "steps" / f"{_place(record.key)}.json", asdict(record))

    def list_suites(self, role: str) -> list[dict[str, Any]]:
        """Name, folder and sizes of the dev or final suites."""
        every = read_json(self.path / "suites.json", "the plan's", "restore it, or use another --out")
        return [{"name": name, **suite} for name, suite in every.items() if suite["role"] == role]

    def store(self, outline: Outline) -> None:
        """Store the plan; refuse one that contradicts what has begun.

        Raises:
            InputError: one line that says what changed.
        """
        records = self.records()
        file = self.path / "plan.yaml"
        if file.is_file() and records:
            before, now = (loads_yaml(dump_plan(plan)) for plan in (load_plan(file), outline.plan))
            for key in FIXED:
                if before[key] != now[key]:
                    where = f"{key}: {shorten(before[key])} before, {shorten(now[key])} now"
                    if isinstance(now[key], dict):
                        where = f"{key}.{first_difference(before[key], now[key])}"
                    raise self._changed(where)
            self._check_definitions(outline, records)
        with atomic_write(file) as stream:
            stream.write(dump_plan(outline.plan))

    def _check_definitions(self, outline: Outline, records: Mapping[str, Record]) -> None:
        for key, record in records.items():
            job = outline.jobs.get(key)
            if job is None:
                raise self._changed(f"{key} has begun and is not in it any more")
            if job.definition() != record.definition:
                raise self._changed(f"{key} has begun: {first_difference(record.definition, job.definition())}")

    def _changed(self, where: str) -> InputError:
        return InputError(f"the plan changed since it began in {self.path} ({where}); restore it, or use another --out")

    @property
    def plan(self) -> Plan | None:
        """The stored plan; None if none began here."""
        file = self.path / "plan.yaml"
        return load_plan(file) if file.is_file() else None


def _place(key: str) -> str:
    """`STEP/MODEL` as a path; a step's only model is `STEP/main`."""
    return key if "/" in key else f"{key}/main"
