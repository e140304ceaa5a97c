"""Advice: the figure behind it, its order, and nothing where nothing tells."""

from dataclasses import replace

from gemma4vec.inspection.advice import advise
from gemma4vec.inspection.geometry.figures import Figure
from gemma4vec.inspection.kinds import KINDS, KindCount
from gemma4vec.inspection.slices import Slice
from gemma4vec.statistics.slices.lift import lift

SLICE = Slice("ab12", "digits is yes", "", "paired", 30, 31, -0.2, 0.0, -0.2, 0.001, 0.004, 40, 0.1)


def kind(name: str, failures: tuple[int, int], successes: tuple[int, int]) -> KindCount:
    return KindCount(name, KINDS[name], lift(*failures, *successes), name == "near_miss")


def figure(name: str, value: float, low: float) -> Figure:
    return Figure(name, "", value, low, 0.0, 0.0, "", 50, "")


def test_a_clear_slice_is_first_and_a_spent_or_weak_one_is_not_named() -> None:
    assert "confirm ab12" in advise([SLICE], [], [], None)[0].what
    assert advise([replace(SLICE, p_max_t=0.2)], [], [], None) == []
    absolute = replace(SLICE, view="absolute", id="cd34")
    assert advise([replace(SLICE, p_max_t=0.2), absolute], [], [], "bm25") == []  # hard for every model
    assert "confirm cd34" in advise([absolute], [], [], None)[0].what
    assert advise([replace(SLICE, status="refuted")], [], [], None) == []


def test_a_kind_needs_a_ratio_above_one() -> None:
    hubs = kind("hub_on_top", (30, 60), (10, 60))
    assert advise([], [hubs], [], None)[0].figure.endswith("50% of failures, 17% of successes")
    assert advise([], [kind("hub_on_top", (12, 60), (10, 60))], [], None) == []


def test_the_weightiest_come_first() -> None:
    kinds = [kind("near_miss", (20, 60), (0, 60)), kind("other_misses", (6, 60), (3, 60))]
    found = advise([], kinds, [], "bm25")
    assert [one.what for one in found] == ["join the ranking with bm25's", "rerank the first 30"]
    assert "90% of failures" in found[0].figure and found[0].weight > found[1].weight


def test_truncation_is_named_where_the_evidence_is_cut_and_where_nearly_everything_is() -> None:
    cut = advise(
        [], [kind("evidence_cut", (30, 60), (6, 60)), kind("gold_truncated", (40, 60), (35, 60))], [], None, 256
    )
    assert [one.what for one in cut] == ["let the model read more than 256 tokens, or split long documents"]
    assert "shares most words" in cut[0].figure
    everywhere = advise([], [kind("gold_truncated", (60, 60), (60, 60))], [], None, 32)
    assert "100% of all 120 queries, so no rate says what it costs" in everywhere[0].figure
    assert advise([], [kind("gold_truncated", (10, 60), (12, 60))], [], None, 256) == []


def test_codes_and_axes() -> None:
    figures = [
        figure("int8", -0.0003, -0.002),
        figure("binary", -0.06, -0.08),
        figure("centered binary", -0.02, -0.04),
        figure("first 96 of 384", -0.08, -0.1),
        figure("PCA 96 of 384", -0.01, -0.03),
    ]
    found = [one.what for one in advise([], [], figures, None)]
    assert found[0].startswith("turn vectors to their main axes") and "store int8 vectors" in found
    assert advise([], [], [figure("int8", -0.02, -0.03)], None) == []
