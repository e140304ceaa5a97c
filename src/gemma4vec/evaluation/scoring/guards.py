"""Checks before a model is scored on a suite, for every caller: command, matrix, training, notebook.

`evaluate` calls `check_allowed` itself. A caller with several suites calls it for all of them first, so that the last
one is not refused after hours.
"""

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
from gemma4vec.ledger.final_suites import check_final
from gemma4vec.ledger.lineage import Lineage, find_folder, lineage_of_model, lineage_of_run
from gemma4vec.ledger.recording import check_lock
from gemma4vec.ledger.records import find_enclosing_run, owner_ids
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.save.model_lineage import lineage_of_folder
from gemma4vec.text.text_embedder import TextEmbedder


class Owner(NamedTuple):
    """The run and the recipe of a model.

    Attributes:
        run: None for a model without a run.
        ids: "run_id" and "recipe_id" as the ledger stores them; a baseline evaluated inside a run has no recipe.
        bound: the run whose recipe must be frozen before a final suite is scored; None for a reference.
    """

    run: RunFolder | None
    ids: dict[str, str | None]
    bound: RunFolder | None


def find_owner(
    model: TextEmbedder | Ranker, *, name: str | None = None, run: RunFolder | None = None, out: Path | None = None
) -> Owner:
    """Find the run and recipe of a model.

    Args:
        name: of the model in the result; None for the model's own name.
        run: used if given; else the run whose folder the model was loaded from; else the one around `out`.
        out: folder of the result.
    """
    folder: Path | None = getattr(model, "folder", None)
    bound = run or (find_enclosing_run(folder) if folder is not None else None)
    found = bound or (find_enclosing_run(out) if out is not None else None)
    ids = owner_ids(name or model.name, found)
    if bound is None and ids["recipe_id"] is not None:  # a model in memory whose result goes into its run
        bound = found
    return Owner(found, ids, bound)


def check_allowed(
    model: TextEmbedder | Ranker,
    suites: Sequence[AnySuite | MtebSuite],
    *,
    owner: Owner | None = None,
    look_again: str = "",
    depth: int = DEPTH,
    fits: bool = False,
) -> None:
    """Refuse scoring that the rules forbid, and check the run's small training data against the suites.

    Args:
        model: what will be scored.
        suites: all that it will be scored on.
        owner: from `find_owner`; None finds it from the model alone.
        look_again: reason for a further look at a final suite.
        depth: number of documents per query that count.
        fits: True if the caller knows that the suites fit into memory.

    Raises:
        InputError: a final suite for a recipe that is not frozen, or a run that was scored on it since; a locked suite;
            one that does not fit into memory; a damaged contamination record.
    """
    owner = owner or find_owner(model)
    for suite in suites:
        for one in (suite, *(suite.members if isinstance(suite, SuiteGroup) else [])):
            check_final(one.name, one.fingerprint, one.role, owner.bound, model.fingerprint, look_again)
            check_lock(one.name, one.fingerprint, owner.ids["recipe_id"])
    own = [suite for suite in suites if not isinstance(suite, MtebSuite)]
    if not fits:
        for suite in own:
            check_suite_memory(suite, model, depth)
    if owner.run is not None and owner.ids["recipe_id"] is not None:
        ensure_checked(owner.run, [one for suite in own for one in suite.members])


def find_lineage(model: TextEmbedder | Ranker, owner: Owner) -> Lineage:
    """Find what a model was trained on, itself and through its ancestors (`ledger.lineage`).

    Raises:
        InputError: the settings of a saved model are damaged.
    """
    if owner.run is not None and owner.ids["recipe_id"] is not None:
        own = lineage_of_run(owner.run.manifest)
    else:
        own = Lineage()
    if isinstance(model, Bm25Model):
        return own
    folder: Path | None = getattr(model, "folder", None)
    weights: str | None = getattr(model, "weights", None)
    if folder is not None:  # also for a model of a run: its folder may hold other weights by now
        return own | lineage_of_folder(folder, weights, model.name)
    return own if own != Lineage() else lineage_of_model(None, weights, model.name)


def check_ancestors(lineage: Lineage, tasks: Sequence[OneSuite], owner: Owner) -> None:
    """Check the small training data of a model's ancestors against suites, as `check_allowed` does for its own."""
    own = owner.ids["run_id"] if owner.ids["recipe_id"] is not None else None
    for run_id in lineage.data if tasks else ():
        folder = find_folder(run_id) if run_id != own else None
        if folder is not None:
            ensure_checked(folder, tasks)
