"""From a comparison to the failures of each run: stored inspections by suite, else the command; names before ids."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from compared_runs import make_runs
from hostile_page import Page
from open_window import ORIGIN, open_window
from planted_suite import PlantedModel
from starlette.testclient import TestClient

from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.files import home
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject
from gemma4vec.report.run_page import write_report
from gemma4vec.text.counted import counted


def compared(names: dict[str, float], role: str | None = "dev") -> tuple[TestClient, list[str], str]:
    """A window, the ids of compared runs and the address of their comparison."""
    ids = make_runs(home(), names, role=role)
    _, client = open_window()
    client.post("/compare", data={"run": ids}, headers=ORIGIN)
    return client, ids, "/compare?" + "&".join(f"run={one}" for one in ids)


def inspected(run_id: str, suite: Path, out: Path | None = None) -> str:
    """Inspect a model that goes by a run's id, as `gemma4vec inspect RUN` does; returns the key of its page."""
    model = PlantedModel(run_id)
    model.name = run_id
    out = out or home() / run_id / "inspect" / "test"
    inspect(
        Subject(model, run_id),
        load_suite(suite),
        out,
        against=Subject(Bm25Model(), "bm25"),
        opened_as={"spec": str(suite), "task": None, "mirror": None},
        permutations=100,
    )
    _, client = open_window()
    return next(one["key"] for one in client.get("/api/inspect").json() if one["folder"] == str(out))


def part(client: TestClient, address: str) -> str:
    """The part of the comparison that says where each run fails, its words in one line."""
    page = client.get(address).text
    return " ".join(page[page.index('id="failures"') :].split("</section>")[0].split())


def test_a_comparison_leads_to_stored_inspections_else_to_the_command() -> None:
    client, ids, address = compared({"base": 0.3, "better": 0.6})
    suite = home() / "data" / "pycode" / "test"
    found = part(client, address)
    assert (
        all(f"gemma4vec inspect {one} --suite {suite.resolve()}" in found for one in ids) and "/inspect/" not in found
    )
    key = inspected(ids[1], suite)
    found = part(client, address)
    assert f'href="/inspect/{key}"' in found and f"gemma4vec inspect {ids[0]}" in found
    assert f"gemma4vec inspect {ids[1]}" not in found and "of 40" not in found  # failures are of the open half
    about = next(one["about"] for one in client.get("/api/inspect").json() if one["key"] == key)
    assert counted(about["failures"], "failure") in found
    assert counted(about["halves"]["discovery"], "query", "queries") in found
    assert client.get(f"/inspect/{key}").status_code == 200


def test_the_worse_of_two_runs_is_inspected_beside_the_better_one() -> None:
    client, ids, address = compared({"base": 0.3, "better": 0.6})
    suite = home() / "data" / "pycode" / "test"
    found = part(client, address)
    assert '<b class="letter">A</b> base beside <b class="letter">B</b> better' in found
    assert f"gemma4vec inspect {ids[0]} --suite {suite.resolve()} --against {ids[1]}" in found
    model, other = PlantedModel(ids[0]), PlantedModel(ids[1], constant=True)
    model.name, other.name = ids
    out = home() / ids[0] / "inspect" / "beside"
    inspect(Subject(model, ids[0]), load_suite(suite), out, against=Subject(other, ids[1]), permutations=100)
    found = part(client, address)
    assert f"--against {ids[1]}" not in found and 'against <b class="letter">B</b> better' in found
    ids = make_runs(home(), {"a": 0.3, "b": 0.4, "c": 0.5}, queries=4)
    client.post("/compare", data={"run": ids}, headers=ORIGIN)
    page = client.get("/compare?" + "&".join(f"run={one}" for one in ids)).text
    assert " beside " not in page.split('id="failures"')[1].split("</section>")[0]


