"""Do the tests reject as often as they say, and do the intervals hold the truth as often as they say? By simulation.

    python -m benchmarks.statistics.statistics_calibration

Each kind of data is drawn thousands of times with a known true mean and given to the functions themselves, as a
comparison of two models would. Nothing here is a model of the product: only the data is made up. It fails when a rate
that gemma4vec promises is missed; the other rates are there to be read (docs/concepts/statistics.md explains them).
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from benchmarks.statistics.verdict_calibration import measure_verdicts, missed_verdicts, share, verdict_lines
from gemma4vec.errors import WorkError
from gemma4vec.statistics.agreement import agreement
from gemma4vec.statistics.bootstrap import mean_interval
from gemma4vec.statistics.equivalence import non_inferiority_test
from gemma4vec.statistics.multiplicity import benjamini_hochberg, holm
from gemma4vec.statistics.paired import sign_flip_test
from gemma4vec.statistics.seeds import seed_interval
from gemma4vec.statistics.student import t_interval

Floats = npt.NDArray[np.float64]
Generator = np.random.Generator

ALPHA = 0.05
SIZES = (50, 100, 300)
# nDCG@10 of a query with one relevant document at rank 1, 2, ... or not in the first ten.
NDCG_VALUES = np.array([0.0, 0.289, 0.315, 0.356, 0.387, 0.431, 0.5, 0.631, 1.0])


class Kind(NamedTuple):
    """A kind of data.

    Attributes:
        draw: (generator, trials, n) -> values of shape [trials, n].
        mean: their true mean (with strata: the mean over strata of the strata's).
        exchangeable: whether A and B could be swapped query by query, which is what the sign-flip test assumes.
        strata: task of each of n queries, or None.
        rejects: promised bounds of the test's rejection rate at n = 50, or None.
        covers: promised bounds of the t interval's coverage at every size, or None.
    """

    draw: Callable[[Generator, int, int], Floats]
    mean: float
    exchangeable: bool
    strata: Callable[[int], list[str]] | None = None
    rejects: tuple[float, float] | None = None
    covers: tuple[float, float] | None = None


def mostly_zero(share: float) -> Callable[[Generator, int, int], Floats]:
    """Two rankings of like quality that differ on few queries."""

    def draw(generator: Generator, trials: int, n: int) -> Floats:
        a, b = (generator.choice(NDCG_VALUES, (trials, n)) for _ in range(2))
        return np.where(generator.random((trials, n)) < share, 0.0, a - b)

    return draw


def small_gains_large_losses(generator: Generator, trials: int, n: int) -> Floats:
    """70% zeros; of the rest 8 in 11 small gains (mean .25), 3 in 11 large losses (mean 2/3): true mean 0."""
    gains, losses = generator.beta(2, 6, (trials, n)), generator.beta(4, 2, (trials, n))
    changed = np.where(generator.random((trials, n)) < 8 / 11, gains, -losses)
    return np.where(generator.random((trials, n)) < 0.7, 0.0, changed)


def skewed_scores(generator: Generator, trials: int, n: int) -> Floats:
    """Difference of two independent scores of one skewed distribution: the scores are skewed, the difference is not."""
    return generator.beta(0.4, 1.6, (trials, n)) - generator.beta(0.4, 1.6, (trials, n))


def five_tasks(generator: Generator, trials: int, n: int) -> Floats:
    """Tasks of one to five times the spread; which query belongs to which: `five_labels`."""
    spread_N = np.array([float(label) for label in five_labels(n)])
    return 0.05 * spread_N * generator.normal(size=(trials, n))


def five_labels(n: int) -> list[str]:
    """Five tasks, the first with half of the queries."""
    return [str(1 + max(0, position - n // 2) * 8 // n + (position >= n // 2)) for position in range(n)]


def scores(generator: Generator, trials: int, n: int) -> Floats:
    """nDCG@10 of one model: a third 1, a third 0, the rest between."""
    between = generator.choice(NDCG_VALUES[1:-1], (trials, n))
    which = generator.integers(0, 3, (trials, n))
    return np.where(which == 0, 0.0, np.where(which == 1, 1.0, between))


CONTINUOUS, ZEROS, COVERED = (0.04, 0.06), (0.0, 0.06), (0.93, 0.97)
KINDS = {
    "normal": Kind(lambda g, t, n: g.normal(size=(t, n)), 0.0, True, None, CONTINUOUS, COVERED),
    "heavy tails (t, 3 df)": Kind(lambda g, t, n: g.standard_t(3, (t, n)), 0.0, True, None, CONTINUOUS, COVERED),
    "of skewed scores": Kind(skewed_scores, 0.0, True, None, CONTINUOUS, COVERED),
    "five tasks": Kind(five_tasks, 0.0, True, five_labels, CONTINUOUS, COVERED),
    "50% zeros": Kind(mostly_zero(0.5), 0.0, True, None, ZEROS, COVERED),
    "70% zeros": Kind(mostly_zero(0.7), 0.0, True, None, ZEROS, COVERED),
    "85% zeros": Kind(mostly_zero(0.85), 0.0, True, None, ZEROS),
    "95% zeros": Kind(mostly_zero(0.95), 0.0, True, None, ZEROS),
    "skewed (exponential)": Kind(lambda g, t, n: g.exponential(size=(t, n)) - 1.0, 0.0, False, None, None, COVERED),
    "70% zeros, skewed": Kind(small_gains_large_losses, 0.0, False, None, None, COVERED),
    "scores of one model": Kind(scores, (1.0 + float(NDCG_VALUES[1:-1].mean())) / 3.0, False, None, None, COVERED),
}


def main() -> None:
    arguments = parse_arguments()
    started = time.process_time()
    measured: dict[str, Any] = {
        "alpha": ALPHA,
        "trials": arguments.trials,
        "bootstrap_trials": arguments.bootstrap_trials,
        "flips": arguments.flips,
        "resamples": arguments.resamples,
        "seed_trials": arguments.seed_trials,
        "families": arguments.families,
        "seed": arguments.seed,
        "rejections": rejections(arguments),
        "coverage": coverage(arguments),
        "equivalence_at_the_margin": at_the_margin(arguments),
        "many_comparisons": many_comparisons(arguments),
        "over_seeds": over_seeds(arguments),
        "kendall_tau": kendall(arguments),
        **measure_verdicts(arguments),
    }
    measured["missed"] = missed(measured)
    measured["processor_seconds"] = time.process_time() - started
    print(table(measured))
    write_result("statistics_calibration", measured, arguments.results)
    if measured["missed"]:
        raise WorkError(f"promised and missed: {'; '.join(measured['missed'])}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5_000, help="draws of each kind of data")
    parser.add_argument("--bootstrap-trials", type=int, default=2_000, help="of these, draws given to the bootstrap")
    parser.add_argument("--flips", type=int, default=1_999, help="random sign flips a test")
    parser.add_argument("--resamples", type=int, default=1_000, help="bootstrap resamples an interval")
    parser.add_argument("--seed-trials", type=int, default=20_000, help="comparisons of recipes with several seeds")
    parser.add_argument("--families", type=int, default=2_000, help="families of 20 equal variants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    counts = (arguments.trials, arguments.bootstrap_trials, arguments.seed_trials, arguments.families)
    if min(*counts, arguments.flips, arguments.resamples) < 100:
        parser.error("trials, families, flips and resamples must be 100 or more")
    return arguments


def rejections(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of null pairs, n = 50, whose sign-flip p is below .05. A kind with a mean other than 0 is no null pair."""
    found = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        if kind.mean != 0.0:
            continue
        say(f"rejections: {name}")
        drawn = kind.draw(np.random.default_rng([arguments.seed, number]), arguments.trials, SIZES[0])
        strata = kind.strata(SIZES[0]) if kind.strata else None
        p = [sign_flip_test(row, strata, flips=arguments.flips, seed=trial).p for trial, row in enumerate(drawn)]
        found[name] = {**share(np.array(p) < ALPHA), "exchangeable": kind.exchangeable}
    return found


def coverage(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of intervals that hold the true mean, of both kinds of interval, and on which side the others lie."""
    found: dict[str, Any] = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        say(f"coverage: {name}")
        found[name] = {}
        for n in SIZES:
            drawn = kind.draw(np.random.default_rng([arguments.seed, number, n]), arguments.trials, n)
            strata = kind.strata(n) if kind.strata else None
            t = np.array([ends(t_interval(row, strata)) for row in drawn])
            bca = np.array(
                [
                    ends(mean_interval(row, strata, resamples=arguments.resamples, seed=trial))
                    for trial, row in enumerate(drawn[: arguments.bootstrap_trials])
                ]
            )
            found[name][str(n)] = {"t": covered(t, kind.mean), "bca": covered(bca, kind.mean)}
    return found


def at_the_margin(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of pairs called "no worse than the margin" though A is worse by just that, n = 50."""
    found = {}
    for number, name in enumerate(("normal", "five tasks", "70% zeros", "70% zeros, skewed")):
        say(f"non-inferiority at the margin: {name}")
        kind, margin = KINDS[name], 0.05
        drawn = kind.draw(np.random.default_rng([arguments.seed, 100 + number]), arguments.trials, SIZES[0])
        strata = kind.strata(SIZES[0]) if kind.strata else None
        found[name] = share(np.array([non_inferiority_test(row - margin, margin, strata).shown for row in drawn]))
    return found


def many_comparisons(arguments: argparse.Namespace) -> dict[str, Any]:
    """20 variants against one baseline on 50 queries; 15 are equal to it. p from quick t-tests."""
    say("many comparisons")
    generator = np.random.default_rng([arguments.seed, 200])
    equal, variants, queries = 15, 20, SIZES[0]
    gain_V = np.r_[np.zeros(equal), np.full(variants - equal, 0.5)]
    anything, by_holm, false_shares, power = [], [], [], []
    for _ in range(arguments.trials):
        baseline = generator.normal(size=queries)
        differences_VN = gain_V[:, None] + generator.normal(size=(variants, queries)) - baseline
        p_V = stats.ttest_1samp(differences_VN, 0.0, axis=1).pvalue
        anything.append((p_V[:equal] < ALPHA).any())
        by_holm.append((holm(p_V)[:equal] < ALPHA).any())
        found_V = benjamini_hochberg(p_V) < ALPHA
        false_shares.append(found_V[:equal].sum() / max(1, found_V.sum()))
        power.append(found_V[equal:].mean())
    return {
        "uncorrected": {"any false claim": share(np.array(anything))},
        "holm": {"any false claim": share(np.array(by_holm))},
        "benjamini-hochberg": {
            "false share of the found": float(np.mean(false_shares)),
            "found of the real": float(np.mean(power)),
        },
    }


def over_seeds(arguments: argparse.Namespace) -> dict[str, Any]:
    """Coverage of the true difference of two recipes, queries and seeds drawn anew each time."""
    found = {}
    for runs in (3, 6, 10):
        for run_sd in (0.0, 0.03):
            say(f"over seeds: {runs} runs, sd {run_sd}")
            generator = np.random.default_rng([arguments.seed, 300, runs, int(run_sd * 100)])
            limits = []
            for trial in range(arguments.bootstrap_trials):
                level_N = generator.normal(0.0, 0.3, SIZES[0])
                a, b = (
                    level_N
                    + generator.normal(0.0, run_sd, (runs, 1))
                    + generator.normal(0.0, 0.1, SIZES[0])
                    + generator.normal(0.0, 0.1, (runs, SIZES[0]))
                    for _ in range(2)
                )
                limits.append(ends(seed_interval(a, b, resamples=arguments.resamples, seed=trial)))
            found[f"{runs} runs each, sd between seeds {run_sd}"] = covered(np.array(limits), 0.0)
    return found


def kendall(arguments: argparse.Namespace) -> dict[str, Any]:
    """Coverage of the true tau of a bivariate normal: 2 / pi arcsin(rho)."""
    found = {}
    for runs in (8, 12, 20):
        for rho in (0.0, 0.8):
            say(f"Kendall's tau: {runs} runs, rho {rho}")
            generator = np.random.default_rng([arguments.seed, 400, runs, int(rho * 10)])
            limits = []
            for trial in range(arguments.bootstrap_trials // 2):
                proxy = generator.normal(size=runs)
                suite = rho * proxy + np.sqrt(1 - rho**2) * generator.normal(size=runs)
                tau = agreement(proxy, suite, resamples=arguments.resamples, seed=trial).tau
                limits.append((tau.low, tau.high))
            found[f"{runs} runs, tau {2 / np.pi * np.arcsin(rho):.2f}"] = covered(
                np.array(limits), 2 / np.pi * np.arcsin(rho)
            )
    return found


def ends(interval: Any) -> tuple[float, float]:
    """Both ends of any interval."""
    return interval.low, interval.high


def covered(limits: Floats, truth: float) -> dict[str, Any]:
    """How often the truth lies inside, below and above, and the median width."""
    low, high = limits.T
    rounding = 1e-12
    return {
        **share((low - rounding <= truth) & (truth <= high + rounding)),
        "truth_below": float((truth < low - rounding).mean()),
        "truth_above": float((truth > high + rounding).mean()),
        "median_width": float(np.median(high - low)),
    }


def missed(measured: dict[str, Any]) -> list[str]:
    """Promises that these rates break."""
    broken = []
    for name, kind in KINDS.items():
        if kind.rejects and not kind.rejects[0] <= measured["rejections"][name]["rate"] <= kind.rejects[1]:
            broken.append(f"{name} rejects {measured['rejections'][name]['rate']:.1%}")
        for n, both in measured["coverage"][name].items():
            if kind.covers and not kind.covers[0] <= both["t"]["rate"] <= kind.covers[1]:
                broken.append(f"t interval of {name} at n = {n} covers {both['t']['rate']:.1%}")
    return broken + missed_verdicts(measured)


def table(measured: dict[str, Any]) -> str:
    """The rates for a person."""
    lines = [f"{'kind of differences':24} {'rejects':>8}  " + "  ".join(f"t {n:>3}  BCa {n:>3}" for n in SIZES)]
    for name, by_size in measured["coverage"].items():
        rejected = measured["rejections"].get(name)
        rate = f"{rejected['rate']:8.1%}" if rejected else " " * 8
        cells = "  ".join(f"{both['t']['rate']:5.1%}  {both['bca']['rate']:7.1%}" for both in by_size.values())
        lines.append(f"{name:24} {rate}  {cells}")
    for title in ("equivalence_at_the_margin", "over_seeds", "kendall_tau"):
        lines += [f"{title.replace('_', ' ')}: {name}: {one['rate']:.1%}" for name, one in measured[title].items()]
    many = measured["many_comparisons"]
    lines += [
        f"any false claim, {name}: {many[name]['any false claim']['rate']:.1%}" for name in ("uncorrected", "holm")
    ]
    lines.append(
        f"Benjamini-Hochberg, false of the found: {many['benjamini-hochberg']['false share of the found']:.1%}"
    )
    return "\n".join([*lines, *verdict_lines(measured)])


if __name__ == "__main__":
    as_program(main)
