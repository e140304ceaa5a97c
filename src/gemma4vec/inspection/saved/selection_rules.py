"""Rules that say which queries a person marked, such as on a map: a slice is a rule, never a list of ids.

Legend: D queries of the open half.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gemma4vec.inspection.attributes import ATTRIBUTES, Value
from gemma4vec.inspection.predicates import Predicate, candidate_slices
from gemma4vec.inspection.slices import SMALLEST

SHOWN = 5
QUANTILES = tuple(step / 10 for step in range(1, 10))


@dataclass(frozen=True)
class SelectionRule:
    """A rule beside a selection.

    Attributes:
        n: queries of the open half that fit it. shared: those of them that are marked.
        precision, recall: `shared` as a share of `n`, and of what is marked.
    """

    rule: str
    words: str
    n: int
    shared: int
    precision: float
    recall: float


def rules_of_selection(
    columns: Mapping[str, Sequence[Value]], rows: Sequence[int], marked: Collection[int], most: int = SHOWN
) -> list[SelectionRule]:
    """The rules with one condition that are most like a selection, by F1; none without an overlap.

    Args:
        columns: `queries.parquet`; columns that are no attributes are left out.
        rows: of the open half.
        marked: some of these rows.
        most: number of rules, of each attribute the best one.
    """
    chosen_D = np.array([row in set(marked) for row in rows])
    own = {name: [column[row] for row in rows] for name, column in columns.items() if name in ATTRIBUTES}
    found: list[tuple[float, str, SelectionRule]] = []
    for rule in candidate_slices(own, smallest=SMALLEST, quantiles=QUANTILES):
        mask_D = rule.mask(own)
        shared, n = int((mask_D & chosen_D).sum()), int(mask_D.sum())
        if shared:
            f1 = 2.0 * shared / (n + int(chosen_D.sum()))
            found.append((f1, str(rule), _described(rule, n, shared, int(chosen_D.sum()))))
    best: dict[str, SelectionRule] = {}
    for _, text, one in sorted(found, key=lambda one: (-one[0], one[1])):
        best.setdefault(text.split()[0], one)
    return list(best.values())[:most]


def _described(rule: Predicate, n: int, shared: int, marked: int) -> SelectionRule:
    return SelectionRule(str(rule), rule.words(), n, shared, shared / n, shared / marked)
