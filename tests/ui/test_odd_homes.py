"""Homes that are large, shared or odd: pages stay short, two windows see the same, odd values stay in their place."""

import math
import shutil
from typing import Any

import pytest
from fake_embedder import FakeEmbedder, functions
from kept_results import kept_result
from ledger_samples import look, make_run
from open_window import ORIGIN, open_window
from starlette.testclient import TestClient

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import WorkError
from gemma4vec.files import home
from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import add
from gemma4vec.ledger.recording import decide
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.text.prompts import Document
from gemma4vec.ui.app import make_app
from gemma4vec.ui.content.kept_results import keep_result
from gemma4vec.ui.content.ranked_documents import CHARACTERS, describe
from gemma4vec.ui.content.suite_texts import Texts
from gemma4vec.ui.window import Window


def test_a_ledger_of_ten_thousand_runs_is_shown_by_pages() -> None:
    empty = {"parents": [], "data": {}, "code": {}, "machine": {}, "cost": {}, "results": {}, "recipe": None, "seed": 0}
    records = [
        Record(
            f"run-{number}",
            "run",
            f"2026-01-01T00:00:{number / 1000:09.6f}",
            {**empty, "run_id": f"r{number:05d}", "name": f"run {number}", "created": f"2026-01-01T{number:06d}"}
            | {"recipe_id": "x", "status": "finished", "hypothesis": "", "path": f"/none/{number}", "base": None},
        )
        for number in range(COUNT)
    ]
    add(home(), records)
    _, client = open_window()
    first, last = client.get("/"), client.get("/?page=100")
    assert "1 to 100 of 10,000" in first.text and "run 9999<" in first.text and "run 9899<" not in first.text
    assert "9,901 to 10,000 of 10,000" in last.text and "run 0<" in last.text
    assert first.text.count("data-row") == last.text.count("data-row") == 100 and len(first.content) < 200_000
    assert len(client.get("/api/runs").json()) == COUNT
    assert "run 1034<" in client.get("/?q=r01034").text
    for address in ("/search", "/map", "/walk", "/inversion"):  # each looks for the runs' files
        assert client.get(address).status_code == 200


def test_two_windows_on_one_home_see_the_same() -> None:
    run_id = make_run(home(), "shared").run_id
    _, one = open_window()
    window = Window(home(), 8124)
    other = TestClient(make_app(window), base_url="http://127.0.0.1:8124")
    other.cookies.update(one.cookies)  # browsers send the cookies of all ports
    assert other.get("/").status_code == 403
    assert other.get(f"/open?token={window.token}").status_code == 200
    assert "shared" in other.get("/").text and "it wins" not in other.get("/").text
    one.post(f"/runs/{run_id}/decide", data={"decision": "keep", "words": "it wins"}, headers=ORIGIN)
    assert "it wins" in other.get("/").text and "it wins" in other.get(f"/runs/{run_id}").text
    assert other.post(f"/runs/{run_id}/decide", data={"decision": "drop"}, headers=ORIGIN).status_code == 403


COUNT = 10_000


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.0])
def test_scores_that_are_no_numbers_stay_in_their_place(value: float) -> None:
    run = make_run(home(), "odd")
    look(run.evaluation("trained", "s"), "trained", "fp", value=value, run=run)
    run.event("step", step=1, loss=value, learning_rate=value, tokens=value, seconds=value, tokens_per_second=value)
    run.event("evaluation", step=1, suite="dev", **{"ndcg@10": value, "low": value, "high": None})
    _, client = open_window()
    for address in ("/", f"/runs/{run.run_id}", f"/runs/{run.run_id}/live", "/ledger", "/api/runs"):
        assert client.get(address).status_code == 200, address


def test_of_a_document_of_five_megabytes_the_beginning_is_shown() -> None:
    text = "word " * 1_000_000
    suite = RetrievalSuite("s", ["d"], [Document(text)], ["q"], ["word"], {"q": {"d": 1}})
    (shown,) = describe([("d", 1, 0.5)], {"d": 1}, {}, Texts(suite), "word")
    assert sum(len(piece) for piece, _ in shown.pieces) == CHARACTERS and shown.more == len(text) - CHARACTERS


