"""The scripts and styles of the pages: a fixed table, so that no name of a request becomes a path."""

from functools import cache as once
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.errors import InputError
from gemma4vec.files import sha256_file
from gemma4vec.report.templating import TEMPLATES

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


@once
def static_files() -> dict[str, Path]:
    """Name -> file of everything that is served below /static/."""
    own = {file.name: file for file in sorted(_FOLDER.iterdir()) if file.suffix in _TYPES}
    return {**own, "report.css": TEMPLATES / "report.css"}


def static_file(request: Request) -> Response:
    """`GET /static/NAME`.

    Raises:
        InputError: it is not in the table.
    """
    file = static_files().get(request.path_params["name"])
    if file is None:
        raise InputError("there is no such file")
    tag = f'"{sha256_file(file)[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(file.read_bytes(), headers=headers, media_type=_TYPES[file.suffix])
