"""What the ledger knows of sealed halves: which slices were opened, and what came of it.

An opening is recorded before the first sealed value is read, and its verdict is a comparison of the suite's family like
any other. Records have the slice's id, so that a slice is opened once, whoever asks and however often.
"""

import json
from dataclasses import dataclass
from typing import Any

from gemma4vec.errors import Gemma4VecError, InputError, WorkError
from gemma4vec.files import home, sha256_text
from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import NotIndexedError, add, now, open_ledger
from gemma4vec.ledger.suite_contents import find_same_halves


@dataclass(frozen=True)
class Verdict:
    """What an opened slice was found to be."""

    word: str
    day: str
    body: dict[str, Any]


def verdicts(suite_fingerprint: str) -> dict[str, Verdict]:
    """Slice id -> verdict, of all slices that were opened on these contents; empty if the ledger cannot be read."""
    query = (
        "SELECT time, body FROM records WHERE kind = 'comparison' AND json_extract(body, '$.slice') IS NOT NULL "
        "AND json_extract(body, '$.suite_fingerprint') = ? ORDER BY seq"
    )
    try:
        with open_ledger(home(), tolerant=True) as ledger:
            rows = ledger.rows(query, (suite_fingerprint,))
    except (Gemma4VecError, OSError):
        return {}
    bodies = [(str(row["time"])[:10], json.loads(row["body"])) for row in rows]
    return {str(body["slice"]): Verdict(str(body["verdict"]), day, body) for day, body in bodies}


def remedy_key(rule: str, suite_fingerprint: str) -> str:
    """The name that the verification of a remedy has in the ledger: once for a rule and contents, whatever models."""
    return f"remedy-{sha256_text(rule, suite_fingerprint)[:8]}"


def refuse_spent(rule: str, suite: str, found: Verdict | None) -> None:
    """Refuse a slice whose sealed queries have given their answer.

    Raises:
        InputError: they have.
    """
    if found is not None:
        gap = found.body.get("difference")
        what = "gain" if str(found.body.get("slice")).startswith("remedy-") else "gap"
        raise InputError(
            f"the slice '{rule}' is spent on {suite}: {found.word} on {found.day} ({what} {gap:+.3f}); a new claim "
            "needs other queries"
        )


def record_opening(slice_id: str, body: dict[str, Any]) -> int:
    """Record that a slice's sealed queries are about to be read.

    Returns:
        How many slices were opened on these contents and on samples with the same halves, this one included.

    Raises:
        WorkError: it cannot be recorded; the half stays sealed.
    """
    try:
        try:
            add(home(), [Record(f"exposure-{slice_id}", "exposure", now(), body)])
        except NotIndexedError as error:
            raise WorkError(f"{error}") from error
        with open_ledger(home()) as ledger:
            copies = find_same_halves(ledger, body["suite_fingerprint"])
            marks = ", ".join("?" * len(copies))
            own = ledger.value("SELECT seq FROM records WHERE id = ?", (f"exposure-{slice_id}",))
            return int(
                ledger.value(
                    "SELECT count(*) FROM records WHERE kind = 'exposure' AND seq <= ? "
                    f"AND json_extract(body, '$.suite_fingerprint') IN ({marks})",
                    (own, *copies),
                )
            )
    except (Gemma4VecError, OSError) as error:
        raise WorkError(f"the opening cannot be recorded, so the half stays sealed: {error}") from error


def count_openings(suite_fingerprint: str, without: str = "") -> int:
    """Slices that `record_opening` would count, without one of them; 0 if the ledger cannot be read."""
    query = "SELECT count(*) FROM records WHERE kind = 'exposure' AND id != ? AND json_extract(body, ?) IN "
    try:
        with open_ledger(home(), tolerant=True) as ledger:
            same = find_same_halves(ledger, suite_fingerprint)
            marks = f"({', '.join('?' * len(same))})"
            return int(ledger.value(query + marks, (f"exposure-{without}", "$.suite_fingerprint", *same)))
    except (Gemma4VecError, OSError):
        return 0


def record_verdict(slice_id: str, body: dict[str, Any]) -> None:
    """Record what an opened slice was found to be, in the suite's family of comparisons.

    Raises:
        WorkError: it cannot be recorded; the same command tries again.
    """
    try:
        add(home(), [Record(f"comparison-slice-{slice_id}", "comparison", now(), {"slice": slice_id, **body})])
    except (Gemma4VecError, OSError) as error:
        raise WorkError(f"the verdict cannot be recorded; try the same command again: {error}") from error
