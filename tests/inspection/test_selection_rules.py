"""Rules for a marked selection, against a brute search over every rule."""

import numpy as np

from gemma4vec.inspection.predicates import candidate_slices
from gemma4vec.inspection.saved.selection_rules import QUANTILES, rules_of_selection


def test_the_rule_that_made_a_selection_is_found_first() -> None:
    generator = np.random.default_rng(0)
    columns = {
        "query_words": generator.integers(1, 20, 80).astype(float).tolist(),
        "digits": (generator.random(80) < 0.4).tolist(),
        "language": generator.choice(["de", "en"], 80).tolist(),
        "query_id": [f"q{row}" for row in range(80)],  # no attribute
    }
    rows = list(range(0, 80, 2))
    marked = [row for row in rows if columns["digits"][row]]
    first, *others = rules_of_selection(columns, rows, marked)
    assert first.rule == "digits is yes" and first.precision == first.recall == 1.0 and first.n == first.shared
    assert len({one.rule.split()[0] for one in others} | {"digits"}) == len(others) + 1
    mixed = generator.choice(rows, 15, replace=False).tolist()
    found = rules_of_selection(columns, rows, mixed, most=1)[0]
    own = {name: [columns[name][row] for row in rows] for name in ("query_words", "digits", "language")}

    def f1(rule) -> float:
        fits = {row for row, ok in zip(rows, rule.mask(own), strict=True) if ok}
        return 2 * len(fits & set(mixed)) / (len(fits) + len(mixed))

    every = candidate_slices(own, smallest=10, quantiles=QUANTILES)
    best = max(map(f1, every))
    assert 2 * found.shared / (found.n + len(mixed)) == best
    assert found.precision == found.shared / found.n and found.recall == found.shared / len(mixed)
    assert rules_of_selection(columns, rows, []) == []
