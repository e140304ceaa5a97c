"""Recording by training, evaluation and comparison. A record that cannot be written costs a warning, never the work."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.files import home as outputs_home
from gemma4vec.files import write_json
from gemma4vec.ledger.journal import JOURNAL, Record
from gemma4vec.ledger.ledger import NotIndexedError, add, identity_of, new_id, now, open_ledger
from gemma4vec.ledger.records import DECISION, evaluation_record, look_record, run_record
from gemma4vec.ledger.run_folder import RunFolder

TOLERANCE = 1e-9  # of means that are computed again
DECISIONS = ("keep", "drop", "repeat")
_warned: set[str] = set()


@contextlib.contextmanager
def at_the_cost_of_a_warning(what: str) -> Iterator[None]:
    """Turn any failure of the ledger into one warning: the one border between the ledger and the work.

    Whatever is wrong with its files, a training or an evaluation goes on.
    """
    try:
        yield
    except Exception as error:  # no list of errors is complete for damaged files
        _warn(what, error)


def record_run(run: RunFolder) -> None:
    """Record a run in its current state."""
    with at_the_cost_of_a_warning(f"the run {run.path.name}"):
        add(outputs_home(), [run_record(run)])


def record_look(
    model: str, suite: str, settings: Mapping[str, Any], metrics: Sequence[str], others: Sequence[Record] = ()
) -> dict[str, Any]:
    """Record that a model was scored on a suite, before the scores are shown or written.

    Args: as `records.look_record`; `others` are records of the same look.

    Returns:
        {"id", "file"} of the ledger that has the look, as the settings of a result store it; "id" is None, and "why"
        the reason, if none has it.
    """
    file = str((outputs_home() / JOURNAL).resolve())
    found: dict[str, Any] = {"id": None, "file": file, "why": "the ledger could not be written"}
    with at_the_cost_of_a_warning(f"the look at {suite}"):
        try:
            identity = add(outputs_home(), [*others, look_record(model, suite, settings, metrics)])
        except NotIndexedError as error:
            identity = error.identity
            _warn(f"the look at {suite} in its index", error)
        found = {"id": identity, "file": file}
    return found


def check_recorded(
    folder: Path, summary: Mapping[str, Any], digest: Callable[[], str], mean: Mapping[str, float]
) -> None:
    """Refuse a result that was changed since the ledger recorded its look.

    Results of older versions, and looks that another ledger recorded, cannot be checked and pass.

    Args:
        folder: of the result, for the error.
        summary: its metrics.json.
        digest: computes the hash of the scores in the folder.
        mean: the means of these scores.

    Raises:
        InputError: scores, or what they are scores of, are not those of the look; or this ledger has no such look
            though the result says so.
    """
    settings = summary.get("settings") or {}
    look = settings.get("look")
    named = (settings.get("ledger") or {}).get("id") if isinstance(settings.get("ledger"), dict) else None
    if not look:
        return
    known, recorded = True, None
    with at_the_cost_of_a_warning(f"whether the result in {folder} is as it was recorded"):
        with open_ledger(outputs_home(), tolerant=True) as ledger:
            body = ledger.value("SELECT body FROM records WHERE id = ?", (f"look-{look}",))
        known = body is not None or named is None or named != identity_of(outputs_home())
        recorded = json.loads(body).get("scores") if body else None
    if not known:
        raise InputError(
            f"the result in {folder} names a look that the ledger does not have ({look}); evaluate again, or restore "
            "the ledger with: gemma4vec runs rebuild"
        )
    if recorded is None:
        return
    if recorded != digest():
        raise InputError(f"the result in {folder} is not the one that the ledger recorded ({look}); evaluate again")
    for metric, value in (summary.get("mean") or {}).items():
        if metric in mean and not math.isclose(float(value), mean[metric], rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise InputError(
                f"the result in {folder} says {metric} {value} and its queries say {mean[metric]}; evaluate again"
            )


def record_evaluation(folder: Path) -> None:
    """Record the result in `folder`."""
    with at_the_cost_of_a_warning(f"the evaluation in {folder}"):
        add(outputs_home(), list(evaluation_record(folder)))


def record_comparison(body: Mapping[str, Any]) -> None:
    """Record a comparison; see the view `comparisons` for its fields."""
    with at_the_cost_of_a_warning(f"the comparison of {body.get('a')} and {body.get('b')}"):
        add(outputs_home(), [Record(f"comparison-{new_id()}", "comparison", now(), dict(body))])


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
    with at_the_cost_of_a_warning(f"that the stop rule ended {run.path.name}"):
        decide(outputs_home(), known, "drop", f"stop rule: {reason}")


def freeze(home: Path, recipe_id: str, run_id: str | None, words: str) -> Record:
    """Freeze a recipe: final suites and those that are locked now open for its runs. No count changes."""
    body = {"recipe_id": recipe_id, "run_id": run_id, "words": words}
    record = Record(f"freeze-{new_id()}", "freeze", now(), body)
    add(home, [record])
    return record


def lock(home: Path, suite: str, fingerprint: str, words: str, others: Sequence[Record] = ()) -> Record:
    """Lock a suite until the next freeze; `others` are records of its texts."""
    body = {"suite": suite, "suite_fingerprint": fingerprint, "words": words}
    record = Record(f"lock-{new_id()}", "lock", now(), body)
    add(home, [*others, record])
    return record


def _warn(what: str, error: Exception) -> None:
    """Print one line on stderr, once for each reason."""
    reason = " ".join(str(error).split())
    if reason not in _warned:
        _warned.add(reason)
        print(f"warning: the ledger does not know {what}: {reason}", file=sys.stderr)
