"""Who may ask: every way in but the printed address is refused, in one line."""

from pathlib import Path

import pytest
from ledger_samples import make_run
from open_window import ORIGIN, PORT, locked_client, open_window

from gemma4vec.ui.gate import MOST_BODY_BYTES
from gemma4vec.ui.window import Window


def test_the_token_is_swapped_for_a_cookie_that_scripts_and_other_sites_do_not_have(tmp_path: Path) -> None:
    window = Window(tmp_path, PORT)
    client = locked_client(window)
    reply = client.get(f"/open?token={window.token}")
    cookie = reply.headers["set-cookie"].lower()
    assert reply.status_code == 200 and "url=/" in reply.text and "httponly" in cookie and "samesite=strict" in cookie
    assert window.token not in cookie and window.token not in reply.text and len(window.token) == 32
    assert client.get("/").status_code == 200
    assert str(PORT) in cookie.split("=")[0]  # a window on another port has another cookie


@pytest.mark.parametrize("address", ["/", "/ledger", "/api/runs", "/static/ui.css", "/open", "/open?token=guess"])
def test_without_the_cookie_nothing_is_shown(tmp_path: Path, address: str) -> None:
    reply = locked_client(Window(tmp_path, PORT)).get(address)
    assert reply.status_code == 403 and "gemma4vec ui" in reply.text
    client = locked_client(Window(tmp_path, PORT))
    client.cookies.set(f"gemma4vec-{PORT}", "x" * 32)
    assert client.get(address).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", "", "[::1]:80"])
def test_a_foreign_host_is_refused(tmp_path: Path, host: str) -> None:
    window, client = open_window(tmp_path)
    reply = client.get("/", headers={"Host": host})
    assert reply.status_code == 403 and "127.0.0.1 and localhost" in reply.text
    assert client.get(f"/open?token={window.token}", headers={"Host": host}).status_code == 403


def test_localhost_is_this_machine_too(tmp_path: Path) -> None:
    _, client = open_window(tmp_path)
    assert client.get("/", headers={"Host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:1"])
def test_a_forged_origin_is_refused(tmp_path: Path, origin: str) -> None:
    _, client = open_window(tmp_path)
    assert client.get("/api/runs", headers={"Origin": origin}).status_code == 403
    assert client.post("/", headers={"Origin": origin}).status_code == 403


def test_a_form_without_origin_is_refused(tmp_path: Path) -> None:
    _, client = open_window(tmp_path)
    assert client.post("/").status_code == 403 and client.post("/", headers=ORIGIN).status_code == 405


def test_bodies_are_limited(tmp_path: Path) -> None:
    _, client = open_window(tmp_path)
    reply = client.post("/", content=b"x" * (MOST_BODY_BYTES + 1), headers=ORIGIN)
    assert reply.status_code == 413 and "1 MiB" in reply.text


def test_every_reply_says_what_a_browser_may_do_with_it(tmp_path: Path) -> None:
    _, client = open_window(tmp_path)
    for address in ("/", "/nope", "/api/runs", "/static/ui.css", "/api/runs/none/events"):
        headers = client.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "address",
    [
        "/runs/../../etc/passwd",
        "/runs/..%2f..%2fetc%2fpasswd",
        "/runs/%2e%2e",
        "/runs/%2e%2e/live",
        "/static/..%2fgate.py",
        "/static/%2e%2e",
        "/api/runs/%2e%2e%2f/events",
    ],
)
def test_paths_lead_nowhere(tmp_path: Path, address: str) -> None:
    make_run(tmp_path / "runs")
    _, client = open_window(tmp_path / "runs")
    reply = client.get(address)
    assert reply.status_code == 404 and "root:" not in reply.text and "import" not in reply.text


def test_an_unexpected_error_is_one_line_without_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    window, client = open_window(tmp_path)

    def broken() -> None:
        raise ZeroDivisionError("secret text")

    monkeypatch.setattr(window.runs, "all", broken)
    reply = client.get("/")
    assert reply.status_code == 500 and "ZeroDivisionError" in reply.text and "secret" not in reply.text
    assert "unexpected ZeroDivisionError at test_gate.py" in log_lines[-1]
