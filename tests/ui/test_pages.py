"""The pages about runs and the ledger: what is recorded is on them, and damage stays in its place."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from compared_runs import make_runs
from hostile_page import HOSTILE, Page
from ledger_samples import look, make_run
from open_window import open_window, recorded
from synthetic_run import make_run as make_whole_run

from gemma4vec.evaluation.comparison.corrected import compare_pairs
from gemma4vec.evaluation.results.result import load_result, save_result
from gemma4vec.files import home
from gemma4vec.ledger.journal import JOURNAL
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.recording import decide, freeze, record_evaluation, record_run
from gemma4vec.ledger.run_folder import EVENTS, RunFolder
from gemma4vec.ui.pages.run_list import contamination_of
from gemma4vec.ui.static_files import static_files


def shown(client, address: str) -> Page:
    reply = client.get(address)
    assert reply.status_code == 200, reply.text
    page = Page(reply.text)
    assert "onclick" not in dict(page.attributes) and "style" not in dict(page.attributes)
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert all(one.startswith(("/", "#", "?", "data:,")) for one in sources), sources
    return page


def test_an_empty_home_says_what_to_do(tmp_path: Path) -> None:
    _, client = open_window(tmp_path)
    assert "gemma4vec quickstart" in shown(client, "/").text
    assert "No suite has been looked at yet" in shown(client, "/ledger").text
    assert not (tmp_path / JOURNAL).exists()


def test_runs_are_listed_filtered_and_sorted() -> None:
    runs = [make_run(home(), f"run-{name}", recipe_id=f"recipe{name}") for name in "abc"]
    for run, value in zip(runs, (0.25, 0.75, 0.5), strict=True):
        look(run.evaluation("trained", "s"), "trained", f"fp-{run.run_id}", value=value, run=run)
    with open_ledger(home()) as ledger:
        row = ledger.rows("SELECT run_id, recipe_id, path FROM runs ORDER BY run_id")[0]
    decide(home(), row, "keep", "it wins")
    _, client = open_window()
    page = shown(client, "/").text
    assert all(text in page for text in ("run-a", "run-b", "run-c", "0.750", "keep", "it wins", "finished"))
    assert page.index("run-c") < page.index("run-a")
    one = shown(client, "/?q=RECIPEb").text
    assert "1 of 3 runs" in one and "run-b" in one and "run-a" not in one
    best = shown(client, "/?sort=score:s").text
    assert best.index("run-b") < best.index("run-c") < best.index("run-a")
    assert "None of the 3 runs fits" in shown(client, "/?q=nothing").text
    assert "run-a" not in shown(client, "/?decision=none").text.partition("Runs Ledger")[2]
    found = client.get("/api/runs").json()
    assert [run["name"] for run in found] == ["run-c", "run-b", "run-a"] and found[2]["scores"] == {"s": 0.25}


def test_what_a_run_was_made_from_is_next_to_its_own_rows() -> None:
    own = {"nfcorpus": {"rows": {"touched_queries": 0}}, "scifact": {"rows": {"touched_queries": 2}}}
    inherited = {"data": {"run-1": {}}, "unknown": ["a-teacher"], "pretrained": ["a-base"]}
    assert contamination_of({"contamination": own}) == "touches queries of scifact: 2; touches no query of nfcorpus"
    assert contamination_of({"contamination": own | {"scifact": {}}, "inherited": inherited}) == (
        "touches no query of nfcorpus, scifact; not counted: the data of run-1; unknown: the data of a-teacher"
    )
    assert contamination_of({"contamination": None, "inherited": {"pretrained": ["a-base"]}}) == "not checked yet"


def test_the_mark_of_a_score_says_more_than_the_training_knew_when_it_began() -> None:
    def mark(ids: list[str], unchecked: list[str], sources: int = 1) -> dict[str, Any]:
        return {"sources": [{}] * sources, "unchecked": unchecked, "touched_queries": {"task": ids}}

    assert contamination_of({"contamination": None, "marks": {"s": mark([], [])}}) == "touches no query of s"
    began = {"s": {"rows": {"touched_queries": 0}}}
    assert contamination_of({"contamination": began, "marks": {"s": mark(["q1"], [])}}) == "touches queries of s: 1"
    assert contamination_of({"contamination": began, "marks": {"s": None}}) == "not checked against s"
    several = {"a": mark([], []), "b": mark([], ["rows"], 0), "c": mark(["q"], ["more"]), "d": None}
    assert contamination_of({"contamination": began, "marks": several}) == (
        "touches queries of c: 1; touches no query of a, s; not checked against b, c, d"
    )
    odd = {"a": {"sources": [{}], "touched_queries": {"task": 3}}, "b": {"sources": [{}], "touched_queries": []}}
    assert contamination_of({"contamination": {"c": 1}, "marks": odd}) == "touches no query of a, b"
    many = {name: mark([], []) for name in "abcde"}
    assert contamination_of({"contamination": None, "marks": many}) == "touches no query of a, b, c and 2 more"


def test_contamination_is_the_same_in_the_list_and_beside_the_score() -> None:
    ids = make_runs(home(), {"base": 0.3}, queries=4)
    folder = home() / ids[0] / "evals" / "trained" / "test"
    result = load_result(folder)
    source = {"name": "rows", "found_documents": 0}
    result.settings["contamination"] = {"sources": [source], "unchecked": [], "touched_queries": {}}
    result.settings["created"] = "2027-01-01T00:00:00"  # a newer evaluation
    save_result(result, folder, [])
    record_evaluation(folder)
    _, client = open_window()
    for address in ("/", f"/runs/{ids[0]}"):
        text = shown(client, address).text
        assert "touches no query of test" in text and "not checked" not in text, address
    assert "checked: training data touches no query" in shown(client, f"/runs/{ids[0]}").text


def test_a_long_list_has_pages_and_odd_numbers_of_pages_are_answered() -> None:
    for number in range(3):
        make_run(home(), f"n{number}")
    _, client = open_window()
    for odd in ("0", "-1", "x", "99999999999999999999", "²", ""):
        assert "n0" in shown(client, f"/?page={odd}").text


def test_the_ledger_is_shown() -> None:
    run = make_run(home(), recipe_id="cafe")
    look(run.evaluation("trained", "s"), "trained", "fp1", run=run)
    freeze(home(), "cafe", run.run_id, "done")
    _, client = open_window()
    page = shown(client, "/ledger").text
    assert "recipe cafe frozen" in page and "s ffffffff" in page
    assert client.get("/api/ledger").json()["looks"][0]["looks"] == 1


def test_a_run_shows_training_scores_and_only_recorded_verdicts(tmp_path: Path) -> None:
    path = make_whole_run(home(), queries=30, steps=40)
    run_id = recorded(path, seed=3, hypothesis="It helps.")
    _, client = open_window()
    page = shown(client, f"/runs/{run_id}").text
    assert "It helps." in page and "seed 3" in page and "Learning curve" in page and "Evaluations as a table" in page
    assert "No verdicts here" in page and "p < " not in page
    with open_ledger(home()) as ledger:
        assert ledger.value("SELECT count(*) FROM comparisons") == 0  # looking at the page compares nothing
    trained, *others = (load_result(path / "evals" / model / "test") for model in ("trained", "bm25", "untrained"))
    compared, _ = compare_pairs([(trained, other) for other in others], "ndcg@10")
    page = shown(client, f"/runs/{run_id}").text
    assert "No verdicts here" not in page and "Is the difference real?" in page
    assert f"{compared[0].difference:+.3f}" in page and compared[0].verdict.word in page
    with open_ledger(home()) as ledger:
        assert ledger.value("SELECT count(*) FROM comparisons") == 2


def test_hostile_texts_stay_texts() -> None:
    path = make_whole_run(home(), queries=12, hostile=HOSTILE, steps=5)
    run_id = recorded(path, name=HOSTILE, hypothesis=HOSTILE)
    _, client = open_window()
    for address in ("/", f"/runs/{run_id}", f"/runs/{run_id}?export=1"):
        page = Page(client.get(address).text)
        assert "img" not in page.tags and "\x1b" not in page.text and "\u202e" not in page.text
        assert "{{ 7 * 7 }}" in page.text


def test_an_export_is_one_file_that_loads_and_runs_nothing() -> None:
    run_id = recorded(make_whole_run(home(), queries=12, steps=5))
    _, client = open_window()
    for address in ("/", "/ledger", f"/runs/{run_id}"):
        reply = client.get(f"{address}?export=1")
        page = Page(reply.text)
        assert "attachment" in reply.headers["content-disposition"] and "<script" not in reply.text
        assert "--paper" in reply.text and "link" not in set(page.tags) - {"link"} and "nav" not in page.tags
        assert [one for name, one in page.attributes if name == "src"] == []


@pytest.mark.parametrize("damage", ["parquet", "metrics", "recipe", "torn"])
def test_damage_stays_in_its_place(damage: str) -> None:
    path = make_whole_run(home(), queries=12, steps=5)
    run_id = recorded(path)
    result = path / "evals" / "trained" / "test"
    if damage == "parquet":
        (result / "per_query.parquet").write_bytes(b"PAR1 torn")
    elif damage == "metrics":
        (result / "metrics.json").write_text('{"model": "tra')
    elif damage == "recipe":
        (path / "recipe.yaml").write_bytes(b"\xff\xfe")
    else:
        with (path / EVENTS).open("ab") as stream:
            stream.write(b'{"event": "step", "step": 6, "lo\n{"event": "step", "step"')
    _, client = open_window()
    page = shown(client, f"/runs/{run_id}").text
    words = {"parquet": "is damaged", "metrics": "is damaged", "recipe": "cannot be read", "torn": "1 damaged line of"}
    assert words[damage] in page and "Learning curve" in page
    timing = client.get(f"/runs/{run_id}/live").headers["Server-Timing"]  # by which the page asks less often
    assert re.fullmatch(r"draw;dur=\d+\.\d", timing)


def test_a_run_that_was_deleted_shows_what_the_ledger_has() -> None:
    run = make_run(home(), "gone", hypothesis="It stays.")
    run_id = run.run_id
    window, client = open_window()
    assert "gone" in shown(client, f"/runs/{run_id}").text
    shutil.rmtree(run.path)
    page = shown(client, f"/runs/{run_id}").text
    assert "It stays." in page and "is gone" in page and "the ledger still has its records" in page
    assert "deleted" in shown(client, "/").text
    assert client.get(f"/runs/{run_id}/live").status_code == 404
    assert client.get(f"/api/runs/{run_id}/events").status_code == 404
    assert window.runs.find(run_id)["name"] == "gone"


def test_an_unknown_run_is_one_line() -> None:
    _, client = open_window()
    reply = client.get("/runs/none")
    assert reply.status_code == 404 and "the ledger has no run &#39;none&#39;" in reply.text
    assert client.get("/api/runs/none/events").json() == {
        "error": "the ledger has no run 'none'; the page Runs lists them"
    }


def test_a_home_that_cannot_be_written_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home(), "sealed")
    before = sorted(path.name for path in home().iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    _, client = open_window()
    assert "sealed" in shown(client, "/").text and "Looks" in shown(client, "/ledger").text
    assert sorted(path.name for path in home().iterdir()) == before


def test_new_records_appear_and_a_damaged_ledger_is_one_line() -> None:
    make_run(home(), "first")
    _, client = open_window()
    assert "second" not in shown(client, "/").text
    second = make_run(home(), "second")
    assert "second" in shown(client, "/").text
    (home() / "ledger.sqlite").write_bytes(b"SQLite format 3\x00" + b"x" * 200)
    second.update_manifest(status="finished", note=1)
    record_run(second)
    reply = client.get("/")
    assert reply.status_code == 500 and "gemma4vec runs rebuild" in reply.text
    assert client.get("/static/ui.css").status_code == 200


def test_a_run_that_nobody_trains_says_how_to_go_on() -> None:
    path = make_whole_run(home(), queries=12, steps=5, finished=False)
    run_id = recorded(path, status="started")
    _, client = open_window()
    assert f"gemma4vec train --resume {run_id}" in shown(client, f"/runs/{run_id}").text
    assert "stopped" in shown(client, "/").text


def test_static_files_are_a_table_and_small() -> None:
    import gzip

    _, client = open_window()
    sizes = {}
    for name, file in static_files().items():
        reply = client.get(f"/static/{name}")
        assert reply.content == file.read_bytes() and reply.headers["content-type"].startswith("text/")
        again = client.get(f"/static/{name}", headers={"If-None-Match": reply.headers["etag"]})
        assert again.status_code == 304
        sizes[name] = len(gzip.compress(file.read_bytes()))
    assert sum(sizes.values()) < 60_000, sizes
    assert client.get("/static/nothing.js").status_code == 404


def test_reply_of_the_api_has_no_nan() -> None:
    run = make_run(home())
    look(run.evaluation("trained", "s"), "trained", "f", value=0.5, run=run)
    _, client = open_window()
    json.loads(client.get("/api/runs").text, parse_constant=lambda name: pytest.fail(name))
    assert RunFolder(run.path).run_id == run.run_id
