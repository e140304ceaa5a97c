"""`gemma4vec ui`: a window on runs, ledger and inspections in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from gemma4vec.errors import InputError


def ui_command(
    port: Annotated[int, typer.Option("--port", help="Port of 127.0.0.1; 0 is any free one.", min=0, max=65535)] = 0,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home",
            help="Folder of runs and ledger; default: $GEMMA4VEC_HOME, else ./runs.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    read_only: Annotated[bool, typer.Option("--read-only", help="Show only what is recorded; record nothing.")] = False,
) -> None:
    """Open a window on this machine's runs in the browser: live training, comparisons, failures, the ledger.

    It answers to this machine alone, and only to who has the address that is printed.
    """
    import os
    from importlib.util import find_spec

    if not all(find_spec(package) for package in ("starlette", "uvicorn", "h11")):
        raise InputError('the window needs packages that are not installed: pip install "gemma4vec[ui]"')
    if home is not None:
        if not home.is_dir():
            raise InputError(f"--home {home} is not a folder; give the one with the runs")
        # One place says where outputs are, for every room.
        os.environ["GEMMA4VEC_HOME"] = str(home)
    from gemma4vec.files import home as outputs_home
    from gemma4vec.serving.http.http_protocol import bind
    from gemma4vec.ui.run_window import run_window

    sock = bind("127.0.0.1", port)
    run_window(outputs_home(), sock, read_only=read_only, browser=browser)
