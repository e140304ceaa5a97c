"""What a soup needs before anything is written: ingredients, weights, suites, folders and the common start."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.files import check_writable, folder_bytes, home
from gemma4vec.ledger.records import find_enclosing_run
from gemma4vec.model.bases.weights import hash_weights
from gemma4vec.pipeline.soup.dev_scores import Suite, open_dev_suites
from gemma4vec.pipeline.soup.ingredients import Ingredient, common_start, find_ingredients, start_name
from gemma4vec.pipeline.soup.library_merge import check_library_method, needs_start
from gemma4vec.pipeline.soup.mean import check_weights, mean_blocks
from gemma4vec.pipeline.soup.tensors import StartTensors, TensorFolder
from gemma4vec.pipeline.soup.write_folder import BlocksOf

logger = logging.getLogger(__name__)

UNIFORM, GREEDY, WEIGHTED = "uniform", "greedy", "weights"
OWN_METHODS = (UNIFORM, GREEDY, WEIGHTED)


@dataclass(frozen=True)
class SoupPlan:
    """What is mixed, and where to.

    Attributes:
        start: tensors of the common start; None where it is not there any more.
        sources: the tensors of the ingredients, then the start if it has a share.
    """

    ingredients: list[Ingredient]
    method: str
    start: StartTensors | None
    start_weight: float
    suites: list[Suite]
    out: Path | None
    sources: list[TensorFolder]

    def blocks(self, weights: Sequence[float]) -> BlocksOf:
        """The blocks of the mean with these weights of the ingredients, and the start's share."""
        return partial(mean_blocks, self.sources, self.scaled(weights))

    def scaled(self, weights: Sequence[float]) -> list[float]:
        """The weights of the sources."""
        if not self.start_weight:
            return list(weights)
        return [*((1.0 - self.start_weight) * weight for weight in weights), self.start_weight]


def plan_soup(
    specs: Sequence[str | Path],
    out: Path | None,
    method: str,
    weights: Sequence[float] | None,
    dev: Sequence[str | Path],
    start_weight: float,
    control: bool,
    parameters: Mapping[str, float],
) -> SoupPlan:
    """Refuse what cannot be done, before anything is written."""
    if (method == WEIGHTED) != (weights is not None):
        raise InputError("--method weights and --weights W,W,... belong together; give both or neither")
    if method == GREEDY and not dev:
        raise InputError("--method greedy chooses by scores; name a dev suite: --dev SUITE")
    if parameters and method in OWN_METHODS:
        raise InputError(f"--parameter is for methods of mergekit's, not for {method}; leave it out")
    if not 0 <= start_weight < 1:
        raise InputError(f"--start-weight {start_weight:g}: give a share of the start from 0 to below 1")
    if start_weight and method not in OWN_METHODS:
        raise InputError(f"--start-weight mixes with {', '.join(OWN_METHODS)} alone, not with {method}; leave it out")
    found = find_ingredients([str(spec) for spec in specs], least=1 if start_weight else 2)
    if weights is not None:
        check_weights(weights, [one.name for one in found])
    if method not in OWN_METHODS:
        check_library_method(method, found)
    for folder in [out, control_folder(out)] if control and out is not None else [out]:
        if folder is not None:
            _check_out(folder, found)
    suites = open_dev_suites([str(spec) for spec in dev])
    start = _open_start(found)
    needed = start_weight > 0 or control or (method not in OWN_METHODS and needs_start(method))
    if needed:
        _check_start(start, found)
    for one in found:
        if one.bf16:
            logger.warning(
                f"warning: {one.name} was saved in 16 bits; its rounding (about 0.4% a weight) is in the soup"
            )
    check_writable(out or home(), (2 if control else 1) * 4 * _values(found[0]))
    sources = [one.tensors for one in found]
    return SoupPlan(
        found, method, start, start_weight, suites, out, [*sources, start] if start_weight and start else sources
    )


def _check_out(out: Path, ingredients: Sequence[Ingredient]) -> None:
    for one in ingredients:
        if out.exists() and out.resolve() == one.folder.resolve():
            raise InputError(f"--out {out} is the ingredient {one.name}; choose another folder")
    if out.exists():
        raise InputError(f"--out {out} exists; choose another folder, or remove it first")
    around = find_enclosing_run(out)
    if around is not None:
        raise InputError(
            f"--out {out} is inside the run {around.run_id}, whose model it would be; choose another folder"
        )


def _open_start(ingredients: Sequence[Ingredient]) -> StartTensors | None:
    """The tensors of the common start, if its folder still has these weights."""
    start = common_start(ingredients)
    folders = [one.folder for one in ingredients if one.weights == start["weights"]]
    for folder in [*folders, *([Path(start["path"])] if start.get("path") else [])]:
        if folder.is_dir() and hash_weights(folder) == start["weights"]:
            return StartTensors(folder, ingredients[0].tensors.places)
    return None


def _check_start(start: StartTensors | None, ingredients: Sequence[Ingredient]) -> None:
    name = start_name(common_start(ingredients))
    why = "--control, --start-weight and methods on changes need the common start"
    if start is None:
        raise InputError(f"{why}, and the weights of {name} are not on this machine any more")
    lacking = [key for key in ingredients[0].tensors.places if key not in start.places]
    if lacking:
        raise InputError(
            f"{why}, and {name} has no {lacking[0]}; train the ingredients from a saved model (model.start)"
        )


def _values(ingredient: Ingredient) -> int:
    return folder_bytes(ingredient.folder) // (2 if ingredient.bf16 else 4)


def control_folder(out: Path | None) -> Path | None:
    return None if out is None else out.with_name(f"{out.name}-control")
