"""One honest sentence about a run: what was found, how sure it is, and on how many queries."""

from gemma4vec.evaluation.comparison.paired import Comparison
from gemma4vec.report.content.run_data import METRICS, PRIMARY, RunData, SuiteResults, primary_of


def headline(run: RunData) -> str:
    """The verdict on the run, in at most two sentences."""
    suite = main_suite(run)
    if suite is None or "trained" not in suite.results:
        return "This run has no evaluated trained model yet, so nothing can be said about how good it is."
    against_bm25, against_base = suite.comparisons.get("bm25"), suite.comparisons.get("untrained")
    if against_bm25 is not None:
        said = _against(against_bm25, "BM25")
        if against_base is not None:
            said += f" {_training(against_base)}"
        return said
    if against_base is not None:
        return _against(against_base, "its untrained base")
    score = suite.results["trained"].interval(primary_of(suite.results["trained"]))
    name = METRICS.get(primary_of(suite.results["trained"]), primary_of(suite.results["trained"]))
    return (
        f"The trained model has {name} {score.mean:.3f} (95% interval {score.low:.3f} to {score.high:.3f}) on "
        f"{suite.name}; nothing was evaluated to compare it with."
    )


def p_text(p: float) -> str:
    """A p-value for readers: `= 0.012`, `< 0.001`. The test's 10,000 flips cannot tell smaller ones apart."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def main_suite(run: RunData) -> SuiteResults | None:
    """The suite that the page is about: the one with the most comparisons, a test before a dev suite."""
    return max(run.suites, key=_weight, default=None)


def _weight(suite: SuiteResults) -> tuple[bool, int, bool]:
    """Retrieval before other kinds, more comparisons before fewer, a test before a dev suite."""
    retrieval = all(PRIMARY in result.metrics for result in suite.results.values())
    return retrieval, len(suite.comparisons), "dev" not in suite.name


def _against(comparison: Comparison, other: str) -> str:
    scores = (
        f"{METRICS.get(comparison.metric, comparison.metric)} {comparison.mean_a:.3f} against {comparison.mean_b:.3f}"
    )
    span = comparison.interval
    sure = (
        f"{span.mean:+.3f}, 95% interval {span.low:+.3f} to {span.high:+.3f}, "
        f"p {p_text(comparison.verdict.p)}{_corrected(comparison)}, "
        f"{comparison.test.n:,} queries of {comparison.suite}"
    )
    word = comparison.verdict.word
    if word == "better":
        return f"The trained model is better than {other}: {scores} ({sure})."
    if word == "worse":
        return f"The trained model is worse than {other}: {scores} ({sure})."
    if word == "equivalent":
        return f"The trained model and {other} are equivalent: {scores} ({sure}); {comparison.verdict.reason}."
    return (
        f"Undetermined whether the trained model or {other} is better: {scores} ({sure}); so many queries show a "
        f"difference of about {comparison.smallest_detectable:.3f} or more."
    )


def _corrected(comparison: Comparison) -> str:
    """What p was corrected for."""
    return f" corrected for {comparison.verdict.family} comparisons" if comparison.verdict.family > 1 else ""


def _training(comparison: Comparison) -> str:
    move = f"from {comparison.mean_b:.3f} to {comparison.mean_a:.3f} (p {p_text(comparison.verdict.p)})"
    if comparison.verdict.word == "better":
        return f"Training lifted it {move}."
    if comparison.verdict.word == "worse":
        return f"Training made it worse, {move}."
    return f"Whether training changed it is undetermined: {move}."
