"""Compare in the window: recorded once and by a form alone; the numbers of `compare`; flipped queries of one half."""

import shutil
from dataclasses import replace

import pytest
from compared_runs import make_runs
from hostile_page import Page
from open_window import ORIGIN, open_window

from gemma4vec.evaluation.comparison.corrected import compare_pairs
from gemma4vec.evaluation.results.result import load_result, save_result
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.suite_halves import split_halves
from gemma4vec.report.content.comparison_data import read_comparison


def recorded_comparisons() -> int:
    with open_ledger(home()) as ledger:
        return int(ledger.value("SELECT count(*) FROM comparisons"))


def address(ids: list[str]) -> str:
    return "/compare?" + "&".join(f"run={one}" for one in ids)


def test_a_new_pair_is_compared_by_the_form_alone_and_once() -> None:
    ids = make_runs(home(), {"base": 0.3, "better": 0.8})
    _, client = open_window()
    page = Page(client.get(address(ids)).text)
    assert "have not been compared" in page.text and "record it in the ledger" in page.text
    assert "stages.0.budget.steps" in page.text and recorded_comparisons() == 0
    assert client.get(f"/api{address(ids)}").status_code == 404
    reply = client.post("/compare", data={"run": ids}, headers=ORIGIN, follow_redirects=False)
    assert reply.status_code == 303 and reply.headers["location"] == address(ids)
    assert recorded_comparisons() == 3  # the two runs; the first one with BM25 and with the base
    for _ in range(2):
        page = Page(client.get(address(ids)).text)
        assert client.get(f"/api{address(ids)}").status_code == 200
    assert recorded_comparisons() == 3
    known = read_comparison([home() / one for one in ids], only_known=True)
    one = known.suites[0].comparisons[0][2]
    assert f"{one.difference:+.3f}" in page.text and one.verdict.word == "better"
    assert f"B better is better than A base by {one.difference:.3f}" in page.text
    assert "What differs" in page.text and "Is the difference real?" in page.text


def test_runs_chosen_in_the_list_are_compared_with_the_oldest() -> None:
    ids = make_runs(home(), {"base": 0.3, "better": 0.8})
    _, client = open_window()
    fields = {"run": ids[::-1], "order": "oldest"}
    reply = client.post("/compare", data=fields, headers=ORIGIN, follow_redirects=False)
    assert reply.headers["location"] == address(ids)


def test_flipped_queries_are_of_the_discovery_half_in_order_of_their_difference() -> None:
    ids = make_runs(home(), {"base": 0.3, "better": 0.6})
    _, client = open_window()
    client.post("/compare", data={"run": ids}, headers=ORIGIN)
    found = client.get(f"/api{address(ids)}").json()["suites"][0]["flipped"]
    results = [load_result(home() / one / "evals" / "trained" / "test") for one in ids]
    (keys, base_N), (_, better_N) = (one.values("ndcg@10") for one in results)
    names = [key for _, key in keys]
    sealed_N = split_halves(results[0].settings["suite"]["fingerprint"], names)
    assert sealed_N is not None
    change = {key: better_N[row] - base_N[row] for row, key in enumerate(names) if not sealed_N[row]}
    assert {one["id"] for one in found["better"]} == {key for key, value in change.items() if value > 0}
    assert {one["id"] for one in found["worse"]} == {key for key, value in change.items() if value < 0}
    sizes = [abs(one["a"] - one["b"]) for one in found["better"]]
    assert sizes == sorted(sizes, reverse=True) and found["numbers"][2] == len(change)
    page = client.get(address(ids)).text
    sealed = [key for key, is_sealed in zip(names, sealed_N, strict=True) if is_sealed]
    assert not any(f">{key}<" in page for key in sealed)
    assert "Return the shortest path number" in page and "Differences on single queries are no evidence" in page
    listed = client.get(f"/api{address(ids)}").text
    assert not any(f'"{key}"' in listed for key in sealed)


@pytest.mark.parametrize("role", ["final", None])
def test_single_queries_of_other_suites_are_not_shown(role: str | None) -> None:
    ids = make_runs(home(), {"base": 0.3, "better": 0.6}, role=role)
    _, client = open_window()
    client.post("/compare", data={"run": ids}, headers=ORIGIN)
    page = client.get(address(ids)).text
    assert "shown of dev suites alone" in page and "Return the shortest path" not in page


def test_a_suite_that_is_gone_leaves_ids() -> None:
    ids = make_runs(home(), {"base": 0.3, "better": 0.6})
    _, client = open_window()
    client.post("/compare", data={"run": ids}, headers=ORIGIN, follow_redirects=False)
    shutil.rmtree(home() / "data")
    page = client.get(address(ids)).text
    assert "texts are gone, so ids are shown" in page and "Return the shortest" not in page and ">q" in page


