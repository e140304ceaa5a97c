"""`/inversion`: a text, its vector, and what a decoder makes of the vector; and the inversions that were kept."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.errors import Gemma4VecError
from gemma4vec.report.charts.vector_charts import draw_vector
from gemma4vec.report.templating import draw_chart
from gemma4vec.ui.content.decoder_work import SEVERAL, find_listed, list_decoders, list_models
from gemma4vec.ui.content.kept_results import find_kept, list_kept
from gemma4vec.ui.content.search_worker import BusyError
from gemma4vec.ui.window import Window

VALUES_IN_A_ROW = 8


def inversion_page(window: Window, request: Request) -> Response:
    """The page; with `?text=` an inversion, with `?kept=` one that was kept.

    Raises:
        InputError: an unknown model, decoder or kept inversion.
    """
    wanted, runs = request.query_params, window.runs.all()
    models, decoders = list_models(runs), list_decoders(runs)
    n = wanted.get("n", str(SEVERAL[-1]))
    values: dict[str, Any] = {"title": "Inversion", "models": models, "decoders": decoders, "several": SEVERAL, "n": n}
    values |= {"model": wanted.get("model", ""), "decoder": wanted.get("decoder", ""), "text": wanted.get("text", "")}
    values |= {"problem": "", "found": None, "chart": None, "vector": [], "texts": None, "measured": None}
    values["kept"], values["kept_count"] = list_kept(window.home, "inversions")
    if key := wanted.get("kept"):
        kept = find_kept(window.home, "inversions", key)
        values["texts" if kept["kind"] == "texts" else "measured"] = kept
        values["title"] = f"{window.runs.name_of(kept['decoder'])} on vectors of {window.runs.name_of(kept['model'])}"
    elif values["text"].strip():
        model = find_listed(models, values["model"], "an embedding model")
        decoder = find_listed(decoders, values["decoder"], "a decoder")
        try:
            values["found"] = _invert(window, model, decoder, values["text"], n)
        except BusyError as error:
            values["problem"] = str(error)
            return window.page(request, "inversion.html", values, 429)
        except Gemma4VecError as error:
            values["problem"] = " ".join(str(error).split())
    if (found := values["found"]) is not None:
        vector = found["vector"]
        values["chart"] = draw_chart(lambda width: draw_vector(vector, width))
        starts = range(0, len(vector), VALUES_IN_A_ROW)
        values["vector"] = [(start, vector[start : start + VALUES_IN_A_ROW]) for start in starts]
    return window.page(request, "inversion.html", values)


def api_inversion(window: Window, request: Request) -> Response:
    """`/api/inversion?model=RUN&decoder=RUN&text=words&n=16`: the same as JSON.

    Raises:
        InputError: an unknown model or decoder, or what the inversion refuses.
        BusyError: too many searches wait.
    """
    wanted, runs = request.query_params, window.runs.all()
    model = find_listed(list_models(runs), wanted.get("model", ""), "an embedding model")
    decoder = find_listed(list_decoders(runs), wanted.get("decoder", ""), "a decoder")
    return window.json(_invert(window, model, decoder, wanted.get("text", ""), wanted.get("n", "16")))


def _invert(window: Window, model: Any, decoder: Any, text: str, n: str) -> dict[str, Any]:
    return window.decoders.invert(model, decoder, text, int(n) if n in map(str, SEVERAL) else 0)
