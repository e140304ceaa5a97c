"""May this model see this suite? One function, `may_see`, answers for every caller, from the ledger.

A final suite is scored once for each run of a frozen recipe. What was final once stays final (by an earlier look, by a
lock, or as a changed copy of such a suite) until it is spent: a look at its single queries makes it a dev suite. No
choice is ever made on a final one. The order of events is that of the ledger's records (`seq`), not that of the clock.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.files import home as outputs_home
from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import Ledger, NotIndexedError, add, new_id, now, open_ledger
from gemma4vec.ledger.suite_contents import (
    Overlap,
    SeenSuite,
    contents_of,
    find_copies,
    find_overlaps,
    is_group,
    suite_record,
)

logger = logging.getLogger(__name__)

Use = Literal["score", "choose", "hold out"]
HELD_OUT = "held out by the"  # how the reasons of a matrix or plan begin
_said: set[str] = set()


class Viewer(NamedTuple):
    """The model that is to see a suite.

    Attributes:
        run_id, recipe_id: of its run; without a recipe it is a reference (BM25, a published model).
        fingerprint: of the model as evaluated: another type or limit is another model.
    """

    run_id: str | None = None
    recipe_id: str | None = None
    fingerprint: str = ""


REFERENCE = Viewer()


class NamedSuite(NamedTuple):
    """A suite whose texts are not at hand."""

    name: str
    fingerprint: str
    role: str | None = None


@dataclass(frozen=True)
class Access:
    """What the ledger knows about a suite that may be seen.

    Attributes:
        suite: its name.
        fingerprints: of its contents, and of suites that are changed copies of it.
        final: why it counts as final, in words after its name; None if it does not.
        overlaps: other suites that share queries with it.
    """

    suite: str
    fingerprints: tuple[str, ...]
    final: str | None
    overlaps: tuple[Overlap, ...]

    def notes(self) -> list[str]:
        """Return what a reader of its scores should know."""
        return [one.sentence(self.suite) for one in self.overlaps]


class _History(NamedTuple):
    """What happened, in the order of the ledger.

    Attributes:
        frozen: whether the model's recipe was ever frozen.
        seen: day on which another model of the same run was seen here, before this one; None if none was.
        locked: whether it is locked.
        open_to: recipes frozen since it was locked.
        opened: whether a run of such a recipe was seen here since.
    """

    frozen: bool
    seen: str | None
    locked: bool
    open_to: frozenset[str]
    opened: bool


def may_see(suite: SeenSuite, viewer: Viewer = REFERENCE, use: Use = "score", *, again: str = "") -> Access:
    """Refuse a look that the rules forbid; return what the ledger knows about the suite.

    Args:
        suite: one suite, or a group; the members of a group are asked about one by one.
        use: "score" shows a result; "choose" lets the score choose something (a checkpoint, a rate, the end of a
            training); "hold out" asks whether a matrix, which holds the suite out from its choices, may score recipes
            that are not frozen.
        again: reason for a further look at a final suite; stored with the scores. It opens no lock.

    Raises:
        InputError: one line with the rule and the way out.
    """
    fingerprint = suite.fingerprint
    contents = contents_of(suite, fingerprint)
    try:
        with open_ledger(outputs_home(), tolerant=True) as ledger:
            overlaps = find_overlaps(ledger, fingerprint, contents)
            same = (fingerprint, *(one.fingerprint for one in overlaps if one.copy))
            final = _final(ledger, suite, same, overlaps, held_out=use == "hold out")
            final = None if final is not None and _is_spent(ledger, same) else final
            history = _history(ledger, suite.name, same, viewer)
            partial = [one for one in overlaps if not one.copy and not one.group and not is_group(suite)]
            notable = tuple(one for one in partial if _is_notable(ledger, one, final is not None))
    except Exception as error:  # whatever is wrong with the ledger's files
        if suite.role == "final" and (use != "score" or viewer.recipe_id is not None):
            raise InputError(
                f"{suite.name} is a final suite and the ledger cannot be read, so earlier looks are unknown: {error}"
            ) from error
        return Access(suite.name, (fingerprint,), "is a final suite" if suite.role == "final" else None, ())
    access = Access(suite.name, same, final, notable)
    if final is not None and use != "score":
        no_choice = "which must not guide choices; use a dev suite"
        then = no_choice if use == "choose" else "so its recipes must be frozen first"
        raise InputError(f"{suite.name} {final}, {then}")
    if final is not None and viewer.recipe_id is not None and not again.strip():
        _check_final(access, viewer, history)
    _check_lock(suite.name, viewer, history, again)
    for note in access.notes():
        if note not in _said:
            _said.add(note)
            logger.warning(f"warning: {note}")
    return access


def open_final(access: Access, viewer: Viewer, suite: SeenSuite, again: str = "") -> None:
    """Record that a recipe's model is about to see a final suite, before the first text is encoded.

    So a look whose scores are never recorded (a kill, a full disk) counts, and of two models of one run that are scored
    at the same time only the first passes.

    Raises:
        InputError: it cannot be recorded, or another model of the run came first.
    """
    if access.final is None or viewer.recipe_id is None:
        return
    body = {"suite": suite.name, "suite_fingerprint": access.fingerprints[0], **viewer._asdict()}
    try:
        with contextlib.suppress(NotIndexedError):  # the journal has it; the look itself says what is wrong
            add(outputs_home(), [Record(f"opening-{new_id()}", "opening", now(), body)])
    except (Gemma4VecError, OSError) as error:
        raise InputError(f"{suite.name} is a final suite and the look at it cannot be recorded: {error}") from error
    may_see(suite, viewer, again=again)


def check_choice(key: str, *suites: SeenSuite) -> None:
    """Refuse suites that a choice must not be made on; `key` begins the line.

    Raises:
        InputError: one of them is final.
    """
    for suite in suites:
        try:
            may_see(suite, use="choose")
        except InputError as error:
            raise InputError(f"{key}: {error}") from error


def spend(suite: SeenSuite, words: str) -> None:
    """Make a final suite a dev suite for good: single queries may be looked at, and no score on it is final again.

    A suite that is not final stays as it is, and nothing is recorded.

    Raises:
        InputError: no reason is given. WorkError: it cannot be recorded; the suite stays final.
    """
    if not words.strip():
        raise InputError(f"{suite.name}: say why a final suite is spent; it never becomes final again")
    if may_see(suite).final is None:
        return
    body = {"suite": suite.name, "suite_fingerprint": suite.fingerprint, "words": words}
    add(outputs_home(), [Record(f"spent-{new_id()}", "spent", now(), body)])


def is_final(fingerprint: str, role: str | None) -> bool:
    """Whether contents count as those of a final suite: by their role or by what the ledger knows, and not spent."""
    try:
        with open_ledger(outputs_home(), tolerant=True) as ledger:
            same = find_copies(ledger, fingerprint)
            opened = (_opened_as_final(ledger, one, held_out=False) is not None for one in same)
            return (role == "final" or any(opened)) and not _is_spent(ledger, same)
    except Exception:  # whatever is wrong with the ledger's files
        return role == "final"


def recorded_owner(run_id: str | None) -> tuple[str, str] | None:
    """Return (run_id, recipe_id) as the ledger first recorded the run; None if unknown.

    The run's manifest may say something else by now.
    """
    query = "SELECT run_id, recipe_id FROM run_states WHERE run_id = ? AND recipe_id IS NOT NULL ORDER BY seq LIMIT 1"
    return _owner(query, run_id)


def find_original(fingerprint: str, weights: str | None) -> tuple[str, str] | None:
    """Return (run_id, recipe_id) of the run that made a model; None if the ledger does not know one.

    A copy of a run's model outside of its folder has the weights of the original, and with equal settings its
    fingerprint.

    Args:
        fingerprint: of the model as evaluated.
        weights: hash of its weights alone, if known.
    """
    by_look = (
        "SELECT json_extract(body, '$.run_id') AS run_id, json_extract(body, '$.recipe_id') AS recipe_id FROM records "
        "WHERE kind = 'look' AND json_extract(body, '$.model_fingerprint') = ? "
        "AND json_extract(body, '$.recipe_id') IS NOT NULL ORDER BY seq LIMIT 1"
    )
    by_weights = (
        "SELECT json_extract(body, '$.run_id') AS run_id, json_extract(body, '$.recipe_id') AS recipe_id FROM records "
        "WHERE (kind = 'run' AND json_extract(body, '$.weights') = ?1 "
        "OR kind = 'look' AND json_extract(body, '$.model_weights') = ?1) "
        "AND json_extract(body, '$.recipe_id') IS NOT NULL ORDER BY seq LIMIT 1"
    )
    return _owner(by_look, fingerprint) or (_owner(by_weights, weights) if weights else None)


def _owner(query: str, key: str | None) -> tuple[str, str] | None:
    try:
        with open_ledger(outputs_home(), tolerant=True) as ledger:
            found = ledger.rows(query, (key,))
    except Exception:
        return None  # a warning follows when the look cannot be recorded
    return (str(found[0]["run_id"]), str(found[0]["recipe_id"])) if found else None


def count_models(fingerprint: str) -> int:
    """Return how many models of recipes were seen on these contents or on changed copies of them; 0 if unknown."""
    try:
        with open_ledger(outputs_home(), tolerant=True) as ledger:
            same = find_copies(ledger, fingerprint)
            marks = ", ".join("?" * len(same))
            query = "SELECT count(DISTINCT model_fingerprint) FROM looks WHERE recipe_id IS NOT NULL "
            return int(ledger.value(f"{query} AND suite_fingerprint IN ({marks})", same))
    except Exception:
        return 0  # a count for people only


def contents_record(suite: SeenSuite) -> list[Record]:
    """Return the record of a suite's texts, if they are known and the ledger lacks it."""
    record = suite_record(suite)
    if record is None:
        return []
    with open_ledger(outputs_home(), tolerant=True) as ledger:
        known = ledger.value("SELECT 1 FROM records WHERE id = ?", (record.id,))
    return [] if known else [record]


