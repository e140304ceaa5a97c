"""How training, evaluation and comparison record themselves. What these cannot write costs a line, never the work."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.files import home as outputs_home
from gemma4vec.files import write_json
from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import add, new_id, now, open_ledger
from gemma4vec.ledger.records import DECISION, evaluation_record, look_record, run_record
from gemma4vec.ledger.run_folder import RunFolder

DECISIONS = ("keep", "drop", "repeat")
_warned: set[str] = set()


def record_run(run: RunFolder) -> None:
    """Record a run as its folder has it now."""
    try:
        add(outputs_home(), [run_record(run)])
    except (Gemma4VecError, OSError) as error:
        _warn(f"the run {run.path.name}", error)


def record_look(model: str, suite: str, settings: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Record that a model's scores on a suite exist; before they are shown or written anywhere.

    Args: as `records.look_record`.
    """
    try:
        add(outputs_home(), [look_record(model, suite, settings, metrics)])
    except (Gemma4VecError, OSError) as error:
        _warn(f"the look at {suite}", error)


def record_evaluation(folder: Path) -> None:
    """Record the result that was written to `folder`."""
    try:
        add(outputs_home(), list(evaluation_record(folder)))
    except (Gemma4VecError, OSError) as error:
        _warn(f"the evaluation in {folder}", error)


def record_comparison(body: Mapping[str, Any]) -> None:
    """Record a comparison; see the view `comparisons` for its fields."""
    try:
        add(outputs_home(), [Record(f"comparison-{new_id()}", "comparison", now(), dict(body))])
    except (Gemma4VecError, OSError) as error:
        _warn(f"the comparison of {body.get('a')} and {body.get('b')}", error)


def check_lock(suite: str, fingerprint: str, recipe: str | None) -> None:
    """Refuse a look at a suite that is locked until a recipe is frozen.

    A lock holds for the suite's contents and for its name. It opens with the first freeze after it: for models without
    a recipe (bm25, a published model) and for those of recipes that were frozen since.

    Args:
        suite: its name.
        fingerprint: of its contents.
        recipe: that the model comes from; None for a baseline.

    Raises:
        InputError: locked.
    """
    try:
        with open_ledger(outputs_home(), tolerant=True) as ledger:
            lock = ledger.value(
                "SELECT max(time) FROM locks WHERE suite_fingerprint = ? OR suite = ?", (fingerprint, suite)
            )
            frozen = {row["recipe_id"] for row in ledger.rows("SELECT recipe_id FROM freezes WHERE time > ?", (lock,))}
    except (Gemma4VecError, OSError) as error:
        return _warn(f"whether {suite} is locked", error)
    if lock is None:
        return None
    if not frozen:
        raise InputError(f"the suite '{suite}' is locked until a recipe is frozen; first: gemma4vec runs freeze RUN")
    if recipe is not None and recipe not in frozen:
        raise InputError(
            f"the suite '{suite}' is open for frozen recipes only ({', '.join(sorted(frozen))}), not for {recipe}; "
            "first: gemma4vec runs freeze RUN"
        )
    return None


def decide(
    home: Path, run: Mapping[str, Any], decision: str, words: str, promoted_by: Mapping[str, Any] | None = None
) -> Record:
    """Record a decision about a run (a row of the view `runs`), in the ledger and, if it is there, in its folder.

    `promoted_by` says which proxy led to it and how far that one agrees with which suites.

    Raises:
        InputError: not one of keep, drop, repeat, or no words. WorkError: it cannot be recorded.
    """
    if decision not in DECISIONS:
        raise InputError(f"decision '{decision}': use one of {', '.join(DECISIONS)}")
    if not words.strip():
        raise InputError(f"{decision}: say why, in words: gemma4vec runs decide {run['run_id']} {decision} 'WHY'")
    body = {"run_id": run["run_id"], "recipe_id": run["recipe_id"], "decision": decision, "words": words}
    body |= {"promoted_by": dict(promoted_by)} if promoted_by else {}
    record = Record(f"decision-{new_id()}", "decision", now(), body)
    add(home, [record])
    folder = Path(run["path"])
    if folder.is_dir():
        write_json(folder / DECISION, {"id": record.id, "time": record.time, "body": body})
    return record


def record_rule_stop(run: RunFolder, reason: str) -> None:
    """Record that a stop rule ended a training; a ledger that cannot be written is one warning, never a failure."""
    known = {"run_id": run.run_id, "recipe_id": run.manifest.get("recipe_id"), "path": str(run.path.resolve())}
    try:
        decide(outputs_home(), known, "drop", f"stop rule: {reason}")
    except (Gemma4VecError, OSError) as error:
        _warn(f"that the stop rule ended {run.path.name}", error)


def freeze(home: Path, recipe_id: str, run_id: str | None, words: str) -> Record:
    """Freeze a recipe: every suite's and metric's family of comparisons begins anew, and locked suites open for it."""
    body = {"recipe_id": recipe_id, "run_id": run_id, "words": words}
    record = Record(f"freeze-{new_id()}", "freeze", now(), body)
    add(home, [record])
    return record


def lock(home: Path, suite: str, fingerprint: str, words: str) -> Record:
    """Lock a suite until the next freeze."""
    body = {"suite": suite, "suite_fingerprint": fingerprint, "words": words}
    record = Record(f"lock-{new_id()}", "lock", now(), body)
    add(home, [record])
    return record


def _warn(what: str, error: Exception) -> None:
    """One line on stderr, once for each reason."""
    reason = " ".join(str(error).split())
    if reason not in _warned:
        _warned.add(reason)
        print(f"warning: the ledger does not know {what}: {reason}", file=sys.stderr)