def test_an_inspection_of_other_contents_or_another_run_is_no_link(tmp_path: Path) -> None:
    client, ids, address = compared({"base": 0.3, "better": 0.6})
    other = tmp_path / "other"
    shutil.copytree(home() / "data" / "pycode" / "test", other)
    lines = (other / "queries.jsonl").read_text().splitlines()
    (other / "queries.jsonl").write_text("\n".join([*lines[:-1], lines[-1].replace("shortest", "longest")]) + "\n")
    inspected(ids[0], other)
    inspected("foreign", home() / "data" / "pycode" / "test", home() / "inspect" / "foreign" / "test")
    assert "/inspect/" not in part(client, address)


@pytest.mark.parametrize("role", ["final", None])
def test_no_command_looks_at_failures_of_a_suite_that_is_not_for_looking(role: str | None) -> None:
    client, _, address = compared({"base": 0.3, "better": 0.6}, role)
    found = part(client, address)
    assert "gemma4vec inspect" not in found and "shown of dev suites alone" in found


def test_texts_of_flipped_queries_come_from_an_inspection_where_no_run_says_where_they_are() -> None:
    client, ids, address = compared({"base": 0.3, "better": 0.6})
    for one in ids:
        file = home() / one / "manifest.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "suites": {}}))
    page = client.get(address).text
    assert "so ids are shown" in page and "Return the shortest path number" not in page
    assert "--suite DIR" in page and "DIR is the folder that test is in" in page
    inspected(ids[1], home() / "data" / "pycode" / "test")
    page = client.get(address).text
    assert "so ids are shown" not in page and "Return the shortest path number" in page
    assert f"gemma4vec inspect {ids[0]} --suite {home() / 'data' / 'pycode' / 'test'}" in page


def test_names_of_runs_stand_before_their_ids() -> None:
    client, ids, address = compared({"base": 0.3, "better": 0.6})
    key = inspected(ids[1], home() / "data" / "pycode" / "test")
    for place in (f"/inspect/{key}", f"/inspect/{key}/geometry", f"/inspect/{key}/map", address, f"/runs/{ids[1]}"):
        reply = client.get(place).text
        head = reply.split("<title>")[1].split("</title>")[0] + reply.split("<h1>")[1].split("</h1>")[0]
        assert "better" in head and ids[1] not in head, place
    file = home() / ids[1] / "inspect" / "test" / "inspection.json"
    about = json.loads(file.read_text())
    about["advice"] = [{"what": f"join the ranking with {ids[1]}'s", "figure": f"{ids[1]} finds more", "weight": 1.0}]
    file.write_text(json.dumps({**about, "notes": [f"{ids[1]} minus bm25"]}))
    text = Page(client.get(f"/inspect/{key}").text).text
    assert f"nDCG@10 of {ids[1]}" not in text and "better minus bm25" in text
    assert "Join the ranking with better's (better finds more)" in text
    for place in ("/inspect", f"/inspect/{key}", address):
        assert f'run-id">{ids[1]}<' in client.get(place).text or f'">{ids[1]}</a>' in client.get(place).text, place


def test_runs_of_one_name_have_the_ends_of_their_ids() -> None:
    ids = make_runs(home(), {"same": 0.3}, queries=4) + make_runs(home(), {"same": 0.6, "other": 0.5}, queries=4)
    window, _ = open_window()
    assert [window.runs.name_of(one) for one in ids] == [f"same {ids[0][-4:]}", f"same {ids[1][-4:]}", "other"]
    assert window.runs.name_of("bm25") == "bm25"


def test_a_query_in_a_known_language_says_so_and_an_unsure_one_has_none() -> None:
    client, ids, _ = compared({"base": 0.3, "better": 0.6})
    key = inspected(ids[1], home() / "data" / "pycode" / "test")
    file = home() / ids[1] / "inspect" / "test" / "queries.parquet"
    table = pq.read_table(file)
    rows = [row for row, half in enumerate(table["half"].to_pylist()) if half == "discovery"][:3]
    words: list[str | None] = ["en"] * table.num_rows
    words[rows[0]], words[rows[1]], words[rows[2]] = "de", "und", '"><b>'
    pq.write_table(table.set_column(table.schema.get_field_index("language"), "language", [words]), file)
    pages = [client.get(f"/inspect/{key}/queries/{row}").text for row in rows]
    assert '<h1 lang="de">' in pages[0]
    assert all("<h1>" in page for page in pages[1:]) and ">und<" not in pages[1] and ">unsure<" in pages[1]
    listed = client.get(f"/api/inspect/{key}").json()["queries"]
    assert {one["language"] for one in listed if one["row"] in rows} == {"de", None}
    assert 'lang="de"' in client.get(f"/inspect/{key}").text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 queries"), (1, "1 query"), (2, "2 queries"), (1000, "1,000 queries")]
)
def test_a_number_has_its_noun(number: int, text: str) -> None:
    assert counted(number, "query", "queries") == text
    assert counted(number, "vector") == text.replace("queries", "vectors").replace("query", "vector")


