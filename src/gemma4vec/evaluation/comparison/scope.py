"""What a verdict speaks of: the recipes, or only the runs that were compared.

It speaks of a recipe only if the runs are a sample of the recipe's runs: 6 or more seeds, and all runs of the recipe
that the ledger knows. Whoever compares the best six of ten has chosen.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gemma4vec.evaluation.results.result import Result
from gemma4vec.ledger.ledger import Ledger
from gemma4vec.ledger.run_folder import MANIFEST
from gemma4vec.statistics.seeds import FEW_SEEDS, SeedInterval

NAMED = 5  # runs in a sentence; JSON has all


@dataclass(frozen=True)
class Scope:
    """What a verdict speaks of.

    Attributes:
        of: "recipes"; "runs" where another seed may change the verdict; "models" where neither side was trained by a
            recipe.
        sentence: to be shown next to the verdict.
        left_out: recipe id -> ids of its runs that exist and are not in the comparison.
    """

    of: Literal["recipes", "runs", "models"]
    sentence: str
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def clause(self) -> str:
        """The scope in a few words, to end the sentence of a verdict with."""
        return ", of these runs only" if self.of == "runs" else ""


def recipe_of(results: Sequence[Result]) -> str | None:
    """Return the id of the recipe of one side's runs; None for a model without one."""
    recipe = (results[0].settings.get("run") or {}).get("recipe_id")
    return None if recipe is None else str(recipe)


def find_left_out(ledger: Ledger, results: Sequence[Result], contents: Sequence[str]) -> list[str]:
    """Return the ids of the recipe's other runs: finished ones, and all that were scored on the suite.

    A finished run whose folder is gone counts if it was scored on the suite: its score was seen.

    Args:
        results: one side's.
        contents: fingerprints of the suite's contents and of changed copies of them.
    """
    recipe = recipe_of(results)
    if recipe is None:
        return []
    known = ledger.rows("SELECT run_id, status, path FROM runs WHERE recipe_id = ? ORDER BY created, run_id", (recipe,))
    marks = ", ".join("?" * len(contents))
    seen = ledger.rows(
        "SELECT DISTINCT run_id FROM looks WHERE recipe_id = ? AND run_id IS NOT NULL "
        f"AND suite_fingerprint IN ({marks})",
        (recipe, *contents),
    )
    finished = [row["run_id"] for row in known if row["status"] == "finished" and _exists(row["path"])]
    own = {str((one.settings.get("run") or {}).get("run_id")) for one in results}
    every = dict.fromkeys([*finished, *(row["run_id"] for row in seen)])
    return [run for run in every if run not in own]


def why_no_sample(
    sides: Sequence[tuple[Sequence[Result], Sequence[int | None]]], left_out: Mapping[str, Sequence[str]]
) -> str:
    """Say why the runs are no sample of their recipes' runs; empty if they are.

    Args:
        sides: results and seeds of each side.
        left_out: as in `Scope`.
    """
    reasons = []
    for recipe, runs in left_out.items():
        more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
        count = "another run" if len(runs) == 1 else f"{len(runs)} other runs"
        verb = "exists and is" if len(runs) == 1 else "exist and are"
        reasons.append(f"{count} of recipe {recipe} {verb} left out ({', '.join(runs[:NAMED])}{more})")
    for results, seeds in sides:
        twice = sorted(seed for seed, count in Counter(seeds).items() if seed is not None and count > 1)
        if twice:
            reasons.append(f"several runs of recipe {recipe_of(results)} have the seed {', '.join(map(str, twice))}")
    return " and ".join(reasons)


def find_scope(
    sides: Sequence[Sequence[Result]], seeds: SeedInterval | None, no_sample: str, left_out: Mapping[str, Sequence[str]]
) -> Scope:
    """Return what a comparison of these sides speaks of.

    Args:
        sides: the results of A and of B.
        seeds: the interval over seeds and queries, if a side has several runs.
        no_sample: from `why_no_sample`.
        left_out: as in `Scope`.
    """
    trained = [side for side in sides if recipe_of(side) is not None]
    if seeds is not None and seeds.over_seeds:
        return Scope("recipes", seeds.statement, left_out)
    if not trained:
        return Scope("models", "no side was trained by a recipe: this speaks of these models", left_out)
    if seeds is not None:
        return Scope("runs", seeds.statement, left_out)
    count = "1 run" if len(trained) == 1 else "1 run each"
    why = f"this speaks only of these runs and not of the recipe, since {no_sample}" if no_sample else FEW_SEEDS
    return Scope("runs", f"{count}: {why}", left_out)


def _exists(path: str | None) -> bool:
    return path is not None and (Path(path) / MANIFEST).is_file()
