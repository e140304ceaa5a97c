"""The page about a plan: every measured value is on it, it loads nothing, and hostile texts stay texts."""

import re
from typing import Any

from hostile_page import HOSTILE, Page

from gemma4vec.pipeline.plan.write_plan import as_markdown
from gemma4vec.report.charts.lineage import Node, draw_lineage
from gemma4vec.report.plan_page import headline, render_plan


def part(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "queries": 9}


def step(key: str, parents: list[str], dev: float | None, **fields: Any) -> dict[str, Any]:
    by_suite = {} if dev is None else {"tune": part(dev)}
    known = {"key": key, "step": key.split("/")[0], "kind": "train", "what": "trained by pairs", "parents": parents}
    known |= {"mixture": None, "kept": None, "status": "done" if dev else "not run", "reason": "", "marks": []}
    known |= {"training_minutes": 2.5, "minutes": 3.0, "run": None, "model": None, "gigabytes": 0.25}
    return known | {"by_suite": by_suite, "dev": None if dev is None else part(dev), "final": None} | fields


def difference(key: str, words: str, mean: float, verdict: str) -> dict[str, Any]:
    found = {"key": key, "against": [words], "words": words, "role": "dev", "name": f"{key} minus {words}"}
    found |= {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n": 9, "p": 0.02, "p_holm": 0.041}
    return found | {"comparisons": 7, "detectable": 0.033, "verdict": verdict, "reason": "why", "touched_queries": 0}


def results(name: str = "tiny") -> dict[str, Any]:
    steps = [
        step("first", [], 0.512, mixture={name: 0.75}),
        step("mixed/a", ["first"], 0.534, marks=[f"mixed/a, tune: {name}."]),
        step("mixed/b", ["first"], 0.545, kept=False),
        step("soup", ["mixed/a", "mixed/b"], None),
    ]
    return {
        "plan": name,
        "hypothesis": name,
        "folder": "/plans/tiny",
        "metric": "ndcg@10",
        "budget": 90.0,
        "minutes": 41.7,
        "suites": [{"name": "tune", "role": "dev", "queries": 9, "documents": 1234}],
        "steps": steps,
        "references": [
            {"key": "bm25", "dev": part(0.487), "final": None, "by_suite": {"tune": part(0.487)}, "marks": []}
        ],
        "differences": [
            difference("first", "untrained", 0.123, "better"),
            difference("mixed/a", "first", 0.022, "undetermined"),
        ],
        "lengths": [{"key": "first", "what": name, "lengths": {"32": part(0.512), "16": part(0.466)}}],
        "notes": [f"note {name}"],
        "choices": [f"choice {name}"],
        "environment": {"machine": {"cpu": "A CPU", "cores": 2}},
    }


def test_every_value_is_on_the_page_and_in_the_markdown() -> None:
    for text in (render_plan(results()), as_markdown(results())):
        for value in (
            "0.512",
            "0.487",
            "0.466",
            "+0.022",
            "undetermined",
            "mixed/b",
            "note tiny",
            "choice tiny",
            "mixed/a, tune: tiny.",
            "41.7"[:2],
        ):
            assert value in text, value
    page = render_plan(results())
    assert "0.041" in page and "detects from 0.033" in page and "7 comparisons" in page and "tiny 0.75" in page
    assert "not kept" in page and "not run" in page and "1,234" in page
    assert headline(results()) == (
        "On the dev suites, first minus untrained: better (+0.123); mixed/a minus first: undetermined (+0.022)."
    )
    nothing = results() | {"differences": [], "lengths": []}
    assert headline(nothing).startswith("No two models") and "Vector lengths" not in render_plan(nothing)


def test_the_page_loads_nothing_and_hostile_texts_stay_texts() -> None:
    page = render_plan(results(HOSTILE))
    parsed = Page(page)
    assert "script" not in parsed.tags and "b" in parsed.tags and "img" not in parsed.tags
    assert not re.search(r'(?:src|href)="(?!data:|#)', page) and "\x1b" not in page and "\x00" not in page
    assert "{{ 7 * 7 }}" in "".join(parsed.texts)


def test_a_model_is_drawn_right_of_all_that_it_was_made_from() -> None:
    nodes = [Node("a", ()), Node("b", ("a",), 0.5), Node("c", ("a", "b"), dropped=True), Node("d", ("gone",))]
    picture = str(draw_lineage(nodes, 300.0, dict.fromkeys("abcd", "one")))
    x = [float(at) for at in re.findall(r'<circle[^>]* cx="([\d.]+)"', picture)]
    assert x == [7.0, 25.0, 7.0]  # the dropped one is a diamond
    assert "a from the base; b from a; c from a, b; d from gone" in picture and "c (not kept)" in picture
    assert draw_lineage([], 300.0, {}) is None
