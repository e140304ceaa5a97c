"""Checks before a model is scored on a suite, for every caller: command, matrix, training, notebook.

Whether a model may see a suite is asked of the ledger (`ledger.suite_access.may_see`). `evaluate` calls `check_allowed`
itself. A caller with several suites calls it for all of them first, so that the last one is not refused after hours.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gemma4vec.data.quality.check_run import ensure_checked
from gemma4vec.data.suites.group import AnySuite, OneSuite, SuiteGroup
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.memory_check import check_suite_memory
from gemma4vec.evaluation.scoring.metrics import DEPTH
from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite
from gemma4vec.evaluation.scoring.ranking import Ranker
from gemma4vec.ledger.lineage import Lineage, find_folder, lineage_of_model, lineage_of_run
from gemma4vec.ledger.records import find_enclosing_run, owner_ids
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.suite_access import REFERENCE, Access, Viewer, find_original, may_see, recorded_owner
from gemma4vec.model.save.model_lineage import lineage_of_folder, quantized_from
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)


class Owner(NamedTuple):
    """The run and the recipe of a model.

    Attributes:
        run: None for a model without a run.
        ids: "run_id" and "recipe_id" as the ledger stores them; a baseline evaluated inside a run has no recipe.
        viewer: whose recipe must be frozen before a final suite is scored; a reference has none.
    """

    run: RunFolder | None
    ids: dict[str, str | None]
    viewer: Viewer


def find_owner(
    model: TextEmbedder | Ranker, *, name: str | None = None, run: RunFolder | None = None, out: Path | None = None
) -> Owner:
    """Find the run and recipe of a model.

    The recipe is the one that the ledger knows the run by, whatever its manifest says now. A copy of a run's model
    outside of its folder is recognized by its weights or its fingerprint, if the ledger has the original's. A quantized
    copy is a model of its own, but may see no more than the run that it was made from.

    Args:
        name: of the model in the result; None for the model's own name.
        run: used if given; else the run whose folder the model was loaded from; else the one around `out`.
        out: folder of the result.
    """
    folder: Path | None = getattr(model, "folder", None)
    bound = run or (find_enclosing_run(folder) if folder is not None else None)
    found = bound or (find_enclosing_run(out) if out is not None else None)
    ids = owner_ids(name or model.name, found)
    if bound is not None:  # a run's own model under a baseline's name is still its own
        ids["recipe_id"] = bound.manifest.get("recipe_id")
    known = recorded_owner(ids["run_id"]) if bound is not None or ids["recipe_id"] is not None else None
    if known is None and ids["recipe_id"] is None and not isinstance(model, Bm25Model):
        known = find_original(model.fingerprint, getattr(model, "weights", None))
        if known is not None:
            logger.info(f"{model.name} is the model of the run {known[0]}, whose rules apply")
    if known is not None:
        found = found if known[0] == ids["run_id"] else None
        ids = {"run_id": known[0], "recipe_id": known[1]}
    maker = None if ids["recipe_id"] is None else (ids["run_id"], ids["recipe_id"])
    if maker is None and folder is not None and (source := quantized_from(folder)) is not None:
        maker = find_original("", source)
        if maker is not None:
            logger.info(f"{model.name} is the quantized model of the run {maker[0]}, whose rules apply")
    return Owner(found, ids, REFERENCE if maker is None else Viewer(*maker, model.fingerprint))


def check_allowed(
    model: TextEmbedder | Ranker,
    suites: Sequence[AnySuite | MtebSuite],
    *,
    owner: Owner | None = None,
    look_again: str = "",
    depth: int = DEPTH,
    fits: bool = False,
) -> list[Access]:
    """Refuse scoring that the rules forbid, and check the run's small training data against the suites.

    Args:
        model: what will be scored.
        suites: all that it will be scored on.
        owner: from `find_owner`; None finds it from the model alone.
        look_again: reason for a further look at a final suite.
        depth: number of documents per query that count.
        fits: True if the caller knows that the suites fit into memory.

    Returns:
        What the ledger knows about every suite and every member of a group.

    Raises:
        InputError: a final suite for a recipe that is not frozen, or a run that was scored on it since; a locked suite;
            one that does not fit into memory; a damaged contamination record.
    """
    owner = owner or find_owner(model)
    accesses = [
        may_see(one, owner.viewer, again=look_again)
        for suite in suites
        for one in (suite, *(suite.members if isinstance(suite, SuiteGroup) else []))
    ]
    own = [suite for suite in suites if not isinstance(suite, MtebSuite)]
    if not fits:
        for suite in own:
            check_suite_memory(suite, model, depth)
    if owner.run is not None and owner.ids["recipe_id"] is not None:
        ensure_checked(owner.run, [one for suite in own for one in suite.members])
    return accesses


def find_lineage(model: TextEmbedder | Ranker, owner: Owner) -> Lineage:
    """Find what a model was trained on, itself and through its ancestors (`ledger.lineage`).

    Raises:
        InputError: the settings of a saved model are damaged.
    """
    of_run = owner.run is not None and owner.ids["recipe_id"] is not None
    own = lineage_of_run(owner.run.manifest) if owner.run is not None and of_run else Lineage()
    if isinstance(model, Bm25Model):
        return own
    folder: Path | None = getattr(model, "folder", None)
    weights: str | None = getattr(model, "weights", None)
    if folder is not None:  # also for a model of a run: its folder may hold other weights by now
        return own | lineage_of_folder(folder, weights, model.name)
    return own if own != Lineage() else lineage_of_model(None, weights, model.name)


def check_ancestors(lineage: Lineage, tasks: Sequence[OneSuite], owner: Owner) -> None:
    """Check the small training data of a model's ancestors against suites, as `check_allowed` does for its own."""
    own = owner.run.run_id if owner.run is not None and owner.ids["recipe_id"] is not None else None
    for run_id in lineage.data if tasks else ():
        folder = find_folder(run_id) if run_id != own else None
        if folder is not None:
            ensure_checked(folder, tasks)
