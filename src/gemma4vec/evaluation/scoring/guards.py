"""What must hold before a model is scored on a suite, whoever asks: the command, a matrix, a training, a notebook.

`evaluate` calls `check_allowed` itself. Who evaluates on several suites calls it for all of them first, so that the
last one is not refused after hours.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gemma4vec.data.quality.check_run import ensure_checked
from gemma4vec.data.suites.group import AnySuite, SuiteGroup
from gemma4vec.evaluation.scoring.memory_check import check_suite_memory
from gemma4vec.evaluation.scoring.metrics import DEPTH
from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite
from gemma4vec.evaluation.scoring.ranking import Ranker
from gemma4vec.ledger.final_suites import check_final
from gemma4vec.ledger.recording import check_lock
from gemma4vec.ledger.records import belongs, run_around
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.text.text_embedder import TextEmbedder


class Owner(NamedTuple):
    """The run and the recipe that a model comes from.

    Attributes:
        run: None for a model that is no run.
        ids: "run_id" and "recipe_id" as the ledger stores them; a baseline evaluated inside a run has no recipe.
        bound: the run whose recipe must be frozen before a final suite is opened; None for a yardstick.
    """

    run: RunFolder | None
    ids: dict[str, str | None]
    bound: RunFolder | None


def owner_of(
    model: TextEmbedder | Ranker, *, name: str | None = None, run: RunFolder | None = None, out: Path | None = None
) -> Owner:
    """Find where a model comes from.

    Args:
        run: taken if given; else the run whose folder the model was opened from; else the one around `out`.
        name: what the result calls the model; None takes the model's own name.
    """
    folder: Path | None = getattr(model, "folder", None)
    bound = run or (run_around(folder) if folder is not None else None)
    found = bound or (run_around(out) if out is not None else None)
    ids = belongs(name or model.name, found)
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
    """Refuse what must not be scored, and check the run's small training data against the suites.

    Args:
        owner: of `owner_of`; None finds it from the model alone.
        look_again: why a final suite is opened all the same.
        depth: documents per query that count.
        fits: whether the caller knows that the suites fit into memory.

    Raises:
        InputError: a final suite, and the recipe is not frozen or its run was looked at since; a locked suite; one
            that would not fit into memory; a damaged stamp.
    """
    owner = owner or owner_of(model)
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
