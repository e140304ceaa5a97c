"""A window as a browser has it: opened by its first URL, with the cookie that it swaps for the token."""

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from gemma4vec.files import home
from gemma4vec.ledger.recording import record_run
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ui.app import make_app
from gemma4vec.ui.window import Window

PORT = 8123
ORIGIN = {"Origin": f"http://127.0.0.1:{PORT}"}


def locked_client(window: Window) -> TestClient:
    """A client without the cookie."""
    return TestClient(make_app(window), base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)


def open_window(folder: Path | None = None, **settings: Any) -> tuple[Window, TestClient]:
    """A window on `folder` (by default that of the test), and a client that it has let in."""
    window = Window(folder or home(), PORT, **settings)
    client = locked_client(window)
    assert client.get(f"/open?token={window.token}").status_code == 200
    return window, client


def recorded(path: Path, **manifest: Any) -> str:
    """Record a run folder in the ledger; returns its id."""
    run = RunFolder(path)
    run.update_manifest(**{"status": "finished", "recipe_id": "0123456789abcdef", **manifest})
    record_run(run)
    return run.run_id
