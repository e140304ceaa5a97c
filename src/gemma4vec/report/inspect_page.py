"""The page about an inspection: slices, kinds of failure, figures with baselines, examples of the open half."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.inspection_files import (
    CLUSTERS,
    LAYERS,
    PROBES,
    load_columns,
    load_extra,
    load_inspection,
    load_points,
)
from gemma4vec.inspection.predicates import parse_predicate
from gemma4vec.inspection.sealed import DISCOVERY
from gemma4vec.inspection.topics.map import DISCOVERY_QUERY, DOCUMENT, SEALED_QUERY
from gemma4vec.ledger.suite_halves import shown_queries
from gemma4vec.report.charts.inspection_charts import draw_layers, draw_topics
from gemma4vec.report.charts.map_chart import MapDots, draw_map
from gemma4vec.report.content.run_data import METRICS, shorten
from gemma4vec.report.templating import draw_chart, render_template, write_page

EXAMPLES = 5
DRAWN = 3_000  # points of the map, the first of its random order
QUERY_CHARACTERS, DOCUMENT_CHARACTERS = 300, 600


def write_inspect_page(out: Path, folder: Path, suite: RetrievalSuite) -> Path:
    """Write the page about the inspection in `folder`.

    Raises:
        InputError: the inspection is damaged. WorkError: the file cannot be written.
    """
    about, slices = load_inspection(folder)
    extras = {name: load_extra(folder, name) for name in (PROBES, LAYERS, CLUSTERS)}
    return write_page(out, render_inspection(about, slices, load_columns(folder), suite, extras, load_points(folder)))


def render_inspection(
    about: Mapping[str, Any],
    slices: Sequence[Mapping[str, Any]],
    columns: Mapping[str, list[Any]],
    suite: RetrievalSuite,
    extras: Mapping[str, Any] | None = None,
    points: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        extras: contents of `probes.json`, `layers.json` and `clusters.json` by name; None for what was not computed.
        points: header and columns of the map.
    """
    found = {name: (extras or {}).get(name) for name in (PROBES, LAYERS, CLUSTERS)}
    layers, topics = found[LAYERS], found[CLUSTERS]
    ids = columns["query_id"]
    texts = dict(zip(suite.query_ids, suite.queries, strict=True))
    shown_N = shown_queries(about["suite"]["fingerprint"], ids, [texts.get(key, "") for key in ids])
    shown = {row for row, half in enumerate(columns["half"]) if half == DISCOVERY and shown_N[row]}
    dots = _map_dots(points[1]) if points is not None else None
    return render_template(
        "inspect.html",
        {
            "about": about,
            "probes": found[PROBES],
            "layers": layers,
            "layer_chart": draw_chart(lambda width: draw_layers(layers["layers"], width)) if layers else None,
            "topics": topics,
            "topic_chart": draw_chart(lambda width: draw_topics(topics["clusters"], width)) if topics else None,
            "topic_words": {one["cluster"]: one["words"] for one in topics["clusters"]} if topics else {},
            "map": points[0] if points is not None else None,
            "groups": points[0].get("groups", []) if points is not None else [],
            "map_chart": draw_chart(lambda width: draw_map(dots, width)) if dots is not None else None,
            "drawn": dots.count if dots is not None else 0,
            "metric": METRICS.get(about["metric"], about["metric"]),
            "views": slice_views(about, slices),
            "examples": [(one, _examples(one, about["metric"], columns, suite, shown)) for one in slices[:EXAMPLES]],
            "withheld": sum(half == DISCOVERY for half in columns["half"]) - len(shown),
        },
    )


def _map_dots(columns: Mapping[str, Any]) -> MapDots:
    """The first points by what they are."""
    x, y, kind, failed = (columns[name][:DRAWN] for name in ("x", "y", "kind", "failed"))

    def places(mask: Any) -> list[tuple[float, float]]:
        return list(zip(x[mask].tolist(), y[mask].tolist(), strict=True))

    opened = kind == DISCOVERY_QUERY
    return MapDots(
        places(kind == DOCUMENT),
        places(opened & (failed == 0)),
        places(opened & (failed == 1)),
        places(kind == SEALED_QUERY),
    )


def slice_views(
    about: Mapping[str, Any], slices: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str, list[Mapping[str, Any]]]]:
    """(view, whose figures, its slices) of each view that has slices, paired first."""
    views = [
        (view, words, [one for one in slices if one["view"] == view])
        for view, words in (
            ("paired", f"{about['model']['name']} minus {about['against']['name'] if about['against'] else '-'}"),
            ("absolute", f"{about['model']['name']} alone"),
        )
    ]
    return [one for one in views if one[2]]


def _examples(
    one: Mapping[str, Any], metric: str, columns: Mapping[str, list[Any]], suite: RetrievalSuite, shown: Set[int]
) -> list[dict[str, Any]]:
    """The worst of a slice's queries that may be shown, with what they found and what was right."""
    mask = parse_predicate(one["rule"]).mask(columns)
    place = {key: index for index, key in enumerate(suite.corpus_ids)}
    rows = [row for row in shown if mask[row]]
    paired = one["view"] == "paired"

    def value(row: int) -> float:
        return float(columns[metric][row] - (columns["against"][row] if paired else 0.0))

    texts = dict(zip(suite.query_ids, suite.queries, strict=True))
    found = []
    for row in sorted(rows, key=lambda row: (value(row), columns["query_id"][row]))[:EXAMPLES]:
        key = columns["query_id"][row]
        judged = suite.qrels.get(key, {})
        known = [document for document, grade in judged.items() if grade >= 1 and document in place]
        right = sorted(known, key=lambda one: (-judged[one], one))
        first = columns["top1_doc"][row]
        found.append(
            {
                "id": key,
                "query": shorten(texts.get(key, ""), QUERY_CHARACTERS),
                "value": value(row),
                "rank": columns["gold_rank"][row],
                "kinds": columns["kinds"][row] or [],
                "right": _passage(suite, place, right[0]) if right else None,
                "first": _passage(suite, place, first) if first is not None and first not in right else None,
            }
        )
    return found


def _passage(suite: RetrievalSuite, place: Mapping[str, int], key: str) -> dict[str, str]:
    document = suite.corpus[place[key]]
    text = f"{document.title}. {document.text}" if document.title else document.text
    return {"id": key, "text": shorten(text, DOCUMENT_CHARACTERS)}
