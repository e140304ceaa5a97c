"""`/inspect/KEY/geometry`: figures of the vectors beside their baselines, dimensions, bits, layers, topics, probes."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.errors import InputError
from gemma4vec.inspection.inspection_files import CLUSTERS, LAYERS, PROBES, load_extra
from gemma4vec.inspection.topics.map import MAP_POINTS
from gemma4vec.report.charts.inspection_charts import draw_layers, draw_rows, draw_topics
from gemma4vec.report.content.run_data import METRICS
from gemma4vec.report.templating import Chart, draw_chart
from gemma4vec.ui.content.stored_inspections import StoredInspection, named_about
from gemma4vec.ui.window import Window

CHANGE = "change of nDCG@10"  # how figures of cut vectors begin
KEPT = ": first ten kept"
# What each file must have, so that a page can show it.
_FIELDS: dict[str, tuple[str, dict[str, Any]]] = {
    LAYERS: ("layers", {"layer": int, "ndcg@10": float, "minus_last": float, "low": float, "high": float}),
    CLUSTERS: ("clusters", {"cluster": int, "words": str, "n": int, "n_sealed": int}),
    PROBES: ("figures", {"probe": str, "sentence": str, "n": int, "p_holm": float, "clear": bool}),
}


def geometry_page(window: Window, request: Request) -> Response:
    """The page. A damaged file leaves the rest.

    Raises:
        InputError: an unknown or damaged inspection.
    """
    found = window.inspections.find(request.path_params["key"])
    about, figures = named_about(found.about, window.runs.name_of), found.about["figures"]
    cut = [one for one in figures if one["words"].startswith(CHANGE) or one["name"].endswith(KEPT)]
    values: dict[str, Any] = {
        "title": f"Geometry of {about['model']['name']}",
        "found": found,
        "about": {**about, "figures": [one for one in figures if one not in cut]},
        "cut": cut,
        "cut_chart": _chart_of_changes([one for one in cut if not one["name"].endswith(KEPT)]),
        "has_map": (found.folder / MAP_POINTS).is_file(),
        "problems": [],
        "metric": METRICS.get(found.metric, found.metric),
    }
    for name, file in (("layers", LAYERS), ("clusters", CLUSTERS), ("probes", PROBES)):
        try:
            values[name] = _extra(found, file)
        except InputError as error:
            values[name] = None
            values["problems"].append(str(error))
    layers, clusters = values["layers"], values["clusters"]
    values["layer_chart"] = None if layers is None else draw_chart(lambda width: draw_layers(layers["layers"], width))
    values["topic_chart"] = (
        None if clusters is None else draw_chart(lambda width: draw_topics(clusters["clusters"], width))
    )
    return window.page(request, "geometry.html", values)


def _extra(found: StoredInspection, file: str) -> Any:
    """A file that not every inspection has, with the fields that are shown.

    Raises:
        InputError: damaged.
    """
    stored = load_extra(found.folder, file)
    if stored is None:
        return None
    listed, fields = _FIELDS[file]
    rows = stored.get(listed) if isinstance(stored, dict) else None
    sound = isinstance(rows, list) and all(
        isinstance(one, dict) and all(isinstance(one.get(name), kind) for name, kind in fields.items()) for one in rows
    )
    if not sound:
        raise InputError(f"{found.folder / file} is damaged (fields are missing); inspect again")
    return stored


def _chart_of_changes(figures: Sequence[Mapping[str, Any]]) -> Chart | None:
    rows = [
        (one["name"], one["value"], one["low"], one["high"], one["baseline"])
        for one in figures
        if one["value"] is not None
    ]
    return draw_chart(lambda width: draw_rows(rows, "What fewer dimensions and bits cost", CHANGE, width))
