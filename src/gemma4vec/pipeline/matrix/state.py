"""A matrix on disk: `matrix.yaml`, a record for each cell in `cells/`, run folders in `runs/`, suites in `suites/`.

Records are written atomically, so that a matrix killed at any moment still knows which cells are finished.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_write, sha256_text, write_json
from gemma4vec.ledger.run_folder import slug
from gemma4vec.pipeline.plan_folder import first_difference, shorten
from gemma4vec.reading.json_values import load_own_json, read_json
from gemma4vec.reading.yaml_values import loads_yaml
from gemma4vec.recipe.load import dump_recipe, parse_dump
from gemma4vec.recipe.plans.matrix import Matrix, dump_matrix, load_matrix

Status = Literal["running", "trained", "done", "failed", "stopped"]

# Keys that may change when a matrix continues: they add cells but do not affect the finished ones.
MAY_CHANGE = {
    "hypothesis",
    "recipes",
    "bases",
    "axes",
    "learning_rates",
    "seeds",
    "top",
    "minutes",
    "variables",
    "references",
}


@dataclass(frozen=True)
class Cell:
    """One run: a variant, a learning rate (None: the recipe's own) and a seed; `search`: only to choose the rate."""

    variant: str
    rate: float | None
    seed: int
    search: bool = False

    @property
    def key(self) -> str:
        """A unique file name."""
        marks = (self.variant, repr(self.rate), str(self.seed), *(["search"] if self.search else []))
        rate = "" if self.rate is None else f"-lr{self.rate:g}"
        word = "-search" if self.search else ""
        return f"{slug(self.variant)}{rate}{word}-seed{self.seed}-{sha256_text(*marks)[:6]}"


@dataclass
class Record:
    """The state of a cell.

    Attributes:
        run: run folder, relative to the matrix's folder.
        dev: mean dev score of the trained model, None until it is known.
        seconds: total wall time in seconds.
        jobs: [kind, seconds] of each job.
        reason: one line on why it failed or was stopped.
        search: trained with the rows of the search only.
    """

    variant: str
    rate: float | None
    seed: int
    run: str
    status: Status = "running"
    dev: float | None = None
    seconds: float = 0.0
    jobs: list[list[Any]] = field(default_factory=list)
    reason: str = ""
    search: bool = False

    @property
    def cell(self) -> Cell:
        """The cell of this record."""
        return Cell(self.variant, self.rate, self.seed, self.search)

    @property
    def ended(self) -> bool:
        """Whether the cell is finished, failed or stopped by the rule."""
        return self.status in ("done", "failed", "stopped")

    @property
    def trained(self) -> bool:
        """Whether the cell is trained and scored on dev."""
        return self.dev is not None and self.status in ("trained", "done")


@dataclass(frozen=True)
class MatrixFolder:
    """The folder of a matrix."""

    path: Path

    @property
    def runs(self) -> Path:
        """Folder of the run folders."""
        return self.path / "runs"

    @property
    def suites(self) -> Path:
        """Folder of the frozen suites."""
        return self.path / "suites"

    def log(self, key: str) -> Path:
        """The log of a cell's process."""
        return self.path / "logs" / f"{key}.log"

    def records(self) -> dict[str, Record]:
        """Read the records of all cells that were ever started, by key.

        Raises:
            InputError: a record is damaged.
        """
        found = {}
        for file in sorted((self.path / "cells").glob("*.json")):
            try:
                found[file.stem] = Record(**load_own_json(file))
            except (ValueError, TypeError) as error:
                raise InputError(f"{file} is damaged ({error}); delete it to run this cell again") from error
        return found

    def write(self, key: str, record: Record) -> None:
        """Write a cell's record."""
        write_json(self.path / "cells" / f"{key}.json", asdict(record))

    def list_suites(self, role: str) -> list[dict[str, Any]]:
        """Name, folder and sizes of the dev or final suites."""
        every = read_json(self.path / "suites.json", "the matrix's", "restore it, or use another --out")
        return [{"name": name, **suite} for name, suite in every.items() if suite["role"] == role]

    def store_matrix(self, matrix: Matrix, variants: dict[str, str]) -> list[str]:
        """Store the matrix and return its new variants; refuse a matrix that contradicts the stored one.

        Raises:
            InputError: a key or a recipe changed that finished cells depend on.
        """
        new = []
        if (self.path / "matrix.yaml").is_file():
            before = loads_yaml(dump_matrix(load_matrix(self.path / "matrix.yaml")))
            now = loads_yaml(dump_matrix(matrix))
            for key in now:
                if key not in MAY_CHANGE and now[key] != before.get(key):
                    raise InputError(
                        f"{key} was {shorten(before.get(key))} when {self.path} was started and is now "
                        f"{shorten(now[key])}; restore it, or use another --out"
                    )
            old = read_json(self.path / "variants.json", "the matrix's", "restore it, or use another --out")
            for name, text in variants.items():
                if name not in old:
                    new.append(name)
                elif old[name] != text and dump_recipe(parse_dump(old[name], name)) != text:
                    where = first_difference(loads_yaml(old[name]), loads_yaml(text))
                    raise InputError(
                        f"recipe {name} changed since {self.path} was started ({where}); "
                        "restore it, give it another name, or use another --out"
                    )
            variants = old | variants
        write_json(self.path / "variants.json", variants)
        with atomic_write(self.path / "matrix.yaml") as stream:
            stream.write(dump_matrix(matrix))
        return new
