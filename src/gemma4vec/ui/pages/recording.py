"""What is recorded by forms: decisions about runs, judgments of documents, slices and their confirmation.

Everything goes through the functions that commands call.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gemma4vec.errors import InputError
from gemma4vec.ui.window import Window

if TYPE_CHECKING:
    from gemma4vec.inspection.inspected import Subject

BY = "gemma4vec ui"
Fields = Mapping[str, Sequence[str]]


def record_decision(window: Window, request: Request, fields: Fields) -> Response:
    """`POST /runs/ID/decide`: record a decision, and go back to the run.

    Raises:
        InputError: an unknown run; not keep, drop or repeat; no reason.
        WorkError: the ledger cannot be written.
    """
    from gemma4vec.ledger.recording import decide

    run = window.runs.find(request.path_params["run_id"])
    decide(window.home, run, fields.get("decision", [""])[0], fields.get("words", [""])[0])
    return RedirectResponse(f"/runs/{quote(run['run_id'])}", 303)


def record_judgment(window: Window, request: Request, fields: Fields) -> Response:
    """`POST /inspect/KEY/queries/ROW/judge`: keep a judgment beside the suite, and go back to the document.

    Raises:
        InputError: an unknown inspection, query or document, a sealed query, a suite whose texts are gone, or a grade
            that is neither 0 nor 1.
        WorkError: it cannot be written.
    """
    from gemma4vec.inspection.labels.judgments import Judgment, add_judgments
    from gemma4vec.inspection.sealed import DISCOVERY
    from gemma4vec.ui.content.query_list import shown_rows

    found = window.inspections.find(request.path_params["key"])
    columns, row = window.inspections.columns(found), request.path_params["row"]
    if not 0 <= row < len(columns["half"]) or columns["half"][row] != DISCOVERY:
        raise InputError("only queries of the open half are judged here")
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


def record_slice(window: Window, request: Request, fields: Fields) -> Response:
    """`POST /inspect/KEY/slices`: save a rule as a slice, and show its queries.

    Raises:
        InputError: an unknown inspection, no rule, a rule with too few queries on either side.
        WorkError: the ledger cannot be written.
    """
    from gemma4vec.inspection.saved.saved_slices import save_slice

    found = window.inspections.find(request.path_params["key"])
    view: Any = fields.get("view", [""])[0]
    made = save_slice(found.folder, fields.get("rule", [""])[0], view)
    return _to_slice(found.key, made["id"], made["view"])


def record_confirmation(window: Window, request: Request, fields: Fields) -> Response:
    """`POST /inspect/KEY/confirm`: open the sealed half for one slice, once, as `gemma4vec inspect confirm` does.

    Raises:
        InputError: an unknown inspection or slice, one that is spent, a suite or model that is another one now, values
            that are gone from the cache of a model that no listed run has; or nobody said that it is meant.
        BusyError: too many searches wait, behind which models are opened.
        WorkError: the ledger cannot record it; nothing was opened then.
    """
    from gemma4vec.evaluation.scoring.open_any_suite import open_retrieval_suite
    from gemma4vec.inspection.confirm import confirm

    found = window.inspections.find(request.path_params["key"])
    name = fields.get("slice", [""])[0]
    known = next((one for one in found.every_slice if one["id"] == name), None)
    if known is None:
        raise InputError("choose one of this inspection's slices")
    if fields.get("sure", [""])[0] != "1":
        raise InputError("say that the sealed half may be opened for this slice: that happens once")

    def open_listed(how: Mapping[str, Any]) -> "Subject":
        return _open_listed(window, how, name)

    window.search.run(lambda: confirm(name, found.folder, open_listed, open_retrieval_suite)).result()
    return _to_slice(found.key, name, known["view"])


def _open_listed(window: Window, how: Mapping[str, Any], name: str) -> "Subject":
    """A model of an inspection, if a listed run has it: no other model is opened from the window."""
    from gemma4vec.api.inspected import BM25, open_subject

    spec = str(how["spec"])
    listed = [run for run in window.runs.all() if spec == run["run_id"] or Path(spec).absolute() == Path(run["path"])]
    if spec != BM25 and not listed:
        raise InputError(
            f"the scores are gone from the cache, and {spec} is no listed run, so this window does not open it; use "
            f"gemma4vec inspect confirm {name}"
        )
    return open_subject({**how, "spec": spec if spec == BM25 else str(listed[0]["path"])})


def _to_slice(key: str, name: str, view: str) -> Response:
    return RedirectResponse(f"/inspect/{key}?{urlencode({'view': view, 'slice': name})}#slices", 303)
