"""What remedies are made from: the slice, the recipe, its rows with those of the slice, and further sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.rows.rows import Row
from gemma4vec.inspection.predicates import Predicate
from gemma4vec.inspection.sealed import DISCOVERY
from gemma4vec.recipe.schema import Contrast, Recipe, Source, Stage

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MatchedRows:
    """The rows of a source, and which of them belong to the slice, bool[R]."""

    source: Source
    rows: Sequence[Row]
    matching: Flags

    @property
    def count(self) -> int:
        """Rows that match."""
        return int(self.matching.sum())

    @property
    def share(self) -> float:
        """Share of the rows that match."""
        return self.count / len(self.rows)


@dataclass(frozen=True)
class Setting:
    """What every remedy may use.

    Attributes:
        stage: number of the stage that is changed: a contrast.
        own: the stage's sources.
        others: sources that a person offers.
        columns: attributes and kinds of the suite's queries, as the inspection stored them.
        tokens: of the suite's documents, those that were counted.
        times: how often a pass reads a matching row that is re-weighted.
        out: where the files will be.
    """

    predicate: Predicate
    recipe: Recipe
    stage: int
    own: Sequence[MatchedRows]
    others: Sequence[MatchedRows]
    columns: Mapping[str, list[Any]]
    tokens: Sequence[int]
    times: int
    seed: int
    out: Path

    @property
    def settings(self) -> Stage:
        """The stage that is changed."""
        return self.recipe.stages[self.stage]

    @property
    def task(self) -> Contrast:
        """The stage's task."""
        task = self.settings.task
        assert isinstance(task, Contrast)
        return task

    @property
    def matching(self) -> int:
        """Rows of the recipe's own sources that match."""
        return sum(one.count for one in self.own)

    @property
    def rows(self) -> int:
        """Rows of the recipe's own sources."""
        return sum(len(one.rows) for one in self.own)

    def open_queries(self) -> list[int]:
        """Places of the slice's queries in the open half."""
        mask_N = self.predicate.mask(self.columns)
        return [row for row, half in enumerate(self.columns["half"]) if half == DISCOVERY and mask_N[row]]


@dataclass(frozen=True)
class Remedy:
    """One entry of the closed list, offered or not.

    Attributes:
        words: what it does.
        why_not: why it is not offered; empty if it is.
        changes: recipe keys -> values.
        control: the same with equally many random rows; empty where the control is another training of the recipe as it
            is, with another seed.
        matching, rows: rows of the slice, of all that were looked at; None where rows do not matter.
        files: names of its files.
    """

    name: str
    words: str
    why_not: str = ""
    changes: Mapping[str, object] | None = None
    control: Mapping[str, object] | None = None
    matching: int | None = None
    rows: int | None = None
    files: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        """Share of the rows that match."""
        return None if self.matching is None or not self.rows else self.matching / self.rows
