"""What a soup was made of and what came out: the value that `make_soup` returns, as JSON, and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.pipeline.soup.dev_scores import DevScore
from gemma4vec.pipeline.soup.greedy import Trial
from gemma4vec.pipeline.soup.ingredients import Ingredient
from gemma4vec.pipeline.soup.mean import Deltas

CONTROL = "control"  # method of a control's record


@dataclass(frozen=True)
class SoupRecord:
    """A soup.

    Attributes:
        folder: its model folder.
        run_id: its name in the ledger.
        method: how it was mixed.
        names: run ids of the N ingredients, in the order given.
        weights: N weights; 0: greedy left the model out. Empty for a method that has none.
        start: name of what the ingredients were trained from.
        start_weight: share of the start itself.
        deltas: changes of the ingredients from the start; None where the start is not there any more.
        norm: norm of the soup's change; None where it is unknown.
        shrinkage: `norm` over the mean norm of the changes of the ingredients in the soup.
        ingredient_scores: N dev scores; empty without dev suites.
        score: the soup's dev scores.
        trials: of a greedy search.
        control: the shrunken ingredient that was written next to the soup.
    """

    folder: Path
    run_id: str
    method: str
    names: tuple[str, ...]
    weights: tuple[float, ...]
    start: str
    start_weight: float = 0.0
    deltas: Deltas | None = None
    norm: float | None = None
    shrinkage: float | None = None
    ingredient_scores: tuple[DevScore, ...] = ()
    score: DevScore | None = None
    trials: tuple[Trial, ...] = ()
    control: "SoupRecord | None" = field(default=None)

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "run_id": self.run_id,
            "folder": str(self.folder),
            "method": self.method,
            "ingredients": [self._ingredient(number) for number in range(len(self.names))],
            "start": {"name": self.start, "weight": self.start_weight},
            "cosines": self.deltas.cosines if self.deltas is not None else None,
            "tensors_that_the_start_lacks": self.deltas.left_out if self.deltas is not None else None,
            "norm": self.norm,
            "shrinkage": self.shrinkage,
            "dev": dict(self.score.by_suite) if self.score is not None else None,
            "trials": [
                {
                    "added": self.names[trial.added],
                    "members": [self.names[member] for member in trial.members],
                    "score": trial.score,
                    "kept": trial.kept,
                }
                for trial in self.trials
            ],
            "control": self.control.as_json() if self.control is not None else None,
        }

    def settings(self) -> dict[str, Any]:
        """Return what the model's own folder says about it: no path of this machine."""
        return {key: value for key, value in self.as_json().items() if key not in ("folder", "run_id", "control")}

    def _ingredient(self, number: int) -> dict[str, Any]:
        return {
            "run_id": self.names[number],
            "weight": self.weights[number] if self.weights else None,
            "norm": self.deltas.norms[number] if self.deltas is not None else None,
            "dev": dict(self.ingredient_scores[number].by_suite) if self.ingredient_scores else None,
        }


def describe_recipe(
    method: str,
    ingredients: Sequence[Ingredient],
    weights: Sequence[float] | None,
    start_weight: float,
    parameters: Mapping[str, float],
    suites: Sequence[str],
) -> dict[str, Any]:
    """Return what defines a soup's method, as JSON values: seeds and names of runs are no part of it.

    Args:
        suites: fingerprints of the dev suites that choose the ingredients; empty if none does.
    """
    parts = [[one.recipe_id, None if weights is None else weights[number]] for number, one in enumerate(ingredients)]
    return {
        "method": method,
        "parts": sorted(parts, key=str) if weights is not None or method in ("uniform", "greedy") else parts,
        "start_weight": start_weight,
        "parameters": dict(parameters),
        "suites": sorted(suites),
    }
