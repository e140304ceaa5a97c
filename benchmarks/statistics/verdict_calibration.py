"""How often verdicts on recipes are wrong where seeds vary: the part of `statistics_calibration.py` about verdicts.

Recipes are drawn as runs x queries: each query has an ease that all share, each recipe its own effect on each query,
each run its own effect (the seed), and the rest is noise. "Before" is how verdicts were made without the seeds' share
in p: the sign flips of the averaged queries, next to the same interval. Rates are shares of simulated comparisons.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.shared.record import say
from gemma4vec.statistics.agreement import agreement, may_promote
from gemma4vec.statistics.bootstrap import Interval
from gemma4vec.statistics.equivalence import correct_for, equivalence_of_estimate
from gemma4vec.statistics.multiplicity import adjust
from gemma4vec.statistics.paired import SignFlip, sign_flip_test
from gemma4vec.statistics.power import detectable_by_error
from gemma4vec.statistics.seeds import SeedInterval, seed_interval
from gemma4vec.statistics.student import t_interval
from gemma4vec.statistics.verdict import decide, evidence

Floats = npt.NDArray[np.float64]
Generator = np.random.Generator

ALPHA = 0.05
QUERIES, FAMILY = 50, 20
RUN_SD = 0.03
EASE_SD, RECIPE_SD, NOISE_SD = 0.3, 0.1, 0.1
MARGIN = 0.1


class Judged(NamedTuple):
    """One comparison: its seed interval, and a sign-flip test if it was asked for."""

    seeds: SeedInterval
    test: SignFlip
    difference_N: Floats


def draw(generator: Generator, ease_N: Floats, runs: int, run_sd: float, mean: float = 0.0) -> Floats:
    """Scores of one recipe, [runs, N]."""
    n = ease_N.size
    return (
        mean
        + ease_N
        + generator.normal(0.0, run_sd, (runs, 1))
        + generator.normal(0.0, RECIPE_SD, n)
        + generator.normal(0.0, NOISE_SD, (runs, n))
    )


def judge(a_RN: Floats, b_RN: Floats, trial: int, *, paired: bool, resamples: int, flips: int) -> Judged:
    """Compare two recipes; without flips the sign-flip test is a stand-in whose p decides nothing."""
    if paired:
        seeds = seed_interval(a_RN - b_RN, resamples=resamples, seed=trial)
    else:
        seeds = seed_interval(a_RN, b_RN, resamples=resamples, seed=trial)
    difference_N = a_RN.mean(axis=0) - b_RN.mean(axis=0)
    test = SignFlip(seeds.mean, 1.0, difference_N.size, difference_N.size, 0, False)
    if flips:
        test = sign_flip_test(difference_N, flips=flips, seed=trial, levels=())
    return Judged(seeds, test, difference_N)


def word(judged: Judged, family: int, *, with_seeds: bool) -> str:
    """The verdict's word, by the seeds' p or as before by the sign flips' p."""
    seeds, test = judged.seeds, judged.test
    span = (
        Interval(seeds.mean, seeds.low, seeds.high, seeds.confidence, "percentile", test.n)
        if seeds.over_seeds
        else t_interval(judged.difference_N)
    )
    used = seeds if with_seeds else None
    (adjusted,) = adjust([evidence(test, used)], "holm", family)
    return decide(test, span, seeds=used, adjusted=adjusted).word


def share(hits: npt.NDArray[np.bool_] | Sequence[bool]) -> dict[str, Any]:
    """A rate, its count, and its own 95% interval (Wilson)."""
    hits_K = np.asarray(hits)
    found = stats.binomtest(int(hits_K.sum()), hits_K.size).proportion_ci(method="wilson")
    return {"rate": float(hits_K.mean()), "of": hits_K.size, "interval": [float(found.low), float(found.high)]}


