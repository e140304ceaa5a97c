"""`gemma4vec ui` as people type it, and as a process: it starts without torch and ends by Ctrl-C with code 0."""

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from gemma4vec.cli.main import execute

ROOT = Path(__file__).resolve().parents[2]


def test_a_port_in_use_and_a_missing_home_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert execute(["ui", "--no-browser", "--port", str(port)]) == 2
    assert f"--port {port} is in use on 127.0.0.1" in capsys.readouterr().err
    assert execute(["ui", "--no-browser", "--home", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_it_needs_its_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert execute(["ui", "--no-browser"]) == 2
    assert 'pip install "gemma4vec[ui]"' in capsys.readouterr().err


def test_a_process_answers_the_printed_address_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from gemma4vec.cli.main import execute; code = execute(sys.argv[1:]);"
        "print('LOADED', code, *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "ui", "--no-browser", "--home", str(tmp_path)],
        cwd=ROOT / "src",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found is not None
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        base = found[0].partition("/open")[0]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(base)
        assert browser.open(found[0]).status == 200 and b"No runs yet" in browser.open(base).read()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    code, *loaded = out.split("LOADED", 1)[1].split()
    assert code == "0" and {"torch", "transformers", "scipy", "pyarrow"}.isdisjoint(loaded)


def test_no_page_loads_torch() -> None:
    program = (
        "import sys; from gemma4vec.ui.app import FORMS, PAGES, STREAMS, load_page;"
        "[load_page(target) for target in (*PAGES.values(), *STREAMS.values(), *FORMS.values())];"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert {"torch", "transformers", "sentence_transformers"}.isdisjoint(done.stdout.split())
