"""Pieces of advice, each with the figure behind it. Which of them helps is for a comparison to say."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gemma4vec.inspection.geometry.figures import Figure
from gemma4vec.inspection.kinds import NEAR, TOP, KindCount
from gemma4vec.inspection.predicates import readable_rule
from gemma4vec.inspection.slices import PROPOSED, Slice

SHOWN = 3
CLEAR = 0.05  # p of a slice that is worth opening
FREE = 0.005  # nDCG@10
GAINS = 0.01
MOSTLY = 0.5  # of the queries: what is cut for most of them has no rate to compare with
SETTING, OF_DATA = 2.0, 0.5  # weights of what a probe shows
MENDS = {
    "truncation": "let the model read longer texts, or split long documents",
    "prompts": "encode with other prompts, or find out which ones the model was trained with",
    "position": "train on rows whose evidence is not first",
    "length": "train on rows with longer positives",
    "literal": "mine hard negatives by BM25 for some rows",
    "negation": "add negated hard negatives",
    "numbers": "add hard negatives with other numbers",
    "entities": "add hard negatives with other names",
}
LEAST_SHARE = 0.02  # of the queries: below this nothing is advised


@dataclass(frozen=True)
class Advice:
    """One piece of advice.

    Attributes:
        what: to do.
        figure: why.
        weight: share of the queries that it is about, for the order.
    """

    what: str
    figure: str
    weight: float

    def as_json(self) -> dict[str, Any]:
        """For inspection.json."""
        return asdict(self)


def advise(
    slices: Sequence[Slice],
    kinds: Sequence[KindCount],
    figures: Sequence[Figure],
    other: str | None,
    limit: int | None = None,
    probes: Sequence[Mapping[str, Any]] = (),
) -> list[Advice]:
    """The three weightiest pieces of advice.

    Args:
        slices: proposed, strongest first.
        kinds: counted over the open half.
        figures: of the geometry, possibly none.
        other: name of the model that was compared with.
        limit: tokens that the model reads; None for one without a limit.
        probes: figures of probes in their order, if any were run.
    """
    named = {one.name: one for one in kinds}
    found = [*_of_slices(slices), *_of_kinds(named, other), *_of_truncation(named, limit), *_of_figures(figures)]
    found += _of_probes(probes)
    return sorted(found, key=lambda one: -one.weight)[:SHOWN]


def _of_slices(slices: Sequence[Slice]) -> list[Advice]:
    shown = [one for one in slices if one.view == slices[0].view]  # paired, where there is another model
    clear = [one for one in shown if one.p_max_t <= CLEAR and one.status == PROPOSED]
    if not clear:
        return []
    best = clear[0]
    return [
        Advice(
            f"confirm the slice '{readable_rule(best.rule)}' before changing anything for it: "
            f"gemma4vec inspect confirm {best.id}",
            f"gap {best.gap:+.3f} on {best.n} queries, p {max(best.p_max_t, 0.001):.3f} among {best.tried} rules; the "
            f"sealed half detects gaps from {best.can_show:.3f}",
            1.0,
        )
    ]


def _of_kinds(kinds: Mapping[str, KindCount], other: str | None) -> list[Advice]:
    found: list[Advice] = []
    texts = {
        "hub_on_top": "look at the hubs first (documents.parquet, k_occurrence)",
        "duplicate_above": "judge or merge near duplicates before training on this",
        "label_doubtful": "read these judgments first (queries.parquet, kinds has label_doubtful)",
    }
    for name, what in texts.items():
        one = kinds.get(name)
        if one is None or not one.lift.failures.n:
            continue
        rate, base = one.lift.failures.value or 0.0, one.lift.successes.value or 0.0
        telling = name == "label_doubtful" or (one.lift.low or 0.0) > 1.0
        if telling and rate > base:
            found.append(
                Advice(
                    what, f"{one.words}: {rate:.0%} of failures, {base:.0%} of successes", _share(one) * (rate - base)
                )
            )
    near = kinds.get("near_miss")
    if near is not None and near.lift.failures.n:
        rate = near.lift.failures.value or 0.0
        figure = f"{rate:.0%} of failures have a right document at ranks {TOP + 1} to {NEAR}"
        found.append(Advice(f"rerank the first {NEAR}", figure, _share(near) * rate))
    misses = kinds.get("other_misses")
    if misses is not None and misses.lift.failures.n and other is not None:
        rate = 1.0 - (misses.lift.failures.value or 0.0)
        figure = f"{other} finds a right document for {rate:.0%} of failures"
        found.append(Advice(f"join the ranking with {other}'s", figure, _share(misses) * rate))
    return [one for one in found if one.weight >= LEAST_SHARE]


def _of_truncation(kinds: Mapping[str, KindCount], limit: int | None) -> list[Advice]:
    """Where the evidence is cut more often among failures, or most right documents are cut at all.

    What is cut for nearly every query has the same rate among failures and successes, whatever it costs.
    """
    found: list[Advice] = []
    what = f"let the model read more than {limit} tokens, or split long documents"
    for name in ("evidence_cut", "gold_truncated"):
        one = kinds.get(name)
        if one is None or not one.lift.failures.n:
            continue
        rate, base = one.lift.failures.value or 0.0, one.lift.successes.value or 0.0
        everywhere = (one.lift.failures.hits + one.lift.successes.hits) / (one.lift.failures.n + one.lift.successes.n)
        figure = f"{one.words}: {rate:.0%} of failures, {base:.0%} of successes"
        if (one.lift.low or 0.0) > 1.0 and rate > base:
            found.append(Advice(what, figure, _share(one) * (rate - base)))
        elif name == "gold_truncated" and everywhere > MOSTLY:
            total = one.lift.failures.n + one.lift.successes.n
            figure = f"{one.words}: {everywhere:.0%} of all {total} queries, so no rate says what it costs"
            found.append(Advice(what, figure, _share(one) * everywhere))
    return [one for one in found if one.weight >= LEAST_SHARE][:1]


def _share(one: KindCount) -> float:
    """Failures as a share of the queries."""
    return one.lift.failures.n / max(one.lift.failures.n + one.lift.successes.n, 1)


def _of_probes(figures: Sequence[Mapping[str, Any]]) -> list[Advice]:
    """What mends each probe that is clearly worse than BM25; a setting comes before anything else."""
    found: dict[str, Advice] = {}
    for one in figures:
        if one["clear"]:
            of_setting = one["mend"] == "setting"
            weight = SETTING + one["worse"] if of_setting else OF_DATA * min(one["worse"], 1.0)
            found.setdefault(one["probe"], Advice(MENDS[one["probe"]], one["sentence"], weight))
    return list(found.values())


def _of_figures(figures: Sequence[Figure]) -> list[Advice]:
    named = {one.name: one for one in figures}
    found: list[Advice] = []
    whole, centered = named.get("binary"), named.get("centered binary")
    int8 = named.get("int8")
    if int8 is not None and int8.low is not None and int8.low > -FREE:
        found.append(Advice("store int8 vectors", f"nDCG@10 {int8.value:+.4f} (from {int8.low:+.4f})", LEAST_SHARE / 2))
    if whole is not None and centered is not None and centered.value - whole.value > GAINS:
        gain = f"nDCG@10 {centered.value:+.3f} for {whole.value:+.3f}"
        found.append(Advice("subtract the documents' mean before taking signs", gain, centered.value - whole.value))
    for name, first in named.items():
        turned = named.get(name.replace("first", "PCA"))
        if name.startswith("first ") and turned is not None and turned.value - first.value > GAINS:
            size = name.removeprefix("first ")
            gain = f"nDCG@10 {turned.value:+.3f} for {first.value:+.3f} at {size} dimensions"
            found.append(
                Advice("turn vectors to their main axes before cutting them", gain, turned.value - first.value)
            )
            break
    return found
