"""Queries that training data touches are no evidence: a comparison leaves them out, on both sides and in all runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from gemma4vec.evaluation.results.result import Result
from gemma4vec.evaluation.results.task_scores import PAIRED, pair_values

Items = set[tuple[str, str]]
MIN_PAIRS = 3  # of a task whose score is one figure of all pairs


@dataclass(frozen=True)
class TouchedQueries:
    """What a comparison leaves out.

    Attributes:
        touched: number of queries that training data of either side touches.
        left: number of queries that the verdict rests on; 0 if none remains.
        mean_a, mean_b: means over all queries, in the metric's unit.
    """

    touched: int
    left: int
    mean_a: float
    mean_b: float

    def among(self) -> str:
        """Name the queries that the figures are of."""
        if not self.left:
            return "on queries that training data touches"
        return f"on the {self.left:,} queries that no training data touches"

    def sentence(self) -> str:
        """Say what was left out, and the figures with it."""
        if not self.left:
            return f"training data touches all {self.touched:,} queries: none is left to judge by"
        return (
            f"training data touches {self.touched:,} queries, which the comparison leaves out; with them: "
            f"{self.mean_a:.4f} against {self.mean_b:.4f}, difference {self.mean_a - self.mean_b:+.4f}"
        )


def leave_out(results: Sequence[Result], items: Items) -> list[Result] | None:
    """Return the results without these (task, query id); None if nothing is left to compare.

    A task whose score is a figure of all its pairs is left out too where its remaining pairs have no such figure:
    fewer than three, or all judged alike.
    """
    rest = [one.without(items) for one in results]
    if rest[0].kind in PAIRED:
        empty = {task for task, pairs in rest[0].per_query.items() if not _has_figure(rest[0], task)}
        gone = {(task, pair) for task in empty for pair in rest[0].per_query[task]}
        rest = [one.without(gone) for one in rest]
    return rest if rest[0].per_query else None


def _has_figure(result: Result, task: str) -> bool:
    _, gold_N = pair_values(result.per_query[task])
    return len(gold_N) >= MIN_PAIRS and len(set(gold_N.tolist())) > 1
