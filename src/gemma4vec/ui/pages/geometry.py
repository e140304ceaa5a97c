"""`/inspect/KEY/geometry`: figures of the vectors beside their baselines."""

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.ui.window import Window


def geometry_page(window: Window, request: Request) -> Response:
    """The page.

    Raises:
        InputError: an unknown or damaged inspection.
    """
    found = window.inspections.find(request.path_params["key"])
    values = {"title": f"Geometry of {found.about['model']['name']}", "found": found, "about": found.about}
    return window.page(request, "geometry.html", values)
