"""The page about leaks: every figure is on it, it loads nothing, and hostile names stay texts."""

import re
from typing import Any

from hostile_page import HOSTILE, Page

from gemma4vec.inversion.privacy import LOWER_BOUND
from gemma4vec.report.charts.leak_chart import draw_leak
from gemma4vec.report.privacy_page import render_privacy


def part(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}


def row(name: str, kind: str, leak: float, use: float) -> dict[str, Any]:
    found = {"name": name, "kind": kind, "cosine": 0.987, "naive": part(leak - 0.1), "adaptive": part(leak)}
    found |= {"leak_change": part(leak - 0.5), "shuffled": part(0.111), "use": part(use)}
    return found | {"use_change": part(use - 0.7), "penalty": 0.3}


def result(name: str = "tiny") -> dict[str, Any]:
    rows = [row("none (fp32)", "none", 0.512, 0.701), row("noise .01", "noise", 0.433, 0.689)]
    rows += [row("noise .05", "noise", 0.345, 0.423), row(name, "binary", 0.377, 0.654)]
    texts = {"learned": 20_000, "held_out": 1_000, "duplicates": 3, "sources": {name: 600, "b": 400}}
    nearest = {"f1": part(0.291), "exact": part(0.0), "bleu": part(0.123), "cosine": part(0.717)}
    return {
        "model": name,
        "suite": name,
        "as": "query",
        "metric": "ndcg@10",
        "texts": texts,
        "floors": {"nearest training text": nearest, "most frequent words": {"f1": part(0.215)}},
        "ceiling": {"f1": part(1.0), "bleu": part(1.0), "cosine": part(1.0)},
        "defenses": rows,
        "by_source": {name: part(0.466), "b": part(0.477)},
        "sentence": f"sentence {name}",
        "remark": LOWER_BOUND,
    }


def test_every_figure_and_the_caveat_are_on_the_page() -> None:
    page = render_privacy(result())
    for value in (
        *("0.512", "0.433", "0.345", "0.333", "0.689", "0.423", "-0.155", "-0.277", "0.111", "0.987"),
        *("0.291", "0.123", "0.717", "0.215", "0.466", "0.477", "1,000", "20,000", "600", "sentence tiny", "queries"),
    ):
        assert value in page, value
    assert LOWER_BOUND == "a lower bound: a stronger attacker recovers more" and LOWER_BOUND in page
    one = result() | {"by_source": {"tiny": part(0.466)}}
    assert "By source" not in render_privacy(one) and "By source" in page


def test_the_page_loads_nothing_and_hostile_names_stay_texts() -> None:
    page = render_privacy(result(HOSTILE))
    parsed = Page(page)
    assert "script" not in parsed.tags and "img" not in parsed.tags
    assert not re.search(r'(?:src|href)="(?!data:|#)', page) and "\x1b" not in page and "\x00" not in page
    assert "{{ 7 * 7 }}" in "".join(parsed.texts)


def test_the_curve_goes_from_undefended_to_the_strongest_defense() -> None:
    rows = result()["defenses"]
    picture = str(draw_leak(rows, {"floor": 0.2}, 600.0))
    marks = re.findall(r'class="mark (s\d)', picture)
    assert marks == ["s0", "s1", "s1", "s2"]
    (line,) = re.findall(r'<path class="line s1 dash1" d="M([^"]*)"', picture)
    x = [float(point.split()[0]) for point in line.split("L")]
    assert len(x) == 3 and x[0] > x[1] > x[2]  # nDCG@10 .701, .689, .423
    assert "floor 0.200" in picture and draw_leak([], {}, 600.0) is None
