"""Homes that are large, shared or odd: pages stay short, two windows see the same, odd values stay in their place."""

import math

import pytest
from ledger_samples import look, make_run
from open_window import ORIGIN, open_window
from starlette.testclient import TestClient

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.files import home
from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import add
from gemma4vec.text.prompts import Document
from gemma4vec.ui.app import make_app
from gemma4vec.ui.content.ranked_documents import CHARACTERS, describe
from gemma4vec.ui.content.suite_texts import Texts
from gemma4vec.ui.window import Window


def test_a_ledger_of_many_runs_is_shown_by_pages() -> None:
    empty = {"parents": [], "data": {}, "code": {}, "machine": {}, "cost": {}, "results": {}, "recipe": None, "seed": 0}
    records = [
        Record(
            f"run-{number}",
            "run",
            f"2026-01-01T00:00:{number / 1000:09.6f}",
            {**empty, "run_id": f"r{number:05d}", "name": f"run {number}", "created": f"2026-01-01T{number:06d}"}
            | {"recipe_id": "x", "status": "finished", "hypothesis": "", "path": f"/none/{number}", "base": None},
        )
        for number in range(1_200)
    ]
    add(home(), records)
    _, client = open_window()
    first, last = client.get("/"), client.get("/?page=12")
    assert "1 to 100 of 1,200" in first.text and "run 1199<" in first.text and "run 1099<" not in first.text
    assert "1,101 to 1,200 of 1,200" in last.text and "run 0<" in last.text
    assert first.text.count("data-row") == last.text.count("data-row") == 100 and len(first.content) < 200_000
    assert len(client.get("/api/runs").json()) == 1_200
    assert "run 1034<" in client.get("/?q=r01034").text


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