def equal_recipes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of "better" or "worse" between equal recipes, alone and as one of 20 comparisons (promised: .05 / 20)."""
    found: dict[str, Any] = {}
    for runs, run_sd, paired in (
        (6, RUN_SD, False),
        (6, RUN_SD, True),
        (6, 0.0, False),
        (6, 0.1, False),
        (10, RUN_SD, False),
        (10, RUN_SD, True),
    ):
        name = f"{runs} seeds, sd {run_sd}{', paired' if paired else ''}"
        say(f"equal recipes: {name}")
        generator = np.random.default_rng([arguments.seed, 500, runs, int(run_sd * 100), paired])
        claims: dict[str, list[bool]] = {}
        for trial in range(arguments.seed_trials):
            before = trial < arguments.trials // 2 and run_sd == RUN_SD
            ease_N = generator.normal(0.0, EASE_SD, QUERIES)
            sides = (draw(generator, ease_N, runs, run_sd) for _ in range(2))
            judged = judge(*sides, trial, paired=paired, resamples=200, flips=9_999 if before else 0)
            for family in (1, FAMILY):
                said = word(judged, family, with_seeds=True) != "undetermined"
                claims.setdefault(f"family of {family}", []).append(said)
                if before:
                    said = word(judged, family, with_seeds=False) != "undetermined"
                    claims.setdefault(f"family of {family}, before", []).append(said)
        found[name] = {key: share(hits) for key, hits in claims.items()}
    return found


def few_seeds(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of "better" or "worse" between runs of equal recipes with few seeds: true of these runs, not of recipes."""
    found = {}
    for runs in (1, 3, 5):
        say(f"few seeds: {runs}")
        generator = np.random.default_rng([arguments.seed, 510, runs])
        said = []
        for trial in range(arguments.bootstrap_trials):
            ease_N = generator.normal(0.0, EASE_SD, QUERIES)
            sides = (draw(generator, ease_N, runs, RUN_SD) for _ in range(2))
            judged = judge(*sides, trial, paired=False, resamples=100, flips=arguments.flips)
            said.append(word(judged, 1, with_seeds=True) != "undetermined")
        found[f"{runs} {'seed' if runs == 1 else 'seeds'}"] = share(said)
    return found


