"""How often slices of noise are confirmed, and how often a planted slice is: the promise of `gemma4vec inspect`.

On each suite BM25's scores of the queries are dealt to the queries at random, so that no slice means anything. Slices
are proposed on one half and opened on the other, exactly as by the commands. Of the proposed slices 4 to 6% may be
confirmed (each as the first that is opened). Beside it: how often the best rule would pass without any correction, and
without a second half.

Then a flag that is true for a fifth of 500 queries lowers the dealt values by .15. It must be among the proposed slices
and confirmed in over 80% of the deals for paired differences: BM25 on words minus BM25 on parts of identifiers.

Then remedies: three trainings that differ by luck alone (paired differences with random signs), judged on the sealed
queries of the slice that the discovery half proposes. At most 5% may be verified, without a control arm too. Beside it:
how often a remedy that adds .1 to the slice is verified, where the slice has enough sealed queries to show it.

    python -m benchmarks.statistics.inspection_calibration DIR --suites scifact cosqa ... --deals 200
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.shared.record import as_program, say, write_result
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.inspection.attributes import Value
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.predicates import candidate_slices, parse_predicate
from gemma4vec.inspection.remedy.judge import VERIFIED, detectable_effect, judge_claim
from gemma4vec.inspection.slices import SMALLEST, SMALLEST_SHARE, Slice, find_slices
from gemma4vec.ledger.suite_halves import split_halves
from gemma4vec.statistics.slices.gap import slice_gap
from gemma4vec.statistics.slices.max_t import max_t

Floats = npt.NDArray[np.float64]
Columns = dict[str, list[Value]]
LOW, HIGH = 0.04, 0.06
ALPHA = 0.05
PLANTED, SHARE, QUERIES, POWER = -0.15, 0.2, 500, 0.8
CLAIMED, MARGIN, HELP = 0.01, 0.03, 0.1  # of remedies; the claim is small, so that it does not decide alone
FLAG = "negation"  # its values are replaced by the planted flag
PERMUTATIONS = 499


class Measured(NamedTuple):
    """A suite's queries: attributes, scores of BM25, and differences from BM25 on parts of identifiers."""

    ids: list[str]
    columns: Columns
    scores_N: Floats
    differences_N: Floats


def measure(suite: RetrievalSuite, folder: Path) -> Measured:
    """Score and describe a suite's queries."""
    found = inspect(Subject(Bm25Model(), "bm25"), suite, folder / suite.name)
    metric = found.metric
    parts = evaluate(Bm25Model(), replace(suite, code=not suite.code))
    other_N = np.array([parts.per_query[suite.name][key][metric] for key in suite.query_ids])
    scores_N = found.reading.values(metric)
    return Measured(suite.query_ids, found.columns, scores_N, scores_N - other_N)


def opened(one: Slice, values_N: Floats, columns: Columns, sealed_N: npt.NDArray[np.bool_], seed: int) -> bool | None:
    """Whether the sealed half confirms a slice; None where it has no query of it."""
    mask_N = parse_predicate(one.rule).mask(columns) & sealed_N
    if not mask_N.any() or mask_N.sum() == sealed_N.sum():
        return None
    gap = slice_gap(values_N[sealed_N], mask_N[sealed_N], permutations=PERMUTATIONS, seed=seed)
    return gap.gap < 0.0 and gap.p <= ALPHA


def noise(found: Measured, values_N: Floats, deals: int) -> dict[str, Any]:
    """Deal the values and count."""
    confirmed, firsts, naive, corrected = [], [], [], []
    for deal in range(deals):
        dealt_N = np.random.default_rng(deal).permutation(values_N)
        sealed_N = split_halves(f"deal {deal}", found.ids)
        assert sealed_N is not None
        slices = find_slices(dealt_N, found.columns, sealed_N, "absolute", "", permutations=PERMUTATIONS, seed=deal)
        words = [opened(one, dealt_N, found.columns, sealed_N, deal) for one in slices]
        kept = [word for word in words if word is not None]
        confirmed += kept
        firsts += kept[:1]
        naive.append(_smallest_p(dealt_N[~sealed_N], found.columns, sealed_N, deal) <= ALPHA)
        corrected.append(min((one.p_max_t for one in slices), default=1.0) <= ALPHA)
    return {
        "slices": len(confirmed),
        "confirmed": float(np.mean(confirmed)) if confirmed else 0.0,
        "strongest_confirmed": float(np.mean(firsts)) if firsts else 0.0,
        "a_rule_passes_uncorrected": float(np.mean(naive)),
        "a_rule_passes_max_t": float(np.mean(corrected)),
    }


def _smallest_p(values_D: Floats, columns: Columns, sealed_N: npt.NDArray[np.bool_], seed: int) -> float:
    open_N = np.flatnonzero(~sealed_N).tolist()
    own = {name: [column[row] for row in open_N] for name, column in columns.items()}
    rules = candidate_slices(own, smallest=max(SMALLEST, round(SMALLEST_SHARE * len(open_N))))
    if not rules:
        return 1.0
    masks_SN = np.array([rule.mask(own) for rule in rules])
    return min(one.p for one in max_t(values_D, masks_SN, permutations=PERMUTATIONS, seed=seed))


