"""The headline of a run: the verdict, its uncertainty and the number of queries."""

from gemma4vec.evaluation.comparison.paired import Comparison
from gemma4vec.report.content.p_value import format_p_value
from gemma4vec.report.content.run_data import METRICS, MODELS, PRIMARY, RunData, SuiteResults, label, primary_metric


def format_headline(run: RunData) -> str:
    """Format the verdict on the run: beside BM25, beside a public model where one was evaluated, beside the base."""
    suite = select_main_suite(run)
    if suite is None or "trained" not in suite.results:
        return "The trained model of this run has not been evaluated yet, so nothing can be said about its quality."
    against_bm25, against_base = suite.comparisons.get("bm25"), suite.comparisons.get("untrained")
    if against_bm25 is not None:
        sentence = _compare_sentence(against_bm25, "BM25")
        if (against_public := suite.comparisons.get("public")) is not None:
            sentence += f" {_compare_sentence(against_public, MODELS['public'])}"
        if against_base is not None:
            sentence += f" {_training_sentence(against_base)}"
        return sentence
    if against_base is not None:
        return _compare_sentence(against_base, "its untrained base")
    metric = primary_metric(suite.results["trained"])
    score, name = suite.results["trained"].interval(metric), METRICS.get(metric, metric)
    others = [
        f"{label(model)} has {result.mean[metric]:.3f}"
        for model, result in suite.results.items()
        if model != "trained" and metric in result.mean
    ]
    beside = (
        f"{', '.join(others)} there, not compared yet" if others else "no other model was evaluated to compare it with"
    )
    return (
        f"The trained model has {name} {score.mean:.3f} (95% interval {score.low:.3f} to {score.high:.3f}) on "
        f"{suite.name}; {beside}."
    )


def select_main_suite(run: RunData) -> SuiteResults | None:
    """Return the headline's suite: retrieval first, then the most comparisons, then test before dev."""
    return max(run.suites, key=_suite_priority, default=None)


def _suite_priority(suite: SuiteResults) -> tuple[bool, int, bool]:
    """Sort key: retrieval before other kinds, more comparisons before fewer, test before dev."""
    retrieval = all(PRIMARY in result.metrics for result in suite.results.values())
    return retrieval, len(suite.comparisons), "dev" not in suite.name


def _compare_sentence(comparison: Comparison, other: str) -> str:
    scores = (
        f"{METRICS.get(comparison.metric, comparison.metric)} {comparison.mean_a:.3f} against {comparison.mean_b:.3f}"
    )
    span = comparison.interval
    sure = (
        f"{span.mean:+.3f}, 95% interval {span.low:+.3f} to {span.high:+.3f}, "
        f"p {format_p_value(comparison.verdict.p)}{_correction_note(comparison)}, "
        f"{comparison.test.n:,} queries of {comparison.suite}{' that no training data touches' * _is_cut(comparison)}"
        f"{comparison.scope.clause() if comparison.scope else ''}"
    )
    if any("degenerate" in caution for caution in comparison.cautions):
        sure += "; one side's ranking is degenerate and means nothing"
    word = comparison.verdict.word
    if word == "better":
        return f"The trained model is better than {other}: {scores} ({sure})."
    if word == "worse":
        return f"The trained model is worse than {other}: {scores} ({sure})."
    if word == "equivalent":
        return f"The trained model and {other} are equivalent: {scores} ({sure}); {comparison.verdict.reason}."
    if comparison.touched and not comparison.touched.left:
        return (
            f"Undetermined whether the trained model or {other} is better: {scores}, but "
            f"{comparison.touched.sentence()}."
        )
    return (
        f"Undetermined whether the trained model or {other} is better: {scores} ({sure}); "
        f"this number of queries can show a difference of about {comparison.smallest_detectable:.3f} or more."
    )


def _is_cut(comparison: Comparison) -> bool:
    """Whether the figures are those of a part of the queries."""
    return comparison.touched is not None and comparison.touched.left > 0


def _correction_note(comparison: Comparison) -> str:
    """Name the number of comparisons that p is corrected for; empty for one."""
    return f" corrected for {comparison.verdict.family} comparisons" if comparison.verdict.family > 1 else ""


def _training_sentence(comparison: Comparison) -> str:
    move = f"from {comparison.mean_b:.3f} to {comparison.mean_a:.3f} (p {format_p_value(comparison.verdict.p)})"
    if comparison.verdict.word == "better":
        return f"Training improved it {move}."
    if comparison.verdict.word == "worse":
        return f"Training made it worse, {move}."
    return f"Whether training changed it is undetermined: {move}."