def _final(
    ledger: Ledger, suite: SeenSuite, same: Sequence[str], overlaps: Sequence[Overlap], *, held_out: bool
) -> str | None:
    """Return why a suite counts as final; None if it does not. `held_out`: looks of matrices do not count."""
    if suite.role == "final" and not held_out:
        return "is a final suite"
    names = {one.fingerprint: one for one in overlaps}
    for contents in same:
        day = _opened_as_final(ledger, contents, held_out=held_out)
        if day is None:
            continue
        if contents != same[0]:
            return f"overlaps the final suite {names[contents].words()}"
        return f"was opened as a final suite on {day}" if day else "was locked as a final suite"
    return None


def _is_spent(ledger: Ledger, same: Sequence[str]) -> bool:
    """Whether these contents, or changed copies of them, were made a dev suite."""
    marks = ", ".join("?" * len(same))
    query = (
        f"SELECT 1 FROM records WHERE kind = 'spent' AND json_extract(body, '$.suite_fingerprint') IN ({marks}) LIMIT 1"
    )
    return ledger.value(query, tuple(same)) is not None


def _opened_as_final(ledger: Ledger, contents: str, *, held_out: bool) -> str | None:
    """Return the day of the first look at these contents as a final suite, "" if they were locked, None if neither."""
    looks = ledger.rows(
        "SELECT look.time AS time, coalesce(json_extract(look.body, '$.look_again'), "
        "json_extract(result.body, '$.settings.look_again')) AS words FROM records AS look "
        "LEFT JOIN records AS result ON result.id = 'evaluation-' || look.id "  # looks of older versions have no reason
        "WHERE look.kind = 'look' AND json_extract(look.body, '$.suite_fingerprint') = ? "
        "AND json_extract(look.body, '$.role') = 'final' ORDER BY look.seq" + ("" if held_out else " LIMIT 1"),
        (contents,),
    )
    for row in looks:
        if not held_out or not str(row["words"] or "").startswith(HELD_OUT):
            return str(row["time"])[:10]
    locked = ledger.value("SELECT 1 FROM locks WHERE suite_fingerprint = ? LIMIT 1", (contents,))
    return "" if locked else None