def test_a_run_that_is_deleted_while_it_is_looked_at_leaves_the_rest() -> None:
    runs = [make_run(home(), name) for name in ("kept", "deleted")]
    for run in runs:
        run.model.mkdir()
        SearchIndex.build(run.path / "index" / "test", functions(12), FakeEmbedder())
    _, client = open_window()
    key = f"{runs[1].run_id}/test"
    assert "deleted" in client.get("/search").text and client.get("/map", params={"index": key}).status_code == 200
    gone = runs[1].run_id
    shutil.rmtree(runs[1].path)
    for address in (
        "/",
        f"/runs/{gone}",
        f"/compare?run={gone}&run={runs[0].run_id}",
        "/search",
        "/map",
        "/walk",
        "/inversion",
    ):
        reply = client.get(address)
        assert reply.status_code in (200, 404) and "mistake" not in reply.text, address
    assert "the folder of" in client.get(f"/runs/{gone}").text and "deleted" in client.get("/").text
    for address in (f"/map?index={key}", f"/api/map/points?index={key}", f"/walk?index={key}&decoder=x&q=x"):
        reply = client.get(address)
        assert reply.status_code == 404 and "no run has an index" in reply.text, address
    reply = client.get("/search", params={"q": "x", "index": key})
    assert reply.status_code == 404 and key in client.get("/search", params={"q": "x", "index": key}).text


@pytest.mark.parametrize("name", ["walks", "inversions", "inspect", "flips"])
def test_odd_files_in_a_home_are_no_results(name: str) -> None:
    """A folder with the name of a file, a link to itself, a file that cannot be decoded."""
    folder = home() / name
    (folder / "folder.json").mkdir(parents=True)
    (folder / "loop.json").symlink_to(folder / "loop.json")
    (folder / "bytes.json").write_bytes(b"\xff\xfe{")
    _, client = open_window()
    for address in ("/walk", "/inversion", "/inspect", "/"):
        reply = client.get(address)
        assert reply.status_code == 200 and "mistake" not in reply.text, address


def test_bidi_and_control_characters_move_no_text() -> None:
    """What turns the direction of text, or moves the cursor, is nowhere in a page, wherever it comes from."""
    odd = "a\u202eb\u2066c\x1b[31md\x07\u200fe"
    run = make_run(home(), "odd", hypothesis=odd)
    decide(home(), window_row(run.run_id), "keep", odd)
    keep_result(home(), "walk", kept_result(query=odd, target=odd))
    keep_result(home(), "texts", kept_result("texts", decoder=odd))
    _, client = open_window()
    for address in ("/", f"/runs/{run.run_id}", "/ledger", "/walk", "/inversion"):
        text = client.get(address).text + client.get(address, params={"q": odd, "kept": odd}).text
        assert not any(one in text for one in "\u202e\u2066\x1b\x07\u200f"), address


def window_row(run_id: str) -> dict[str, Any]:
    """A run as the ledger has it."""
    return Window(home(), 8125).runs.find(run_id)


@pytest.mark.parametrize("address", ["/inspect/%2e%2e", "/inspect/..%2f..%2fx/map", "/inspect/%2e%2e/geometry"])
@pytest.mark.parametrize("prefix", ["", "/api"])
def test_encoded_dots_lead_nowhere(address: str, prefix: str) -> None:
    make_run(home(), "any")
    _, client = open_window()
    assert client.get(prefix + address).status_code == 404
    for query in (
        "/map?index=%2e%2e%2f%2e%2e",
        "/walk?kept=..%2f..%2fledger",
        "/inversion?kept=%2e%2e",
        "/map?with=..%2f",
    ):
        assert client.get(query).status_code in (200, 404) and "root:" not in client.get(query).text


def test_a_home_that_cannot_be_written_shows_and_says_why_it_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(home(), "kept")
    _, client = open_window()

    def full(*_: object, **__: object) -> None:
        raise WorkError("the ledger cannot be written (read-only file system)")

    monkeypatch.setattr("gemma4vec.ledger.recording.decide", full)
    reply = client.post(f"/runs/{run.run_id}/decide", data={"decision": "keep", "words": "x"}, headers=ORIGIN)
    assert reply.status_code == 500 and "read-only file system" in reply.text
    assert client.get("/").status_code == 200
