"""Find what a person names: a file, or a recipe, matrix plan or plan that comes with the package."""

import difflib
from collections.abc import Mapping
from pathlib import Path

from gemma4vec.errors import InputError

# One folder per origin, plus `matrix` with the matrix plans. The repository's `recipes` is a link to it.
SHIPPED = Path(__file__).with_name("shipped")
MATRIX_PLANS = "matrix"
PLAN = "plan"  # a file plan.yaml chains the recipes of its folder
# JSON Schemas of a recipe and of a plan, for editors; `tools/recipe_reference.py` writes them.
SCHEMA = Path(__file__).with_name("recipe.schema.json")
PLAN_SCHEMA = Path(__file__).with_name("plan.schema.json")


def find_recipe(name: str | Path) -> Path:
    """Return the file at `name`, or the shipped recipe of that name, such as `gemma4vec/echo_delta_causal`.

    Raises:
        InputError: there is neither.
    """
    return _find(name, shipped_recipes(), "recipe")


def find_matrix(name: str | Path) -> Path:
    """Return the file at `name`, or the shipped matrix plan of that name, such as `recipes_270m`.

    Raises:
        InputError: there is neither.
    """
    return _find(name, shipped_matrices(), "matrix plan")


def find_plan(name: str | Path) -> Path:
    """Return the file at `name`, or the shipped plan of that name, such as `embeddinggemma/plan`.

    Raises:
        InputError: there is neither.
    """
    return _find(name, shipped_plans(), "plan")


def shipped_recipes() -> dict[str, Path]:
    """Map the name (`folder/file` without its ending) to the file, for every shipped recipe."""
    files = sorted(file for file in SHIPPED.glob("*/*.yaml") if file.parent.name != MATRIX_PLANS and file.stem != PLAN)
    return {f"{file.parent.name}/{file.stem}": file for file in files}


def shipped_matrices() -> dict[str, Path]:
    """Map the name (`matrix/file` without its ending) to the file, for every shipped matrix plan."""
    return {f"{MATRIX_PLANS}/{file.stem}": file for file in sorted((SHIPPED / MATRIX_PLANS).glob("*.yaml"))}


def shipped_plans() -> dict[str, Path]:
    """Map the name (`folder/plan`) to the file, for every shipped plan."""
    return {f"{file.parent.name}/{PLAN}": file for file in sorted(SHIPPED.glob(f"*/{PLAN}.yaml"))}


def _find(name: str | Path, known: Mapping[str, Path], kind: str) -> Path:
    file = Path(name).expanduser()
    if file.exists() or file.suffix in (".yaml", ".yml"):
        return file
    matches = [shipped for shipped in known if str(name) in (shipped, shipped.rsplit("/", 1)[-1])]
    if len(matches) == 1:
        return known[matches[0]]
    close = difflib.get_close_matches(str(name), [*known, *(n.rsplit("/", 1)[-1] for n in known)], n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    raise InputError(f"no {kind} {str(name)!r}: neither a file nor one that comes with gemma4vec; {hint}")
