"""Queries of an inspection's open half that fit the filters of an address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.inspection.kinds import TOP
from gemma4vec.inspection.predicates import parse_predicate
from gemma4vec.inspection.sealed import DISCOVERY
from gemma4vec.ledger.suite_halves import sealed_elsewhere
from gemma4vec.ui.content.stored_inspections import Columns, StoredInspection

OUTCOMES = {"failed": "no right document among the first ten", "found": "a right document among the first ten"}
ORDERS = {
    "difference": "worst against the other first",
    "score": "lowest score first",
    "gap": "largest difference first",
    "id": "id",
}
KEPT = ("view", "slice", "rule", "kind", "outcome", "q", "order")


@dataclass(frozen=True)
class Wanted:
    """The filters, as they stand in an address; an empty one filters nothing.

    Attributes:
        view: "paired" or "absolute": what is shown first.
        slice: id of a slice. rule: a rule such as `overlap <= 0.3`.
        kind: of failure. outcome: a key of `OUTCOMES`. q: words of the query or its id.
        order: a key of `ORDERS`.
    """

    view: str = "paired"
    slice: str = ""
    rule: str = ""
    kind: str = ""
    outcome: str = ""
    q: str = ""
    order: str = ""

    @staticmethod
    def of(parameters: Mapping[str, str]) -> "Wanted":
        """The filters of an address."""
        return Wanted(**{name: parameters[name] for name in KEPT if parameters.get(name)})


def select_queries(
    found: StoredInspection, columns: Columns, wanted: Wanted, texts: Mapping[str, str] | None = None
) -> list[int]:
    """Rows that may be shown, in order. Queries that are sealed, here or elsewhere, are never among them.

    Raises:
        InputError: an unknown slice, or a rule that cannot be read.
    """
    rows = shown_rows(found, columns, texts)
    rule = wanted.rule or _rule_of(found, wanted.slice)
    if rule:
        mask = parse_predicate(rule).mask(columns)
        rows = [row for row in rows if mask[row]]
    if wanted.kind:
        rows = [row for row in rows if wanted.kind in (columns["kinds"][row] or ())]
    if wanted.outcome in OUTCOMES:
        rows = [row for row in rows if _failed(columns, row) == (wanted.outcome == "failed")]
    if words := wanted.q.lower().split():
        known = texts or {}
        ids = columns["query_id"]
        rows = [row for row in rows if _has(f"{ids[row]} {known.get(ids[row], '')}".lower(), words)]
    return _ordered(rows, columns, found.metric, wanted.order)


def shown_rows(found: StoredInspection, columns: Columns, texts: Mapping[str, str] | None = None) -> list[int]:
    """Rows of the open half without those whose text is sealed in another suite that has them."""
    rows = [row for row, half in enumerate(columns["half"]) if half == DISCOVERY]
    ids = [columns["query_id"][row] for row in rows]
    known = [texts.get(one, "") for one in ids] if texts else None
    sealed_N = sealed_elsewhere(found.about["suite"]["fingerprint"], ids, known)
    return [row for row, sealed in zip(rows, sealed_N.tolist(), strict=True) if not sealed]


def difference(columns: Columns, metric: str, row: int) -> float | None:
    """Score minus the other model's; None without one."""
    own, other = columns[metric][row], columns.get("against", [None] * (row + 1))[row]
    return None if own is None or other is None else own - other


def _rule_of(found: StoredInspection, name: str) -> str:
    if not name:
        return ""
    for one in found.every_slice:
        if one["id"] == name:
            return str(one["rule"])
    raise InputError(f"this inspection has no slice '{name[:40]}'")


def _failed(columns: Columns, row: int) -> bool:
    rank = columns["gold_rank"][row]
    return rank is None or rank > TOP


def _has(text: str, words: Sequence[str]) -> bool:
    return all(word in text for word in words)


def _ordered(rows: list[int], columns: Columns, metric: str, order: str) -> list[int]:
    ids = columns["query_id"]

    def gap(row: int) -> float:
        found = difference(columns, metric, row)
        return 0.0 if found is None else found

    def score(row: int) -> float:
        return float(columns[metric][row] or 0.0)

    by: dict[str, Any] = {
        "id": lambda row: (ids[row],),
        "score": lambda row: (score(row), ids[row]),
        "gap": lambda row: (-abs(gap(row)), ids[row]),
        "difference": lambda row: (gap(row), score(row), ids[row]),
    }
    return sorted(rows, key=by.get(order, by["difference"]))