def _is_notable(ledger: Ledger, overlap: Overlap, final: bool) -> bool:
    """Return whether an overlap matters: of a final suite with any suite, or of any suite with a final one."""
    return final or overlap.role == "final" or _opened_as_final(ledger, overlap.fingerprint, held_out=False) is not None


def _history(ledger: Ledger, name: str, same: Sequence[str], viewer: Viewer) -> _History:
    marks = ", ".join("?" * len(same))
    frozen = ledger.value("SELECT 1 FROM freezes WHERE recipe_id = ?", (viewer.recipe_id,))
    seen = None
    if viewer.recipe_id is not None:
        rows = ledger.rows(
            "SELECT time, json_extract(body, '$.model_fingerprint') AS looked, "
            "json_extract(body, '$.fingerprint') AS opened FROM records "
            "WHERE kind IN ('look', 'opening') AND json_extract(body, '$.run_id') = ? "
            f"AND json_extract(body, '$.recipe_id') = ? AND json_extract(body, '$.suite_fingerprint') IN ({marks}) "
            "ORDER BY seq LIMIT 1",
            (viewer.run_id, viewer.recipe_id, *same),
        )
        if rows and (rows[0]["looked"] or rows[0]["opened"]) != viewer.fingerprint:
            seen = str(rows[0]["time"])[:10]
    lock = ledger.value(f"SELECT max(seq) FROM locks WHERE suite = ? OR suite_fingerprint IN ({marks})", (name, *same))
    if lock is None:
        return _History(frozen is not None, seen, False, frozenset(), True)
    since = ledger.rows("SELECT recipe_id FROM freezes WHERE seq > ?", (lock,))
    open_to = frozenset(str(row["recipe_id"]) for row in since)
    looked = ledger.rows(
        f"SELECT DISTINCT recipe_id FROM looks WHERE seq > ? AND suite_fingerprint IN ({marks})", (lock, *same)
    )
    opened = any(str(row["recipe_id"]) in open_to for row in looked)
    return _History(frozen is not None, seen, True, open_to, opened)


