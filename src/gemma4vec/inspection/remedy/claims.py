"""The claim of a run: as its recipe, its manifest and the ledger have it, which must be the same."""

import json
from typing import Any

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.records import recipe_tree
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.stop_rule import Claim


def claim_of(run: RunFolder) -> Claim:
    """The claim that a run was started with.

    Raises:
        InputError: it has none; it was changed since; or the ledger does not know the run, so that nobody can tell.
    """
    noted, written = run.manifest.get("claim"), recipe_tree(run.recipe_text).get("claim")
    started = _as_started(run)
    if started is None and noted is None and written is None:
        raise InputError(f"{run.path} has no claim; train a recipe that gemma4vec inspect remedy wrote")
    if not noted == written == started:
        raise InputError(
            f"the claim of {run.path} is not the one that its training began with; it cannot be verified, train again"
        )
    try:
        return Claim.model_validate(started)
    except ValueError as error:
        raise InputError(f"the claim of {run.path} is damaged; train a recipe of gemma4vec inspect remedy") from error


def _as_started(run: RunFolder) -> Any:
    """The claim in the recipe that the ledger recorded first."""
    query = "SELECT body FROM records WHERE kind = 'run' AND json_extract(body, '$.run_id') = ? ORDER BY seq LIMIT 1"
    try:
        with open_ledger(home(), tolerant=True) as ledger:
            body = ledger.value(query, (run.run_id,))
    except (Gemma4VecError, OSError) as error:
        raise InputError(f"the ledger cannot be read, so the claim of {run.path} cannot be shown to be old") from error
    if body is None:
        raise InputError(
            f"the ledger below {home()} does not know the run {run.run_id}, so its claim cannot be shown to be older "
            "than its scores; set GEMMA4VEC_HOME to where it was trained"
        )
    return recipe_tree(json.loads(body).get("recipe")).get("claim")