def families(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of families of 20 variants equal to one baseline, 6 seeds each, with any false claim; Holm for all."""
    generator = np.random.default_rng([arguments.seed, 520])
    after, before = [], []
    for trial in range(arguments.families):
        if trial % 500 == 0:
            say(f"families: {trial} of {arguments.families}")
        ease_N = generator.normal(0.0, EASE_SD, QUERIES)
        baseline = draw(generator, ease_N, 6, RUN_SD)
        with_flips = trial < arguments.families // 4
        every = [
            judge(
                draw(generator, ease_N, 6, RUN_SD),
                baseline,
                trial * FAMILY + place,
                paired=False,
                resamples=200,
                flips=9_999 if with_flips else 0,
            )
            for place in range(FAMILY)
        ]
        after.append(_any_claim(every, [one.seeds.p for one in every], with_seeds=True))
        if with_flips:
            before.append(_any_claim(every, [one.test.p for one in every], with_seeds=False))
    return {"any false claim": share(after), "any false claim, before": share(before)}


def _any_claim(every: Sequence[Judged], p_values: Sequence[float], *, with_seeds: bool) -> bool:
    for one, adjusted in zip(every, adjust(p_values, "holm", FAMILY), strict=True):
        span = Interval(one.seeds.mean, one.seeds.low, one.seeds.high, 0.95, "percentile", one.test.n)
        seeds = one.seeds if with_seeds else None
        if decide(one.test, span, seeds=seeds, adjusted=adjusted).word != "undetermined":
            return True
    return False


def at_the_margin_over_seeds(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of "no worse" and of "within the margin" shown though A is worse by just the margin."""
    found = {}
    for runs in (6, 10):
        say(f"at the margin over seeds: {runs}")
        generator = np.random.default_rng([arguments.seed, 530, runs])
        shown: dict[str, list[bool]] = {}
        for trial in range(arguments.seed_trials):
            ease_N = generator.normal(0.0, EASE_SD, QUERIES)
            a, b = (draw(generator, ease_N, runs, RUN_SD, mean) for mean in (-MARGIN, 0.0))
            seeds = seed_interval(a, b, resamples=100, seed=trial)
            for question in ("non-inferiority", "equivalence"):
                asked = equivalence_of_estimate(question, seeds.mean, seeds.uncertainty, QUERIES, MARGIN)
                for family in (1, FAMILY):
                    name = f"{question}, {runs} seeds, family of {family}"
                    shown.setdefault(name, []).append(correct_for(family, asked).shown)
        found |= {name: share(hits) for name, hits in shown.items()}
    return found


def power(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of "better" where A is truly better, and at the smallest detectable difference (promised: 80%)."""
    found: dict[str, Any] = {}
    for runs, family in ((6, 1), (6, FAMILY), (10, 1), (10, FAMILY)):
        say(f"power: {runs} seeds, family of {family}")
        generator = np.random.default_rng([arguments.seed, 540, runs, family])
        detectable = _detectable(generator, runs, family)
        for gain in (0.05, 0.08, 0.12, detectable):
            better: dict[str, list[bool]] = {"after": [], "before": []}
            for trial in range(arguments.bootstrap_trials):
                ease_N = generator.normal(0.0, EASE_SD, QUERIES)
                a, b = (draw(generator, ease_N, runs, RUN_SD, mean) for mean in (gain, 0.0))
                judged = judge(a, b, trial, paired=False, resamples=200, flips=arguments.flips)
                better["after"].append(word(judged, family, with_seeds=True) == "better")
                better["before"].append(word(judged, family, with_seeds=False) == "better")
            name = "smallest detectable" if gain == detectable else "gain"
            found[f"{runs} seeds, family of {family}, {name} {gain:.3f}"] = {
                when: share(hits) for when, hits in better.items()
            }
    return found


def _detectable(generator: Generator, runs: int, family: int) -> float:
    """Median of what comparisons say that they can detect."""
    said = []
    for trial in range(300):
        ease_N = generator.normal(0.0, EASE_SD, QUERIES)
        sides = (draw(generator, ease_N, runs, RUN_SD) for _ in range(2))
        seeds = seed_interval(*sides, resamples=100, seed=trial)
        said.append(detectable_by_error(seeds.uncertainty, family=family))
    return float(np.median(said))


def flips_near_a_level(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of pairs with a p near .05 on whose side of .05 two seeds of the random flips disagree."""
    say("flips near a level")
    generator = np.random.default_rng([arguments.seed, 550])
    found: dict[str, list[bool]] = {"before": [], "after": []}
    while len(found["after"]) < arguments.trials // 25:
        row = generator.normal(0.28, 1.0, QUERIES)
        if not 0.045 < stats.ttest_1samp(row, 0.0).pvalue < 0.055:
            continue
        for when, levels in (("before", ()), ("after", (ALPHA,))):
            p = [sign_flip_test(row, seed=seed, levels=levels).p for seed in (1, 2)]
            found[when].append((p[0] < ALPHA) != (p[1] < ALPHA))
    return {when: share(hits) for when, hits in found.items()}


def many_proxies(arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of sets of 12 proxies without any relation to the suite, over 12 runs, of which one may promote."""
    say("many proxies")
    generator = np.random.default_rng([arguments.seed, 560])
    proxies, runs = 12, 12
    found: dict[str, list[bool]] = {"before": [], "after": []}
    for trial in range(arguments.families // 8):
        suite = generator.normal(size=runs)
        values = generator.normal(size=(proxies, runs))
        for when, confidence in (("before", 1.0 - ALPHA), ("after", 1.0 - ALPHA / proxies)):
            found[when].append(
                any(
                    may_promote(agreement(one, suite, confidence=confidence, resamples=2_000, seed=trial)).allowed
                    for one in values
                )
            )
    return {when: share(hits) for when, hits in found.items()}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "equal_recipes": equal_recipes,
    "few_seeds": few_seeds,
    "families_of_equal_variants": families,
    "margins_over_seeds": at_the_margin_over_seeds,
    "power_over_seeds": power,
    "flips_near_a_level": flips_near_a_level,
    "many_proxies": many_proxies,
}


def measure_verdicts(arguments: argparse.Namespace) -> dict[str, Any]:
    """All parts, by name."""
    return {name: part(arguments) for name, part in PARTS.items()}


def missed_verdicts(measured: dict[str, Any]) -> list[str]:
    """Promises that these rates break beyond the error of the simulation itself."""
    broken = []
    for name, rates in measured["equal_recipes"].items():
        for family in (1, FAMILY):
            if rates[f"family of {family}"]["interval"][0] > ALPHA / family:
                broken.append(f"equal recipes, {name}, family of {family}: {rates[f'family of {family}']['rate']:.2%}")
    if measured["families_of_equal_variants"]["any false claim"]["interval"][0] > ALPHA:
        broken.append("equal variants: some false claim in more than 5% of families")
    for name, one in measured["margins_over_seeds"].items():
        if one["interval"][0] > ALPHA / int(name.rsplit(" ", 1)[1]):
            broken.append(f"at the margin, {name}: {one['rate']:.2%}")
    return broken


def verdict_lines(measured: dict[str, Any]) -> list[str]:
    """The rates for a person."""
    lines = []
    for part in PARTS:
        for name, one in measured[part].items():
            rates = {"": one} if "rate" in one else one
            for when, rate in rates.items():
                low, high = rate["interval"]
                where = ": ".join(text for text in (part.replace("_", " "), name, when) if text)
                lines.append(f"{where}: {rate['rate']:.2%} ({low:.2%} to {high:.2%})")
    return lines
