"""Slices on which a model does worse than elsewhere: found on the open half, corrected for all that were tried.

The paired view (a model minus another, per query) comes first. Hard queries are hard for everybody: the slice with the
lowest scores was the one on which the model led BM25 on one of our suites.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gemma4vec.files import sha256_text
from gemma4vec.inspection.attributes import Value
from gemma4vec.inspection.predicates import Predicate, candidate_slices
from gemma4vec.statistics.slices.gap import slice_gap
from gemma4vec.statistics.slices.max_t import max_t

View = Literal["paired", "absolute"]
PROPOSED, SPENT = "proposed", "spent"
STATUS_WORDS = {
    PROPOSED: ("untested", "found among the open queries; nobody has asked the sealed half yet"),
    "confirmed": ("confirmed", "the sealed half shows the gap too"),
    "refuted": ("refuted", "the sealed half does not show the gap"),
    SPENT: ("spent", "its sealed queries have judged a remedy, so they test nothing more"),
}
"""What people read for a status, and what it means."""
STRONGEST = 5
TOUCHED = "in_training"
SMALLEST = 10  # queries of the open half on either side of a rule
SMALLEST_SHARE = 0.05


@dataclass(frozen=True)
class Slice:
    """One slice with what the open half says of it.

    Attributes:
        id: by which `gemma4vec inspect confirm` knows it.
        view: "paired" for differences of two models, "absolute" for one model's scores.
        n, n_sealed: queries of each half that belong to it.
        inside, outside: means of the open half's queries.
        p, p_max_t: alone, and as one of all that were tried in this view (`tried`).
        can_show: the gap that the sealed half will find four times out of five, from the open half's spread.
        status: proposed, confirmed, refuted, or spent by the verification of a remedy.
    """

    id: str
    rule: str
    words: str
    view: View
    n: int
    n_sealed: int
    inside: float
    outside: float
    gap: float
    p: float
    p_max_t: float
    tried: int
    can_show: float
    status: str = PROPOSED

    def as_json(self) -> dict[str, Any]:
        """For slices.json."""
        return asdict(self)


def find_slices(
    values: npt.NDArray[np.float64],
    attributes: Mapping[str, Sequence[Value]],
    sealed: npt.NDArray[np.bool_],
    view: View,
    identity: str,
    *,
    strongest: int = STRONGEST,
    permutations: int = 2000,
    seed: int = 0,
) -> list[Slice]:
    """Propose slices, strongest first, with at most one rule for each attribute.

    Args:
        values: of every query, [N]; only those of the open half are used.
        attributes: columns of all queries.
        sealed: bool[N].
        view: what the values are.
        identity: of the models and the suite, for the slices' ids.
        strongest: number of slices at most.
        permutations, seed: of max-T.

    Returns:
        Slices below the rest; none where all values are equal, or no rule has enough queries on either side.
    """
    open_N = np.flatnonzero(~sealed)
    values_D = values[open_N]
    columns = {name: [column[row] for row in open_N.tolist()] for name, column in attributes.items()}
    if len(open_N) < 2 * SMALLEST or np.ptp(values_D) == 0.0:
        return []
    rules = candidate_slices(columns, smallest=max(SMALLEST, round(SMALLEST_SHARE * len(open_N))))
    if not rules:
        return []
    masks = [rule.mask(columns) for rule in rules]
    tests = max_t(values_D, np.array(masks), side="lower", permutations=permutations, seed=seed)
    order = sorted(range(len(rules)), key=lambda at: (tests[at].p_max_t, tests[at].z))
    found: list[Slice] = []
    taken: set[str] = set()
    for at in order:
        rule, test = rules[at], tests[at]
        names = {one.attribute for one in rule.conditions}
        if test.gap >= 0.0 or names & taken or len(found) == strongest:
            continue
        taken |= names
        can_show = slice_gap(values_D, masks[at], permutations=1).detectable
        counts = len(open_N), int(masks[at].sum()), int((rule.mask(attributes) & sealed).sum())
        found.append(
            _slice(
                rule, view, identity, test.inside, test.outside, (test.p, test.p_max_t, can_show), counts, len(rules)
            )
        )
    return found


def _slice(
    rule: Predicate,
    view: View,
    identity: str,
    inside: float,
    outside: float,
    tested: tuple[float, float, float],
    counts: tuple[int, int, int],
    tried: int,
) -> Slice:
    p, p_max_t, can_show = tested
    return Slice(
        slice_id(str(rule), view, identity),
        str(rule),
        rule.words(),
        view,
        counts[1],
        counts[2],
        inside,
        outside,
        inside - outside,
        p,
        p_max_t,
        tried,
        can_show,
    )


def slice_id(rule: str, view: View, identity: str) -> str:
    """A short name: of this rule, these models and this suite."""
    return sha256_text(view, rule, identity)[:8]


def touched_slice(
    values: Mapping[str, npt.NDArray[np.float64]],
    touched: Sequence[Value],
    open_N: npt.NDArray[np.bool_],
    *,
    permutations: int = 2000,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Queries that the training data touches beside the others, whether or not they are among the strongest slices.

    The slice and its side, higher, are fixed before anything is looked at, so neither p nor the interval needs a
    correction. Only queries of the open half have values here.

    Args:
        values: of every query, [N], by view.
        touched: of every query; None where nobody knows.
        open_N: the open half, bool[N].
        permutations, seed: of p.

    Returns:
        None where nothing is known of the training data. Else `rule, queries, open, sealed`, and `views`: of each view
        `view, inside, outside, gap, low, high` (Welch's interval)`, p, can_show`; none where all of the open queries
        are touched, or none.
    """
    if any(one is None for one in touched):
        return None
    touched_N = np.array(touched, dtype=bool)
    inside_D = touched_N[open_N]
    counts = {"queries": int(touched_N.sum()), "open": int(inside_D.sum()), "sealed": int((touched_N & ~open_N).sum())}
    views = []
    for view, values_N in values.items() if inside_D.any() and not inside_D.all() else ():
        values_D = values_N[open_N]
        found = slice_gap(values_D, inside_D, side="higher", permutations=permutations, seed=seed)
        means = {"inside": float(values_D[inside_D].mean()), "outside": float(values_D[~inside_D].mean())}
        gap = {"gap": found.gap, "low": found.low, "high": found.high, "p": found.p, "can_show": found.detectable}
        views.append({"view": view, **means, **gap})
    return {"rule": f"{TOUCHED} is yes", **counts, "views": views}


def touched_sentence(found: Mapping[str, Any], total: int, compared: str) -> str:
    """For a person.

    Args:
        found: of `touched_slice`.
        total: number of all queries.
        compared: what the values of the first view are, such as "model minus bm25".
    """
    if not found["queries"]:
        return f"in training, by the checks so far: none of {total} queries, nor a right document of one"
    which = f"{found['queries']} of {total} queries or right documents of theirs"
    head = f"in training, by the checks so far: {which} ({found['open']} of the open half)"
    if not found["views"]:
        return f"{head}; the open half has nothing to compare them with"
    one = found["views"][0]
    limits = f"{one['low']:+.3f} to {one['high']:+.3f}" if np.isfinite(one["low"]) else "no interval of one query"
    return (
        f"{head}: {compared} {one['inside']:+.3f} there, {one['outside']:+.3f} elsewhere, gap {one['gap']:+.3f} "
        f"({limits}), one-sided p {one['p']:.3f} (higher there); detects from {one['can_show']:.3f}"
    )


def with_status(found: Sequence[Slice], known: Mapping[str, str]) -> list[Slice]:
    """The slices with what the ledger knows of each: id -> confirmed or refuted."""
    return [replace(one, status=known.get(one.id, PROPOSED)) for one in found]
