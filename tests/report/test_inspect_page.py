"""The page about an inspection: it loads nothing, has no script, and hostile texts stay texts."""

from pathlib import Path
from typing import Any

import pytest
from hostile_page import HOSTILE, Page
from planted_suite import PlantedModel, planted_suite

from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.files import write_json
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject, Wanted
from gemma4vec.inspection.inspection_files import CLUSTERS, LAYERS, MAP_POINTS, load_extra, load_inspection, load_points
from gemma4vec.report.inspect_page import write_inspect_page
from gemma4vec.text.prompts import Document


def test_everything_is_on_the_page_and_hostile_texts_are_texts(tmp_path: Path) -> None:
    suite = planted_suite(140)
    suite.queries = [f"{query} {HOSTILE}" if "7" in query else query for query in suite.queries]
    suite.corpus = [Document(f"{text} {HOSTILE}") for text, _ in suite.corpus]
    model = PlantedModel()
    model.name = HOSTILE.replace("\x00", "").replace("/", "")[:40]
    inspect(Subject(model, "planted"), suite, tmp_path / "out", against=Subject(Bm25Model(), "bm25"))
    about, slices = load_inspection(tmp_path / "out")
    page = Page(write_inspect_page(tmp_path / "page.html", tmp_path / "out", suite).read_text())
    assert not {"script", "img", "b>"} & set(page.tags) - {"b"} and "src" not in dict(page.attributes)
    assert "\x1b" not in page.text and "\u202e" not in page.text and "{{ 7 * 7 }}" in page.text
    assert all(one["rule"] in page.text for one in slices)
    assert all(one["name"] in page.text for one in [*about["kinds"], *about["figures"]])
    assert f"{about['figures'][0]['value']:.3f}" in page.text
    assert "Slices, paired" in page.text and "Slices, absolute" in page.text
    assert page.tags.count("details") >= 5 and "svg" not in page.tags and "Layers" not in page.text


def layer(number: int, gap: float, p: float | None) -> dict[str, Any]:
    limits = {"minus_last": gap, "low": gap - 0.01, "high": gap + 0.02}
    return {"layer": number, "ndcg@10": 0.4 + gap, **limits, "p_holm": p, "effective_rank": 7.6, "cka_with_last": 0.51}


def test_layers_topics_and_the_map_have_a_chart_and_its_table(tmp_path: Path) -> None:
    suite = planted_suite(140)
    words = [
        "harbor sail",
        "anchor mast",
        "flour yeast",
        "oven crust",
        "comet moon",
        "orbit star",
        "wing nest",
        "egg beak",
    ]
    about = [f"{words[at % 8]} {words[at % 8 ^ 1].split()[at // 8 % 2]}" for at in range(140)]
    suite.corpus = [Document(f"{one.text} {HOSTILE} {of}") for one, of in zip(suite.corpus, about, strict=True)]
    suite.queries = [f"{query} {of}" for query, of in zip(suite.queries, about, strict=True)]
    model = PlantedModel()
    inspect(
        Subject(model, "planted"),
        suite,
        tmp_path / "out",
        against=Subject(Bm25Model(), "bm25"),
        wanted=Wanted(map=True),
    )
    layers = [layer(0, -0.123, 0.04), layer(1, 0.077, 0.0001), layer(2, 0.0, None)]
    best = {"best": 1, "best_score": 0.477, "best_held_out": 0.444, "queries": 66, "documents": 140}
    write_json(tmp_path / "out" / LAYERS, {"layers": layers, **best, "pooling": "mean", "note": HOSTILE})
    topics = load_extra(tmp_path / "out", CLUSTERS)
    assert topics["tested"] == 4
    text = write_inspect_page(tmp_path / "page.html", tmp_path / "out", suite).read_text()
    page = Page(text)
    assert not {"script", "img"} & set(page.tags) and page.tags.count("svg") == 6  # three charts in two widths
    for shown in ("-0.123", "+0.077", "0.477", "0.444 on the other half"):
        assert shown in page.text
    for one in topics["clusters"]:
        assert one["rule"] in page.text and f"{one['gap']:+.3f}" in page.text
    points = load_points(tmp_path / "out")
    assert points is not None
    header, columns = points
    assert f"it keeps {header['kept_neighbors']:.0%} of the 10 nearest" in page.text
    groups = header["groups"]
    assert sum(one["points"] for one in groups) == 280 and sum(one["open"] for one in groups) == 70
    failing = int((columns["failed"] == 1).sum())
    assert sum(one["failed"] for one in groups) == failing > 0
    assert text.count('class="mark other"') == 2 * failing  # one diamond each, in two widths
    (documents,) = [one for one in groups if one["group"] == "documents"]
    assert documents["x"] == pytest.approx(columns["x"][columns["kind"] == 0].mean(), abs=1e-5)
    (tmp_path / "out" / MAP_POINTS).write_bytes(b"no map")
    with pytest.raises(InputError, match=r"map.bin is damaged; inspect again"):
        load_points(tmp_path / "out")
