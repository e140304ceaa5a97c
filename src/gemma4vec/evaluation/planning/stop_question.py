"""The stop rule: the question about the results of a model and its reference, and its power before training.

The boundary is `statistics.stopping.should_stop`; who may ask, when, and with which results is up to the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from gemma4vec.errors import WorkError
from gemma4vec.evaluation.planning.power_forecast import forecast_power
from gemma4vec.evaluation.results.result import Result
from gemma4vec.recipe.stop_rule import StopRule
from gemma4vec.statistics.power import forecast_detectable
from gemma4vec.statistics.stopping import StopDecision, should_stop

BM25 = "bm25"
# Standard deviation over queries of (a trained model - BM25) in nDCG@10: .15 to .35 on five suites
# (docs/concepts/statistics.md).
BM25_SD = 0.3


@dataclass(frozen=True)
class StopAnswer:
    """The answer at one look.

    Attributes:
        question: what was asked.
        decision: whether to stop, with the interval of the mean difference.
        score, reference: means over the suites of the two models' metric.
    """

    question: "StopQuestion"
    decision: StopDecision
    score: float
    reference: float

    @property
    def stop(self) -> bool:
        """Whether the training should end here."""
        return self.decision.stop

    def reason(self, place: str, reference: str) -> str:
        """The decision in one sentence, for the run, the ledger and a person.

        Args:
            place: suite and step of the look, such as "scifact at step 40".
            reference: what the model is compared with.
        """
        difference = self.decision.interval.mean
        return f"{self.question.metric} on {place} is {difference:+.4f} from {reference}: {self.decision.reason}"

    def fields(self) -> dict[str, Any]:
        """The numbers as JSON values, for an event of the run."""
        interval = self.decision.interval
        return {
            "metric": self.question.metric,
            "score": self.score,
            "reference": self.reference,
            "difference": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "confidence": interval.confidence,
            "smallest_effect": self.question.least_useful,
        }


@dataclass(frozen=True)
class StopQuestion:
    """The one question of every stop rule: is this model, at its best, still too little above the reference?

    A stage's rule and a matrix both ask it here. The caller only supplies results.

    Attributes:
        metric: what is compared.
        least_useful: smallest difference worth having, in the metric's unit; negative where some loss is acceptable.
            Fixed before the training.
        looks: planned number of looks.
        confidence: of all looks together.
    """

    metric: str
    least_useful: float
    looks: int = 1
    confidence: float = 0.95

    @classmethod
    def of_rule(cls, rule: StopRule) -> "StopQuestion":
        """The question that a recipe's stop rule asks at each look."""
        return cls(rule.metric, rule.smallest_effect, len(rule.grid), rule.confidence)

    def answer(self, results: Sequence[Result], reference: Sequence[Result]) -> StopAnswer:
        """Decide from the paired differences per query, stratified by suite and task.

        Args:
            results, reference: results of the model and of the reference, on the same suites in the same order.

        Raises:
            WorkError: the two were measured on different queries.
        """
        differences: list[float] = []
        strata: list[str] = []
        for one, other in zip(results, reference, strict=True):
            keys, values_N = one.values(self.metric)
            keys_other, others_N = other.values(self.metric)
            if keys != keys_other:
                raise WorkError(
                    f"{one.suite}: the model and its reference were measured on different queries; evaluate again"
                )
            differences += (values_N - others_N).tolist()
            strata += [f"{one.suite}/{task}" for task, _ in keys]
        decision = should_stop(differences, self.least_useful, strata, looks=self.looks, confidence=self.confidence)
        return StopAnswer(self, decision, self._mean(results), self._mean(reference))

    def _mean(self, results: Sequence[Result]) -> float:
        return fmean(one.mean[self.metric] for one in results)


@dataclass(frozen=True)
class StopRuleForecast:
    """Power of a stop rule, shown before training.

    Attributes:
        detectable: smallest difference that a single look finds with 80% probability, at the confidence that remains
            for each look.
        stopped_below: a model whose true difference is this, or lower, is stopped at a look with 80% probability.
        basis: source of the assumed spread of per-query differences.
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
        blind = (
            self.stopped_below < 0.0 <= rule.smallest_effect
        )  # it cannot distinguish "no better at all" from "useful"
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