def test_the_ledger_says_of_which_runs_compared_models_are() -> None:
    ids = make_runs(home(), {"base": 0.3, "better": 0.6})
    _, client = open_window()
    client.post("/compare", data={"run": ids}, headers=ORIGIN)
    text = " ".join(Page(client.get("/ledger").text).text.split())
    assert "trained of better minus trained of base" in text and "bm25 of" not in text
    for one in ids:  # an evaluation by the run's id has that for a name
        folder = home() / one / "evals" / "trained" / "test"
        result = load_result(folder)
        save_result(replace(result, model=one), folder, [])
    base, better = (load_result(home() / one / "evals" / "trained" / "test") for one in ids)
    compare_pairs([(better, base)], "map")
    text = " ".join(Page(client.get("/ledger").text).text.split())
    assert "better minus base" in text and f"{ids[1]} of better" not in text
    found = client.get("/api/ledger").json()["comparisons"]
    assert {"id": ids[1], "name": "better"} in [one["run_a"] for one in found]


def test_a_read_only_window_compares_nothing() -> None:
    ids = make_runs(home(), {"base": 0.3, "better": 0.6})
    _, client = open_window(read_only=True)
    page = Page(client.get(address(ids)).text)
    assert "gemma4vec report" in page.text and "record it" not in page.text
    assert client.post("/compare", data={"run": ids}, headers=ORIGIN).status_code == 403
    assert (
        client.post(f"/runs/{ids[0]}/decide", data={"decision": "keep", "words": "x"}, headers=ORIGIN).status_code
        == 403
    )
    assert recorded_comparisons() == 0
    _, other = open_window()
    other.post("/compare", data={"run": ids}, headers=ORIGIN)
    assert "Is the difference real?" in client.get(address(ids)).text  # it is recorded now


def test_a_comparison_that_the_ledger_does_not_take_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = make_runs(home(), {"base": 0.3, "better": 0.6})
    _, client = open_window()
    place = "gemma4vec.evaluation.comparison.comparison_count.record_comparison"  # warns on a home that is read-only
    monkeypatch.setattr(place, lambda body: None)
    reply = client.post("/compare", data={"run": ids}, headers=ORIGIN, follow_redirects=False)
    assert reply.status_code == 500 and "the ledger did not record the comparison" in reply.text
    assert str(home()) in reply.text and recorded_comparisons() == 0


def test_what_cannot_be_compared_is_one_line() -> None:
    ids = make_runs(home(), {"base": 0.3, "better": 0.6}, queries=4)
    _, client = open_window()
    assert "Choose two runs or more" in client.get("/compare").text
    assert client.get("/compare?run=none&run=nothing").status_code == 404
    assert "choose two runs or more" in client.post("/compare", data={"run": ids[:1]}, headers=ORIGIN).text
    many = "&".join(f"run={ids[0]}" for _ in range(3))
    assert "Choose two runs" in client.get(f"/compare?{many}").text
    shutil.rmtree(home() / ids[1])
    reply = client.get(address(ids))
    assert reply.status_code == 404 and "is gone" in reply.text


def test_a_decision_goes_through_the_ledger() -> None:
    ids = make_runs(home(), {"base": 0.3}, queries=4)
    _, client = open_window()
    place = f"/runs/{ids[0]}/decide"
    fields = {"decision": "keep", "words": "it finds more <b>"}
    assert (
        client.post(place, data=fields, headers=ORIGIN, follow_redirects=False).headers["location"] == f"/runs/{ids[0]}"
    )
    page = Page(client.get(f"/runs/{ids[0]}").text)
    assert ": it finds more <b>" in page.text and "keep" in Page(client.get("/").text).text
    assert (home() / ids[0] / "decision.json").is_file()
    assert "use one of keep, drop, repeat" in client.post(place, data={"decision": "x"}, headers=ORIGIN).text
    assert "give a reason" in client.post(place, data={"decision": "drop", "words": " "}, headers=ORIGIN).text
    assert client.post("/runs/none/decide", data=fields, headers=ORIGIN).status_code == 400
    with open_ledger(home()) as ledger:
        assert ledger.value("SELECT count(*) FROM decisions") == 1


@pytest.mark.parametrize("body", [b"\xff\xfe=%", b"=&=&", b"run", b"&".join(b"run=x" for _ in range(500))])
def test_odd_forms_are_one_line(body: bytes) -> None:
    _, client = open_window()
    headers = {**ORIGIN, "Content-Type": "application/x-www-form-urlencoded"}
    reply = client.post("/compare", content=body, headers=headers)
    assert reply.status_code == 400 and "mistake" not in reply.text
