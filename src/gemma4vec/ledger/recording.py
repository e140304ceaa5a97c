"""Recording by training, evaluation and comparison. A record that cannot be written costs a warning, never the work."""

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
    """Record a run in its current state."""
    try:
        add(outputs_home(), [run_record(run)])
    except (Gemma4VecError, OSError) as error:
        _warn(f"the run {run.path.name}", error)


def record_look(model: str, suite: str, settings: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Record that a model was scored on a suite, before the scores are shown or written.

    Args: as `records.look_record`.
    """
    try:
        add(outputs_home(), [look_record(model, suite, settings, metrics)])
    except (Gemma4VecError, OSError) as error:
        _warn(f"the look at {suite}", error)


def record_evaluation(folder: Path) -> None:
    """Record the result in `folder`."""
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

    A lock holds for the suite's contents and for its name. The first freeze after it opens the suite for models without
    a recipe (bm25, a published model) and for models of recipes frozen since.

    Args:
        suite: name of the suite.
        fingerprint: of the suite's contents.
        recipe: id of the model's recipe; None for a baseline.

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
    """Record a decision about a run (a row of the view `runs`), in the ledger and in the run's folder if it exists.

    `promoted_by`: the proxy behind the decision, the suites, and their agreement.

    Raises:
        InputError: not one of keep, drop, repeat, or no words. WorkError: it cannot be recorded.
    """
    if decision not in DECISIONS:
        raise InputError(f"decision '{decision}': use one of {', '.join(DECISIONS)}")
    if not words.strip():
        raise InputError(f"{decision}: give a reason: gemma4vec runs decide {run['run_id']} {decision} 'WHY'")
    body = {"run_id": run["run_id"], "recipe_id": run["recipe_id"], "decision": decision, "words": words}
    body |= {"promoted_by": dict(promoted_by)} if promoted_by else {}
    record = Record(f"decision-{new_id()}", "decision", now(), body)
    add(home, [record])
    folder = Path(run["path"])
    if folder.is_dir():
        write_json(folder / DECISION, {"id": record.id, "time": record.time, "body": body})
    return record


def record_rule_stop(run: RunFolder, reason: str) -> None:
    """Record that a stop rule ended a training; if the ledger cannot be written, warn."""
    known = {"run_id": run.run_id, "recipe_id": run.manifest.get("recipe_id"), "path": str(run.path.resolve())}
    try:
        decide(outputs_home(), known, "drop", f"stop rule: {reason}")
    except (Gemma4VecError, OSError) as error:
        _warn(f"that the stop rule ended {run.path.name}", error)


def freeze(home: Path, recipe_id: str, run_id: str | None, words: str) -> Record:
    """Freeze a recipe: every family of comparisons is counted from zero, and locked suites open for the recipe."""
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
    """Print one line on stderr, once for each reason."""
    reason = " ".join(str(error).split())
    if reason not in _warned:
        _warned.add(reason)
        print(f"warning: the ledger does not know {what}: {reason}", file=sys.stderr)
