"""BM25 that was evaluated once for all runs: its score is on the page of each run, as on Compare."""

import shutil

import pytest
from compared_runs import make_runs
from hostile_page import Page
from open_window import ORIGIN, open_window

from gemma4vec.evaluation.results.result import load_result
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.report.content.run_data import find_bm25
from gemma4vec.report.run_page import write_report


@pytest.fixture
def ids() -> list[str]:
    """Two runs with the results of their own models alone, and BM25's below `HOME/evals`."""
    made = make_runs(home(), {"base": 0.3, "better": 0.6})
    (home() / "evals").mkdir()
    shutil.move(home() / made[0] / "evals" / "bm25", home() / "evals" / "bm25")
    shutil.rmtree(home() / made[1] / "evals" / "bm25")
    for one in made:
        shutil.rmtree(home() / one / "evals" / "untrained")
    return made


def comparisons() -> int:
    with open_ledger(home()) as ledger:
        return int(ledger.value("SELECT count(*) FROM comparisons"))


def test_the_page_of_a_run_has_the_score_that_compare_shows(ids: list[str]) -> None:
    _, client = open_window()
    score = f"{load_result(home() / 'evals' / 'bm25' / 'test').mean['ndcg@10']:.3f}"
    for one in ids:
        page = Page(client.get(f"/runs/{one}").text).text
        assert f"BM25 has {score} there, not compared yet" in page and "BM25 was not evaluated" not in page
        assert "Not evaluated on test: untrained base." in page
        assert "has not been compared with BM25 on test yet" in page and "Is the difference real?" not in page
    assert comparisons() == 0
    client.post("/compare", data={"run": ids}, headers=ORIGIN)
    assert score in Page(client.get(f"/compare?run={ids[0]}&run={ids[1]}").text).text
    control, other = (Page(client.get(f"/runs/{one}").text).text for one in ids)
    assert "Is the difference real?" in control and "not been compared with BM25" not in control
    assert "not been compared with BM25" in other  # Compare compares BM25 with the control alone


def test_a_report_compares_with_it_and_the_page_shows_the_verdict(ids: list[str]) -> None:
    report = Page(write_report(home() / ids[1]).read_text(encoding="utf-8")).text
    assert "BM25" in report.split("What is missing")[0] and comparisons() == 1
    _, client = open_window()
    page = Page(client.get(f"/runs/{ids[1]}").text).text
    assert "Is the difference real?" in page and "No verdicts here" not in page


def test_bm25_on_other_contents_or_damaged_is_not_taken(ids: list[str]) -> None:
    like = load_result(home() / ids[0] / "evals" / "trained" / "test")
    folder = home() / "evals" / "bm25" / "test"
    found = find_bm25(like)
    assert found is not None and found[0] == folder and found[1].contents == like.contents
    like.settings["suite"]["fingerprint"] = "other"
    assert find_bm25(like) is None
    (folder / "metrics.json").write_text("{")
    like = load_result(home() / ids[0] / "evals" / "trained" / "test")
    assert find_bm25(like) is None
    _, client = open_window()
    assert "Not evaluated on test: BM25, untrained base." in Page(client.get(f"/runs/{ids[0]}").text).text
