"""`/walk`: the texts on the way from a query to a target, written by a decoder, and the walks that were kept."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.report.charts.vector_charts import draw_walk
from gemma4vec.report.templating import draw_chart
from gemma4vec.ui.content.decoder_work import find_listed, list_decoders
from gemma4vec.ui.content.kept_results import find_kept, list_kept
from gemma4vec.ui.content.search_worker import BusyError, find_sources, list_sources
from gemma4vec.ui.window import Window


def walk_page(window: Window, request: Request) -> Response:
    """The page; with `?q=` a walk, with `?kept=` one that was kept.

    Raises:
        InputError: an unknown index, decoder or kept walk.
    """
    wanted, runs = request.query_params, window.runs.all()
    sources = list_sources(runs)
    decoders = [one for one in list_decoders(runs) if one.role == "query"]
    values: dict[str, Any] = {"title": "Walk", "sources": sources, "decoders": decoders, "problem": "", "walk": None}
    values |= {"chosen": wanted.get("index", ""), "decoder": wanted.get("decoder", ""), "query": wanted.get("q", "")}
    values |= {"table": None, "chart": None, "to": wanted.get("to", "")}
    values["kept"], values["kept_count"] = list_kept(window.home, "walks")
    if key := wanted.get("kept"):
        found = find_kept(window.home, "walks", key)
        values["walk" if found["kind"] == "walk" else "table"] = found
        values["title"] = found["query"] if found["kind"] == "walk" else f"Fan-out on {found['suite']}"
    elif values["query"].strip():
        source = find_sources(sources, [values["chosen"]])[0]
        decoder = find_listed(decoders, values["decoder"], "a decoder of query vectors")
        try:
            values["walk"] = window.decoders.walk(source, decoder, values["query"], _row(values["to"]))
        except BusyError as error:
            values["problem"] = str(error)
            return window.page(request, "walk.html", values, 429)
        except Gemma4VecError as error:
            values["problem"] = " ".join(str(error).split())
    if (walk := values["walk"]) is not None:
        values["chart"] = draw_chart(lambda width: draw_walk(walk["steps"], walk["degrees"], width))
    return window.page(request, "walk.html", values)


def api_walk(window: Window, request: Request) -> Response:
    """`/api/walk?index=RUN/NAME&decoder=RUN&q=words&to=ROW`: a walk as JSON.

    Raises:
        InputError: an unknown index or decoder, or what the walk refuses.
        BusyError: too many searches wait.
    """
    wanted, runs = request.query_params, window.runs.all()
    source = find_sources(list_sources(runs), [wanted.get("index", "")])[0]
    decoder = find_listed(list_decoders(runs), wanted.get("decoder", ""), "a decoder")
    return window.json(window.decoders.walk(source, decoder, wanted.get("q", ""), _row(wanted.get("to", ""))))


def _row(given: str) -> int | None:
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise InputError("the target is a row of the index; choose one of the hits")
    return int(given)
