"""`POST /runs/ID/decide`: a decision about a run, through the ledger's own function."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gemma4vec.ledger.recording import decide
from gemma4vec.ui.window import Window

Fields = Mapping[str, Sequence[str]]


def record_decision(window: Window, request: Request, fields: Fields) -> Response:
    """Record it, and go back to the run.

    Raises:
        InputError: an unknown run; not keep, drop or repeat; no reason.
        WorkError: the ledger cannot be written.
    """
    run = window.runs.find(request.path_params["run_id"])
    decide(window.home, run, fields.get("decision", [""])[0], fields.get("words", [""])[0])
    return RedirectResponse(f"/runs/{quote(run['run_id'])}", 303)
