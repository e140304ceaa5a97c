"""The headline of a comparison: the better side first; and whether the suites put two recipes in opposite orders."""

from collections.abc import Mapping, Sequence

from gemma4vec.evaluation.comparison.paired import Comparison
from gemma4vec.report.content.comparison_data import RunComparison, SuiteSection

DECIDED = ("better", "worse")


def format_comparison_headline(found: RunComparison, names: Mapping[str, str]) -> str:
    """Summarize the comparisons on the first suite in one or two sentences.

    Where another suite decides between two recipes the other way, its sentences follow: who reads the first line alone
    must not take the winner of one suite for the better model.

    Args:
        names: label of a recipe -> how the page calls it.
    """
    if not found.suites:
        return "No trained model of these runs has been evaluated yet, so nothing can be said about which is better."
    first = found.groups[0].label
    said = _on_suite(found.suites[0], first, names)
    against = _decided_otherwise(found.suites, first) if len(found.groups) == 2 else None
    if against is None:
        return said
    return f"Neither is better on every suite. {said} {_on_suite(against, first, names)}"


def order_sentences(found: RunComparison, names: Mapping[str, str]) -> list[str]:
    """Say of each recipe whether the suites put it and the first one in opposite orders; a sentence each.

    The order is that of the means; where the difference is no more than noise, the sentence says so.
    """
    first = found.groups[0].label
    sentences = []
    for other in (group.label for group in found.groups[1:]):
        ahead: dict[str, list[str]] = {other: [], first: []}
        for section in found.suites:
            for a, one in _against(section, first):
                if a == other and (gain := _gain(one)):
                    ahead[a if gain > 0 else first].append(_lead(section, one))
        if all(ahead.values()):
            sides = " and ".join(
                f"{names[label]} is ahead on {', '.join(leads)}" for label, leads in reversed(ahead.items())
            )
            sentences.append(f"The suites disagree: {sides}. Decide by the suite that is most like your use.")
    return sentences


def _on_suite(section: SuiteSection, first: str, names: Mapping[str, str]) -> str:
    """The comparisons on one suite."""
    own = _against(section, first)
    decided = [_decided(a, first, one, names) for a, one in own if one.verdict.word in DECIDED]
    undecided = [(a, one) for a, one in own if one.verdict.word == "undetermined"]
    same = [names[a] for a, one in own if one.verdict.word == "equivalent"]
    sentences = [f"On {section.name}: {'; '.join(decided)}." if decided else ""]
    if undecided:
        start = "Undetermined" if decided else f"On {section.name}: undetermined"
        sentences.append(f"{start} whether {_undecided(undecided, first, names)}.")
    sentences += [f"Equivalent to {names[first]}: {', '.join(same)}."] if same else []
    return " ".join(sentence for sentence in sentences if sentence) or f"Nothing was compared on {section.name}."


def _decided_otherwise(suites: Sequence[SuiteSection], first: str) -> SuiteSection | None:
    """The first suite that decides for the other of two recipes than the first suite does."""
    words = [next((one.verdict.word for _, one in _against(section, first)), "") for section in suites]
    opposite = {"better": "worse", "worse": "better"}.get(words[0])
    return next((section for section, word in zip(suites, words, strict=True) if word == opposite), None)


def _against(section: SuiteSection, first: str) -> list[tuple[str, Comparison]]:
    """The comparisons with the first recipe, by the other's label."""
    return [(a, one) for a, b, one in section.comparisons if b == first]


def _gain(one: Comparison) -> float:
    """By how much the first side of a comparison is ahead."""
    return -one.difference if one.lower_is_better else one.difference


def _decided(a: str, b: str, one: Comparison, names: Mapping[str, str]) -> str:
    better, worse = (a, b) if one.verdict.word == "better" else (b, a)
    turned = one.difference < 0
    low, high = (-one.interval.high, -one.interval.low) if turned else (one.interval.low, one.interval.high)
    among = f", {one.touched.among()}" if one.touched else ""
    return (
        f"{names[better]} is better than {names[worse]} by {abs(one.difference):.3f} "
        f"(95% interval {low:.3f} to {high:.3f}{among}{one.scope.clause() if one.scope else ''})"
    )


def _undecided(found: Sequence[tuple[str, Comparison]], first: str, names: Mapping[str, str]) -> str:
    if len(found) > 1:
        return f"{names[first]} or another is better: {', '.join(names[a] for a, _ in found)}"
    ((a, one),) = found
    gain = _gain(one)
    leader = f"{names[a] if gain > 0 else names[first]} is ahead by {abs(gain):.3f}" if gain else "they are level"
    return (
        f"{names[first]} or {names[a]} is better ({leader}; differences from {one.smallest_detectable:.3f} would show)"
    )


def _lead(section: SuiteSection, one: Comparison) -> str:
    """A suite with its role, and by how much one side is ahead there."""
    role = (section.rows[0].result.settings.get("suite") or {}).get("role")
    unsure = "" if one.verdict.word in DECIDED else f", {one.verdict.word}"
    return f"{section.name} ({f'{role}, ' if role else ''}by {abs(one.difference):.3f}{unsure})"