def planted(found: Measured, values_N: Floats, deals: int) -> dict[str, float]:
    """Plant a slice in dealt values and count how often it is proposed, passes max-T, and is confirmed."""
    proposed, passed, both = [], [], []
    for deal in range(deals):
        generator = np.random.default_rng(10_000 + deal)
        rows = generator.permutation(len(values_N))[:QUERIES].tolist()
        flag_N = np.zeros(len(rows), dtype=bool)
        flag_N[generator.permutation(len(rows))[: round(SHARE * len(rows))]] = True
        dealt_N = generator.permutation(values_N)[: len(rows)] + PLANTED * flag_N
        columns = {name: [column[row] for row in rows] for name, column in found.columns.items()}
        columns[FLAG] = [bool(one) for one in flag_N]
        sealed_N = split_halves(f"planted {deal}", [found.ids[row] for row in rows])
        assert sealed_N is not None
        slices = find_slices(dealt_N, columns, sealed_N, "paired", "", permutations=PERMUTATIONS, seed=deal)
        mine = next((one for one in slices if one.rule == f"{FLAG} is yes"), None)
        proposed.append(mine is not None)
        passed.append(mine is not None and mine.p_max_t <= ALPHA)
        both.append(mine is not None and bool(opened(mine, dealt_N, columns, sealed_N, deal)))
    return {
        "sd": float(values_N.std(ddof=1)),
        "proposed": float(np.mean(proposed)),
        "passes_max_t": float(np.mean(passed)),
        "proposed_and_confirmed": float(np.mean(both)),
    }


def remedies(found: Measured, deals: int) -> dict[str, float]:
    """Judge remedies that do nothing, and ones that help, on slices that luck has proposed."""
    null, alone, helped, shown = [], [], [], []
    for deal in range(deals):
        generator = np.random.default_rng(20_000 + deal)
        sealed_N = split_halves(f"remedy {deal}", found.ids)
        assert sealed_N is not None
        dealt_N = generator.permutation(found.differences_N)
        slices = find_slices(dealt_N, found.columns, sealed_N, "paired", "", permutations=99, seed=deal)
        masks = [parse_predicate(one.rule).mask(found.columns) for one in slices]
        mask_N = next((one for one in masks if (one & sealed_N).any() and not one[sealed_N].all()), None)
        if mask_N is None:
            continue
        gains_N, other_N = (found.differences_N * generator.choice([-1.0, 1.0], len(dealt_N)) for _ in range(2))
        over_N = gains_N - other_N  # the remedy and its control arm start from the same model
        inside_N, own = mask_N[sealed_N], {"flips": PERMUTATIONS, "seed": deal}

        def verified(gains: Floats, over: Floats | None, inside: Any = inside_N, how: Any = own) -> bool:
            found = judge_claim(gains, inside, CLAIMED, MARGIN, over_control_N=over, **how)
            return found.verdict == VERIFIED

        null.append(verified(gains_N[sealed_N], over_N[sealed_N]))
        alone.append(verified(gains_N[sealed_N], None))
        shows = detectable_effect(gains_N[mask_N & ~sealed_N], int(inside_N.sum()), 1)
        shown.append(shows <= HELP)
        if shows <= HELP:
            helped.append(verified((gains_N + HELP * mask_N)[sealed_N], (over_N + HELP * mask_N)[sealed_N]))
    return {
        "slices": len(null),
        "null_verified": float(np.mean(null)) if null else 0.0,
        "null_verified_without_control": float(np.mean(alone)) if alone else 0.0,
        "enough_queries": float(np.mean(shown)) if shown else 0.0,
        "help_verified": float(np.mean(helped)) if helped else 0.0,
        "helped": len(helped),
    }


def main() -> int:
    """Measure every suite and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with suites in BEIR's layout")
    parser.add_argument("--suites", nargs="*", help="names of folders in it; all by default")
    parser.add_argument("--deals", type=int, default=200, help="random deals a suite")
    wanted = parser.parse_args()
    names = wanted.suites or sorted(path.parent.name for path in wanted.data.glob("*/corpus.jsonl"))
    started, rows = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GEMMA4VEC_HOME"], os.environ["GEMMA4VEC_CACHE"] = f"{folder}/runs", f"{folder}/cache"
        for name in names:
            suite = load_suite(wanted.data / name)
            found = measure(suite, Path(folder) / "inspections")
            rows[name] = {"queries": len(found.ids), "noise": noise(found, found.scores_N, wanted.deals)}
            rows[name]["remedy"] = remedies(found, wanted.deals)
            if len(found.ids) >= QUERIES:
                rows[name]["planted_paired"] = planted(found, found.differences_N, wanted.deals)
                rows[name]["planted_absolute"] = planted(found, found.scores_N, wanted.deals)
            say(f"{name}: {rows[name]}")
    slices = sum(row["noise"]["slices"] for row in rows.values())
    share = sum(row["noise"]["slices"] * row["noise"]["confirmed"] for row in rows.values()) / slices
    planted_in = {name: row["planted_paired"] for name, row in rows.items() if "planted_paired" in row}
    powers = {name: row["proposed_and_confirmed"] for name, row in planted_in.items()}
    judged = sum(row["remedy"]["slices"] for row in rows.values())
    idle = {
        key: sum(row["remedy"]["slices"] * row["remedy"][key] for row in rows.values()) / judged
        for key in ("null_verified", "null_verified_without_control")
    }
    kept = LOW <= share <= HIGH and all(power > POWER for power in powers.values()) and max(idle.values()) <= ALPHA
    measured = {
        "deals": wanted.deals,
        "seconds": time.perf_counter() - started,
        "slices_of_noise": slices,
        "confirmed": share,
        "remedies": judged,
        **idle,
        "suites": rows,
        "kept": kept,
    }
    path = write_result("inspection_calibration", measured)
    say(f"{share:.2%} of {slices:,} slices of noise were confirmed (promised: 4 to 6%); planted: {powers}; {path}")
    say(f"of {judged:,} remedies that do nothing were verified: {idle} (promised: at most 5%)")
    return 0 if kept else 1


if __name__ == "__main__":
    as_program(main)