def test_texts_are_found_where_the_window_starts_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_runs(home(), {"base": 0.3})
    monkeypatch.chdir(home() / "data" / "pycode")
    key = inspected("near", Path("test"), home() / "inspect" / "near" / "test")
    (tmp_path / "far").mkdir()
    monkeypatch.chdir(tmp_path / "far")
    _, client = open_window()
    page = client.get(f"/inspect/{key}").text
    assert "so ids are shown" not in page and "Return the shortest path number" in page


def test_a_score_that_is_no_number_has_a_dash_and_keeps_the_order_of_the_others() -> None:
    _, ids, _ = compared({"base": 0.3, "better": 0.6})
    key = inspected(ids[1], home() / "data" / "pycode" / "test")
    file = home() / ids[1] / "inspect" / "test" / "queries.parquet"
    table = pq.read_table(file)
    scores = table["ndcg@10"].to_pylist()
    rows = [row for row, half in enumerate(table["half"].to_pylist()) if half == "discovery"]
    scores = [float(row) if row in rows else None for row in range(len(scores))]
    scores[rows[1]] = float("nan")
    pq.write_table(table.set_column(table.schema.get_field_index("ndcg@10"), "ndcg@10", [scores]), file)
    _, client = open_window()
    listed = client.get(f"/api/inspect/{key}?order=score").json()["queries"]
    known = [one["score"] for one in listed if one["row"] != rows[1]]
    assert known == sorted(known) and next(one for one in listed if one["row"] == rows[1])["score"] is None
    for place in (f"/inspect/{key}", f"/inspect/{key}/queries/{rows[1]}"):
        assert "nan" not in Page(client.get(place).text).text.lower()


def opened_by(ids: list[str], spec: Path, mirror: Path | None = None) -> None:
    """Results that say where their suite is, of runs whose manifests do not."""
    for one in ids:
        manifest, result = home() / one / "manifest.json", home() / one / "evals" / "trained" / "test" / "metrics.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "suites": {}}))
        value = json.loads(result.read_text())
        value["settings"]["opened"] = {"spec": str(spec), "task": None, "mirror": str(mirror) if mirror else None}
        result.write_text(json.dumps(value))


def test_texts_are_where_the_evaluation_had_them_from(tmp_path: Path) -> None:
    client, ids, address = compared({"base": 0.3, "better": 0.6})
    suite = home() / "data" / "pycode" / "test"
    opened_by(ids, suite, tmp_path)
    page = client.get(address).text
    assert "Return the shortest path number" in page and "so ids are shown" not in page
    assert f"gemma4vec inspect {ids[0]} --suite {suite} --mirror {tmp_path}" in page and "--suite DIR" not in page
    suite.rename(tmp_path / "elsewhere")
    _, client = open_window()
    page = client.get(address).text
    assert f"texts are gone, so ids are shown ({suite}: no such suite folder" in page
    assert "Return the shortest path number" not in page


def test_the_report_finds_the_texts_where_the_evaluation_had_them_from(tmp_path: Path) -> None:
    _, ids, _ = compared({"base": 0.3, "better": 0.6})
    opened_by(ids, home() / "data" / "pycode" / "test")
    assert "Return the shortest path number" in write_report(home() / ids[1], tmp_path / "page.html").read_text()
    opened_by(ids, tmp_path / "nowhere")
    page = write_report(home() / ids[1], tmp_path / "page.html").read_text()
    assert "Return the shortest path number" not in page and f"{tmp_path / 'nowhere'}: no such suite folder" in page
