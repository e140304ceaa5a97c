"""`POST /inspect/KEY/queries/ROW/judge`: a person's judgment of one document, kept beside the suite."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gemma4vec.errors import InputError
from gemma4vec.inspection.labels.judgments import Judgment, add_judgments
from gemma4vec.inspection.sealed import DISCOVERY
from gemma4vec.ui.content.query_list import shown_rows
from gemma4vec.ui.window import Window

BY = "gemma4vec ui"


def record_judgment(window: Window, request: Request, fields: Mapping[str, Sequence[str]]) -> Response:
    """Record it, and go back to the document.

    Raises:
        InputError: an unknown inspection, query or document, a sealed query, a suite whose texts are gone, or a grade
            that is neither 0 nor 1.
        WorkError: it cannot be written.
    """
    found = window.inspections.find(request.path_params["key"])
    columns, row = window.inspections.columns(found), request.path_params["row"]
    if not 0 <= row < len(columns["half"]) or columns["half"][row] != DISCOVERY:
        raise InputError("only queries of the discovery half are judged here")
    texts = window.suites.of_inspection(found.about)
    if row not in shown_rows(found, columns, texts.queries):
        raise InputError("this query is in the sealed half of another suite that has it, and is not judged here")
    if texts.suite is None:
        raise InputError(texts.problem)
    grade = fields.get("grade", [""])[0]
    if grade not in ("0", "1"):
        raise InputError("a judgment is 1 (right) or 0 (wrong)")
    document = fields.get("document", [""])[0]
    add_judgments(texts.suite, [Judgment(columns["query_id"][row], document, int(grade))], BY)
    kept, place = request.url.query, fields.get("place", [""])[0]
    anchor = f"#{quote(place)}" if place else ""
    return RedirectResponse(f"/inspect/{found.key}/queries/{row}{'?' if kept else ''}{kept}{anchor}", 303)
