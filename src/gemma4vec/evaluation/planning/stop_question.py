"""The stop rule asked of results: is this model, at its best, still too little above the reference?"""

from collections.abc import Sequence
from dataclasses import dataclass

from gemma4vec.errors import WorkError
from gemma4vec.evaluation.planning.power_forecast import forecast_power
from gemma4vec.evaluation.results.result import Result
from gemma4vec.recipe.stop_rule import StopRule
from gemma4vec.statistics.power import forecast_detectable
from gemma4vec.statistics.stopping import StopDecision, should_stop

BM25 = "bm25"
# nDCG@10 of a trained model less BM25's, query by query: .15 to .35 on five suites (docs/concepts/statistics.md).
BM25_SD = 0.3


def judge(
    ours: Sequence[Result],
    reference: Sequence[Result],
    metric: str,
    least_useful: float,
    *,
    looks: int = 1,
    confidence: float = 0.95,
) -> StopDecision:
    """Ask the rule about the paired differences of two models, stratified by suite and task.

    Args:
        ours, reference: results on the same suites, in one order.
        metric: what is compared.
        least_useful: smallest difference worth having, negative where some loss is fine; set before the run.
        looks: how often the question was planned to be asked.
        confidence: of all looks together.

    Raises:
        WorkError: the two were measured on different queries.
    """
    differences: list[float] = []
    strata: list[str] = []
    for one, other in zip(ours, reference, strict=True):
        keys, values_N = one.values(metric)
        keys_other, others_N = other.values(metric)
        if keys != keys_other:
            raise WorkError(
                f"{one.suite}: the model and its reference were measured on different queries; evaluate again"
            )
        differences += (values_N - others_N).tolist()
        strata += [f"{one.suite}/{task}" for task, _ in keys]
    return should_stop(differences, least_useful, strata, looks=looks, confidence=confidence)


@dataclass(frozen=True)
class StopRuleForecast:
    """What a stop rule will be able to see, said before training.

    Attributes:
        detectable: smallest difference that a single look finds four times out of five, at the confidence that the
            number of looks leaves to each.
        stopped_below: a model that truly lies here, or lower, is stopped at a look four times out of five.
        basis: where the spread of per-query differences that this supposes comes from.
    """

    rule: StopRule
    detectable: float
    stopped_below: float
    suite: str
    queries: int
    basis: str

    def sentence(self) -> str:
        """The rule and its power, for a person."""
        rule, looks = self.rule, len(self.rule.grid)
        places = ", ".join(f"{place:g}" for place in rule.grid)
        when = f"{places} of the budget" if rule.at_shares else f"step{'s' if looks > 1 else ''} {places}"
        against = rule.reference + (" at the same place" if rule.reference_at == "same_place" else "")
        each = f", {1 - (1 - rule.confidence) / looks:.2%} each" if looks > 1 else ""
        blind = self.stopped_below < 0.0 <= rule.smallest_effect  # it cannot tell "no better at all" from "useful"
        small = ", more than the effect asked for: a model that equals the reference will mostly not be stopped"
        return (
            f"stop rule: {rule.metric} on {self.suite}, {self.queries:,} queries, against {against}, smallest useful "
            f"effect {rule.smallest_effect:+g}, {looks} look{'s' if looks > 1 else ''} at {when} "
            f"({rule.confidence:.0%} confidence{each}). Smallest detectable effect at a look: {self.detectable:.3f}"
            f"{small if blind else ''}. A model that is truly {self.stopped_below:+.3f} from the reference is stopped "
            f"there four times out of five ({self.basis})"
        )


def forecast_stop_rule(rule: StopRule, suite: str, contents: str, queries: int) -> StopRuleForecast:
    """Forecast a stop rule's power on a suite; the spread of differences is that of `forecast_power`, or BM25's."""
    seen = forecast_power(suite, contents, queries, rule.metric)
    sd, basis = seen.sd, seen.basis
    if rule.reference == BM25:
        sd, basis = BM25_SD, f"if queries differ as they usually do between a model and BM25, by {BM25_SD}"
    detectable = forecast_detectable(sd, queries, family=len(rule.grid), alpha=1.0 - rule.confidence)
    return StopRuleForecast(rule, detectable, rule.smallest_effect - detectable, suite, queries, basis)
