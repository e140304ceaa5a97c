"""A final suite is scored once for each frozen recipe. Every look is recorded; a further look needs a reason."""

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.files import home as outputs_home
from gemma4vec.ledger.ledger import Ledger, open_ledger
from gemma4vec.ledger.run_folder import RunFolder


def check_final(
    suite: str, fingerprint: str, role: str | None, run: RunFolder | None, model_fingerprint: str, again: str = ""
) -> None:
    """Refuse to look at a final suite before the run's recipe is frozen, or a second time since.

    Models without a recipe (bm25, published ones) are references and always pass. Each run of a frozen recipe, that is
    each of its seeds, may be looked at once. The very same model passes again, since it shows nothing new.

    Args:
        suite, fingerprint, role: name, contents and role of the suite. A suite that the ledger knows as final, from an
            earlier look or a lock, is final whatever its role now.
        run: the model's run; None for a reference.
        model_fingerprint: of the model as evaluated: another dtype or limit is another model.
        again: reason for a further look; any text lets it pass, and is stored with the scores.

    Raises:
        InputError: the recipe is not frozen, or the run was looked at since the freeze.
    """
    recipe = run.manifest.get("recipe_id") if run is not None else None
    if run is None or recipe is None or again.strip():
        return
    try:
        with open_ledger(outputs_home(), tolerant=True) as ledger:
            if role != "final" and not _known_final(ledger, fingerprint):
                return
            frozen = ledger.value("SELECT max(time) FROM freezes WHERE recipe_id = ?", (recipe,))
            seen = ledger.value(
                "SELECT max(time) FROM looks WHERE suite_fingerprint = ? AND run_id = ? AND recipe_id = ? AND time > ? "
                "AND model_fingerprint != ?",
                (fingerprint, run.run_id, recipe, frozen or "", model_fingerprint),
            )
    except (Gemma4VecError, OSError) as error:
        if role != "final":
            return  # not known to be final; a warning follows when the look cannot be recorded
        raise InputError(
            f"{suite} is a final suite and the ledger cannot be read, so earlier looks are unknown: {error}"
        ) from error
    advice = 'or give a reason for this look: --look-again "WHY"'
    if frozen is None:
        raise InputError(
            f"{suite} is a final suite, for frozen recipes only; first: gemma4vec runs freeze {run.run_id} ({advice})"
        )
    if seen is not None:
        raise InputError(
            f"{suite} is a final suite and {run.run_id} was looked at on it on {seen[:10]}, after its recipe was "
            f"frozen; a final score is taken once: {advice}"
        )


def is_final(fingerprint: str, role: str | None) -> bool:
    """Return whether a suite is final, by its role, or in the ledger by an earlier look or a lock."""
    if role == "final":
        return True
    try:
        with open_ledger(outputs_home(), tolerant=True) as ledger:
            return _known_final(ledger, fingerprint)
    except (Gemma4VecError, OSError):
        return False  # not known to be final


def _known_final(ledger: Ledger, fingerprint: str) -> bool:
    """Return whether these contents were ever looked at as final, or locked."""
    for view, where in (("looks", "role = 'final'"), ("locks", "1")):
        if ledger.value(f"SELECT 1 FROM {view} WHERE suite_fingerprint = ? AND {where} LIMIT 1", (fingerprint,)):
            return True
    return False
