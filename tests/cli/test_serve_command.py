"""`serve` as people type it: every mistake is one line, before the model is loaded."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from gemma4vec.cli.main import execute
from gemma4vec.serving.http import server, workers
from gemma4vec.serving.http.http_protocol import bind
from gemma4vec.serving.http.server_settings import ServerSettings


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, ServerSettings]:
    """The settings with which a server would have been started."""
    found: dict[str, ServerSettings] = {}

    def record(kind: str) -> Any:
        def run(settings: ServerSettings, sock: Any) -> None:
            found[kind] = settings
            sock.close()

        return run

    monkeypatch.setattr(server, "run_server", record("one"))
    monkeypatch.setattr(workers, "run_workers", record("several"))
    return found


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """What has the marks of a saved model; it is not opened here."""
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "gemma4vec.json").write_text("{}")
    return folder


def test_settings_reach_the_server(asked: dict[str, ServerSettings], saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    words = ["--host", "0.0.0.0", "--port", "0", "--token-file", str(file), "--default-input-type", "document"]
    words += ["--too-long", "truncate", "--queue-tokens", "9", "--no-compile", "--name", "n"]
    assert execute(["serve", str(saved), *words]) == 0
    found = asked["one"]
    assert (found.model, found.tokens, found.default_input_type) == (str(saved), ("secret",), "document")
    assert (found.too_long, found.queue_tokens, found.compile, found.name) == ("truncate", 9, False, "n")
    assert ServerSettings.from_json(found.as_json()) == found
    assert execute(["serve", str(saved), "--port", "0", "--workers", "2"]) == 0 and asked["several"].workers == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 is reachable by others; protect it with --token-file"),
        (["--host", "::"], "protect it with --token-file"),
        (["--token-file", "missing"], "--token-file missing cannot be read"),
        (["--token-file", "empty"], "--token-file empty is empty"),
        (["--default-input-type", "passage"], "use query or document"),
        (["--too-long", "cut"], "use error or truncate"),
        (["--index", "nowhere"], "--index nowhere is not a folder"),
        (["--index", "."], "is not a search index"),
        (["--name", " "], "--name is empty"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    line: str,
    asked: dict[str, ServerSettings],
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    assert execute(["serve", str(saved), "--port", "0", *words]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1 and asked == {}


def test_a_port_in_use_and_a_missing_extra(
    asked: dict[str, ServerSettings], saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sock = bind("127.0.0.1", 0)
    port = str(sock.getsockname()[1])
    assert execute(["serve", str(saved), "--port", port]) == 2
    assert f"--port {port} is in use" in capsys.readouterr().err
    sock.close()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert execute(["serve", str(saved)]) == 2
    assert 'pip install "gemma4vec[serve]"' in capsys.readouterr().err
    assert asked == {}
