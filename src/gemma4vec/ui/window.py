"""What one running window knows: its folder, its secrets, what it has read, and how it renders a page."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from gemma4vec import __version__
from gemma4vec.ledger.run_folder import replace_nonfinite, slug
from gemma4vec.report.templating import make_environment
from gemma4vec.text.counted import counted
from gemma4vec.ui.content.event_log import EventLogs
from gemma4vec.ui.content.recorded_runs import RecordedRuns

if TYPE_CHECKING:
    from gemma4vec.ui.content.decoder_work import DecoderWork
    from gemma4vec.ui.content.inspected_points import InspectedMaps
    from gemma4vec.ui.content.map_points import Maps
    from gemma4vec.ui.content.search_worker import SearchWorker
    from gemma4vec.ui.content.stored_inspections import StoredInspections
    from gemma4vec.ui.content.suite_texts import SuiteTexts

# Styles are part of a saved page.
_FOLDERS = Path(__file__).parent / "templates", Path(__file__).parent / "static"
SECRET_BYTES = 16


@dataclass
class Window:
    """One server's state.

    Attributes:
        home: the outputs' folder.
        port: that it listens on, for the checks of `Host` and `Origin`.
        read_only: whether it refuses everything that is recorded.
        token: in the first URL.
        session: the cookie's value, for which the token is swapped.
        closing: set when the server ends, so that event streams do.
    """

    home: Path
    port: int
    read_only: bool = False
    token: str = field(default_factory=lambda: secrets.token_hex(SECRET_BYTES))
    session: str = field(default_factory=lambda: secrets.token_hex(SECRET_BYTES))
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.runs = RecordedRuns(self.home)
        self.logs = EventLogs()

    @cached_property
    def suites(self) -> "SuiteTexts":
        """Texts of suites; imported when a page needs them."""
        from gemma4vec.ui.content.suite_texts import SuiteTexts

        return SuiteTexts()

    @cached_property
    def inspections(self) -> "StoredInspections":
        """The inspections below the home; imported when a page needs them."""
        from gemma4vec.ui.content.stored_inspections import StoredInspections

        return StoredInspections(self.home)

    @cached_property
    def search(self) -> "SearchWorker":
        """The thread that searches; imported, and its models loaded, when somebody searches."""
        from gemma4vec.ui.content.search_worker import SearchWorker

        return SearchWorker()

    @cached_property
    def decoders(self) -> "DecoderWork":
        """Walks and inversions, in the thread that searches; imported when somebody asks for one."""
        from gemma4vec.ui.content.decoder_work import DecoderWork

        return DecoderWork(self.search)

    @cached_property
    def maps(self) -> "Maps":
        """Maps of indexes; imported when somebody looks at one."""
        from gemma4vec.ui.content.map_points import Maps

        return Maps()

    @cached_property
    def inspected_maps(self) -> "InspectedMaps":
        """Maps of inspections; imported when somebody looks at one."""
        from gemma4vec.ui.content.inspected_points import InspectedMaps

        return InspectedMaps()

    @property
    def templates(self) -> Environment:
        """The pages' templates, and the reports'."""
        return make_environment(*_FOLDERS)

    @property
    def is_computing(self) -> bool:
        """Whether a search computes, which would break the interpreter's own end."""
        return "search" in self.__dict__ and self.search.busy

    @property
    def cookie(self) -> str:
        """Its name has the port: browsers share the cookies of all ports, and two windows may be open."""
        return f"gemma4vec-{self.port}"

    @property
    def first_url(self) -> str:
        """The address that lets a browser in."""
        return f"http://127.0.0.1:{self.port}/open?token={self.token}"

    def page(self, request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
        """Render a page; with `?export=1` as one file without scripts, to be saved."""
        export = request.query_params.get("export") == "1"
        common = {
            "version": __version__,
            "read_only": self.read_only,
            "home": str(self.home),
            "named": self.runs.name_of,
            "counted": counted,
            "export": export,
            "export_url": str(request.url.include_query_params(export="1").replace(scheme="", netloc="")),
            "nav": request.url.path.split("/")[1],
        }
        text = self.templates.get_template(template).render({**common, **values})
        name = f"{slug(str(values.get('title', 'page')))}.html"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'} if export else {}
        return HTMLResponse(text.encode("utf-8", "replace"), status, headers)

    def json(self, value: Any, status: int = 200) -> Response:
        """A reply of `/api/`; numbers that JSON lacks become null."""
        return JSONResponse(replace_nonfinite(value), status)