def _check_lock(suite: str, viewer: Viewer, history: _History, again: str) -> None:
    """Refuse a locked suite: it opens for recipes that are frozen since, then for references next to their scores."""
    if not history.locked:
        return
    if not history.open_to:
        raise InputError(f"the suite '{suite}' is locked until a recipe is frozen; first: gemma4vec runs freeze RUN")
    which = ", ".join(sorted(history.open_to))
    if viewer.recipe_id is not None and viewer.recipe_id not in history.open_to:
        raise InputError(
            f"the suite '{suite}' is open for frozen recipes only ({which}), not for {viewer.recipe_id}; "
            "first: gemma4vec runs freeze RUN"
        )
    if viewer.recipe_id is None and not history.opened and not again.strip():
        raise InputError(
            f"the suite '{suite}' is open for frozen recipes only ({which}) until one of them is scored on it; score a "
            'run of it first, or give a reason: --look-again "WHY"'
        )


def _check_final(access: Access, viewer: Viewer, history: _History) -> None:
    """Refuse a recipe that is not frozen, and a second model of a run."""
    suite, why = access.suite, access.final
    named = f"{suite} is a final suite" + ("" if why == "is a final suite" else f" (it {why})")
    advice = 'or give a reason for this look: --look-again "WHY"'
    if not history.frozen:
        raise InputError(f"{named}, for frozen recipes only; first: gemma4vec runs freeze {viewer.run_id} ({advice})")
    if history.seen is not None:
        raise InputError(
            f"{named} and {viewer.run_id} was looked at on it on {history.seen}; a final score is taken once, "
            f"however often its recipe is frozen: {advice}"
        )


def describe_overlaps(accesses: Sequence[Access]) -> list[dict[str, Any]]:
    """Return the overlaps as JSON values, for the settings of a result."""
    return [{"of": access.suite, **one.fields()} for access in accesses for one in access.overlaps]
