"""What a page must say next to the verdicts: the seeds that they speak of, touched queries, cautions."""

from collections.abc import Sequence

from gemma4vec.evaluation.comparison.paired import Comparison


def list_comparison_notes(comparisons: Sequence[tuple[str, Comparison]], a: str) -> list[str]:
    """List the warnings of comparisons of `a` with others; a sentence of several comparisons comes once.

    Args:
        comparisons: (name of the other side, a minus that side).
        a: name of the first side.
    """
    others: dict[str, list[str]] = {}
    for other, comparison in comparisons:
        for sentence in comparison.warnings():
            others.setdefault(sentence, []).append(other)
    return [f"{a} minus {' and '.join(names)}: {sentence}." for sentence, names in others.items()]
