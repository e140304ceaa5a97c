"""Failures, queries, geometry: the figures of the inspection, nothing sealed, filters in addresses, damage in place."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hostile_page import HOSTILE, Page
from open_window import ORIGIN, open_window
from planted_suite import PlantedModel, planted_suite
from starlette.testclient import TestClient

from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import load_suite, write_suite
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.files import cache, home
from gemma4vec.inspection.exposures import verdicts
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.inspection_files import load_columns, load_inspection
from gemma4vec.inspection.labels.judgments import load_judgments
from gemma4vec.inspection.saved.saved_slices import saved_slices
from gemma4vec.ledger.ledger import add
from gemma4vec.ledger.suite_access import contents_record
from gemma4vec.ledger.suite_halves import split_halves
from gemma4vec.text.prompts import Document
from gemma4vec.ui.content.query_list import Wanted, select_queries
from gemma4vec.ui.content.stored_inspections import StoredInspections


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one inspection and its suite, whose texts are hostile in places; and the cache of its steps."""
    folder = tmp_path_factory.mktemp("inspected")
    suite = planted_suite(140)
    suite.role = "dev"
    suite.queries = [f"{query} {HOSTILE}" if row % 8 == 0 else query for row, query in enumerate(suite.queries)]
    write_suite(folder / "suite", suite)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_HOME", str(folder / "runs"))
        patch.setenv("GEMMA4VEC_CACHE", str(folder / "cache"))
        inspect(
            Subject(PlantedModel(), "planted"),
            load_suite(folder / "suite"),
            folder / "runs" / "inspect" / "planted-model" / "planted",
            against=Subject(Bm25Model(), "bm25"),
            opened_as={"spec": str(folder / "suite"), "task": None, "mirror": None},
        )
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be changed by a test; the inspection's folder."""
    shutil.copytree(made / "runs", home(), dirs_exist_ok=True)
    shutil.copytree(made / "cache", cache(), dirs_exist_ok=True)
    return home() / "inspect" / "planted-model" / "planted"


def opened() -> tuple[TestClient, str]:
    _, client = open_window()
    return client, f"/inspect/{client.get('/api/inspect').json()[0]['key']}"


def test_slices_kinds_and_queries_are_those_of_the_inspection(copied: Path) -> None:
    client, place = opened()
    about, slices = load_inspection(copied)
    assert "planted-model" in Page(client.get("/inspect").text).text
    paired, absolute = (Page(client.get(f"{place}?view={view}").text).text for view in ("paired", "absolute"))
    assert "Slices, paired" in paired and "Slices, absolute" not in paired and "Slices, absolute" in absolute
    assert Page(client.get(place).text).text.count("Slices, paired") == 1  # paired is the default
    one = next(one for one in slices if one["view"] == "paired")
    assert (
        one["rule"] in paired and f"{one['gap']:+.3f}" in paired and f"gemma4vec inspect confirm {one['id']}" in paired
    )
    assert all(kind["name"] in paired for kind in about["kinds"])
    figures = Page(client.get(f"{place}/geometry").text).text
    assert all(one["name"] in figures for one in about["figures"]) and f"{about['figures'][0]['value']:.3f}" in figures


TOPIC = "topic is 9-token-current-item@1a2b3c4d5e6f"


def test_topics_have_their_words_and_statuses_are_plain_on_every_page(copied: Path) -> None:
    file = copied / "slices.json"
    stored = json.loads(file.read_text())
    slices = stored["slices"] if isinstance(stored, dict) else stored
    slices[0] |= {"rule": TOPIC, "words": f"the query's {TOPIC}"}
    file.write_text(json.dumps(stored))
    table = pq.read_table(copied / "queries.parquet")
    column = [TOPIC.removeprefix("topic is ")] * table.num_rows
    place_of = table.schema.get_field_index("topic")
    named = table.set_column(place_of, "topic", [column])
    pq.write_table(named, copied / "queries.parquet")
    client, place = opened()
    row = client.get(f"/api{place}?slice={slices[0]['id']}").json()["queries"][0]["row"]
    view = slices[0]["view"]
    for address in ("/inspect", f"{place}?view={view}", f"{place}/queries/{row}"):
        html = client.get(address).text
        text = Page(html).text
        assert "token, current, item" in text and "1a2b3c4d5e6f" not in text, address
        assert "proposed" not in text and "can show" not in text.lower(), address
    for address in ("/inspect", f"{place}?view={view}"):
        html = client.get(address).text
        assert f'title="{TOPIC}"' in html, address  # who needs the rule finds it
        assert '<abbr title="found among the open queries; nobody has asked' in html and "untested" in html, address
        assert "Half of a suite's queries are open" in Page(html).text, address


def test_filters_stand_in_the_address_and_agree_with_the_table(copied: Path) -> None:
    client, place = opened()
    columns, (_, slices) = load_columns(copied), load_inspection(copied)
    one = slices[0]
    found = client.get(f"/api{place}?slice={one['id']}").json()
    open_rows = [row for row, half in enumerate(columns["half"]) if half == "discovery"]
    assert found["total"] == one["n"] and all(columns["digits"][row["row"]] for row in found["queries"])
    by_rule = client.get(f"/api{place}", params={"rule": one["rule"]}).json()
    assert by_rule["queries"] == found["queries"]
    assert client.get(f"/api{place}").json()["total"] == len(open_rows)
    failed = client.get(f"/api{place}?outcome=failed").json()
    assert failed["total"] == load_inspection(copied)[0]["failures"]
    kind = client.get(f"/api{place}?kind=near_miss").json()
    assert kind["total"] == sum("near_miss" in columns["kinds"][row] for row in open_rows)
    first = columns["query_id"][open_rows[0]]
    assert client.get(f"/api{place}?q={first}").json()["queries"][0]["id"] == first
    worst = client.get(f"/api{place}?order=score").json()["queries"]
    assert [row["score"] for row in worst] == sorted(row["score"] for row in worst)
    page = client.get(f"{place}?slice={one['id']}&view=absolute").text
    assert f"slice={one['id']}" in page and "view=absolute" in page


@pytest.mark.parametrize(
    ("query", "line"),
    [("slice=none", "has no slice"), ("rule=drop+table", "rule"), ("rule=overlap+<=+x", ""), ("page=zero", "")],
)
def test_odd_filters_are_one_line(copied: Path, query: str, line: str) -> None:
    client, place = opened()
    reply = client.get(f"{place}?{query}")
    assert reply.status_code in (200, 404) and line in reply.text and "mistake" not in reply.text


def test_no_value_of_a_sealed_query_is_shown(copied: Path) -> None:
    client, place = opened()
    columns = load_columns(copied)
    sealed = [row for row, half in enumerate(columns["half"]) if half == "sealed"]
    shown = {row["row"] for page in (1, 2, 3) for row in client.get(f"/api{place}?page={page}").json()["queries"]}
    assert shown.isdisjoint(sealed) and len(shown) == len(columns["half"]) - len(sealed)
    for row in sealed[:5]:
        for address in (f"{place}/queries/{row}", f"/api{place}/queries/{row}"):
            reply = client.get(address)
            assert reply.status_code == 404 and "sealed half" in reply.text
    assert client.get(f"{place}/queries/100000").status_code == 404
    for odd in ("-1", "x", "1e3", "..%2f1", "99999999999999999999"):
        assert client.get(f"{place}/queries/{odd}").status_code == 404


@pytest.mark.parametrize("gone", [False, True])
def test_a_query_that_another_suite_seals_later_is_gone_from_an_open_window(
    copied: Path, made: Path, gone: bool
) -> None:
    client, place = opened()
    shown = [one["id"] for one in client.get(f"/api{place}").json()["queries"]]
    suite = load_suite(made / "suite")
    larger = replace(
        suite,
        name="larger",
        corpus_ids=[*suite.corpus_ids, "more"],
        corpus=[*suite.corpus, Document("one more document")],
    )
    if gone:  # its own texts: an id decides then, with what the ledger recorded of the suite
        shutil.move(made / "suite", made / "moved")
        client, place = opened()
        add(home(), contents_record(suite))
        assert [one["id"] for one in client.get(f"/api{place}").json()["queries"]] == shown
    try:
        add(home(), contents_record(larger))
        left = [one["id"] for one in client.get(f"/api{place}").json()["queries"]]
    finally:
        if gone:
            shutil.move(made / "moved", made / "suite")
    sealed_N = split_halves(larger.fingerprint, larger.query_ids)
    assert sealed_N is not None
    sealed = {key for key, one in zip(larger.query_ids, sealed_N.tolist(), strict=True) if one}
    assert left == [key for key in shown if key not in sealed] and 0 < len(left) < len(shown)


def test_a_query_shows_both_rankings_its_right_documents_and_words_in_common(copied: Path, made: Path) -> None:
    client, place = opened()
    suite = load_suite(made / "suite")
    row = next(one["row"] for one in client.get(f"/api{place}?outcome=found").json()["queries"] if one["row"] % 4)
    found = client.get(f"/api{place}/queries/{row}").json()
    assert found["query"] == suite.queries[row] and found["rank"] == 1
    model, other = found["sides"]
    assert (model["name"], other["name"]) == ("planted-model", "bm25")
    assert [one["rank"] for one in model["documents"]] == list(range(1, 11))
    assert model["documents"][0]["id"] == f"d{row}" == found["right"][0]["id"] and model["documents"][0]["grade"] == 1
    assert model["documents"][1]["grade"] is None
    marked = {text for text, is_word in model["documents"][0]["pieces"] if is_word}
    assert marked == set(suite.queries[row].split()[:2])
    documents = {one["doc_id"]: one for one in pq.read_table(copied / "documents.parquet").to_pylist()}
    assert model["documents"][1]["occurrences"] == documents[model["documents"][1]["id"]]["k_occurrence"]
    page = Page(client.get(f"{place}/queries/{row}?outcome=found").text)
    assert "mark" in page.tags and 'rel="next"' in client.get(f"{place}/queries/{row}?outcome=found").text


def test_hostile_texts_stay_texts(copied: Path) -> None:
    client, place = opened()
    row = next(one["row"] for one in client.get(f"/api{place}").json()["queries"] if one["row"] % 8 == 0)
    for address in (place, f"{place}/queries/{row}", f"{place}/queries/{row}?export=1"):
        page = Page(client.get(address).text)
        assert "img" not in page.tags and "\x1b" not in page.text and "{{ 7 * 7 }}" in page.text


def test_steps_that_are_gone_leave_the_first_document(copied: Path) -> None:
    client, place = opened()
    shutil.rmtree(cache())
    row = client.get(f"/api{place}").json()["queries"][0]["row"]
    found = client.get(f"/api{place}/queries/{row}").json()
    assert len(found["sides"][0]["documents"]) == 1 and "gone from the cache" in found["sides"][0]["note"]
    assert found["sides"][1]["documents"] == [] and found["right"]


@pytest.mark.parametrize("damage", ["queries", "documents", "judged", "slices", "suite", "changed"])
def test_damage_stays_in_its_place(copied: Path, damage: str) -> None:
    client, place = opened()
    row = client.get(f"/api{place}").json()["queries"][0]["row"]
    about = json.loads((copied / "inspection.json").read_text())
    if damage == "slices":
        (copied / "slices.json").write_text("[{")
    elif damage == "suite":
        about["suite"]["open"]["spec"] = "no-such-suite"
        (copied / "inspection.json").write_text(json.dumps(about))
    elif damage == "changed":
        about["suite"]["fingerprint"] = "0" * 64
        (copied / "inspection.json").write_text(json.dumps(about))
    else:
        (copied / f"{damage}.parquet").write_bytes(b"PAR1 torn")
    client, _ = opened()
    listed, page = client.get("/inspect"), client.get(place)
    assert listed.status_code == 200
    if damage == "slices":
        assert "is damaged" in listed.text and page.status_code == 404 and "inspect again" in page.text
        return
    assert page.status_code == 200 and "Kinds of failure" in page.text
    one = client.get(f"{place}/queries/{row}")
    if damage == "queries":
        assert "is damaged" in page.text and one.status_code == 404
    else:
        assert one.status_code == 200
        assert ("ids are shown" in page.text) == (damage in ("suite", "changed"))


def test_a_hundred_thousand_queries_are_filtered_by_rows(copied: Path) -> None:
    """One page of a long list: the selection is of plain rows, without texts of documents."""
    found = StoredInspections(home()).all()[0]
    small = load_columns(copied)
    times = 100_000 // len(small["half"])
    columns = {name: values * times for name, values in small.items()}
    rows = select_queries(found, columns, Wanted(outcome="failed", order="id"))
    assert len(rows) == times * found.about["failures"]


def test_a_long_list_is_selected_once_and_its_pages_are_slices_of_it(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, calls = StoredInspections(home()), []
    one = found.all()[0]

    def select(rows: list[int]) -> list[int]:
        calls.append(rows)
        return rows

    assert [found.selected(one, "a", lambda: select([1])), found.selected(one, "a", lambda: select([2]))] == [[1], [1]]
    assert found.selected(one, "b", lambda: select([3])) == [3]
    (copied / "queries.parquet").touch()
    assert found.selected(one, "a", lambda: select([4])) == [4] and calls == [[1], [3], [4]]
    client, place = opened()
    monkeypatch.setattr("gemma4vec.ui.pages.failures.SHOWN", 20)
    html = client.get(place).text
    total = client.get(f"/api{place}").json()["total"]
    assert f'data-total="{total}"' in html and f'data-list="/api{place}?' in html and "next</a>" in html
    pages = [client.get(f"/api{place}?page={number}").json()["queries"] for number in range(1, total // 20 + 2)]
    rows = [row["row"] for page in pages for row in page]
    assert len(rows) == total == len(set(rows))
    shown = next(row for page in pages for row in page if row["row"] % 8 == 0)["shown"]
    assert "\x1b" not in shown and "\u202e" not in shown and len(shown) <= 160
    assert "data-list" not in client.get(f"{place}?export=1").text


@pytest.mark.parametrize("damage", ["", "torn", "fields"])
def test_layers_and_topics_have_their_charts_and_tables(copied: Path, damage: str) -> None:
    layer = {"ndcg@10": 0.25, "minus_last": -0.05, "low": -0.08, "high": -0.02, "effective_rank": 12.0}
    layers = [{**layer, "layer": place, "p_holm": 0.01, "cka_with_last": 0.5} for place in (0, 1)]
    about = {"best": 1, "best_score": 0.25, "best_held_out": 0.2, "queries": 70, "documents": 100, "pooling": "mean"}
    topic = {"cluster": 0, "words": f"ship, harbor {HOSTILE}", "n": 12, "n_sealed": 9, "inside": 0.1, "outside": 0.2}
    few = {**topic, "cluster": 1, "words": "few", "inside": None, "outside": None, "gap": None, "p_max_t": None}
    clusters = [
        {**topic, "gap": -0.1, "p_max_t": 0.04, "rule": "topic is 0-ship@1a2b"},
        {**few, "rule": "topic is 1-few@1a2b"},
    ]
    client, place = opened()
    assert "--layers" in Page(client.get(f"{place}/geometry").text).text
    stored = {**about, "layers": [{"layer": "x"}] if damage == "fields" else layers, "note": ""}
    (copied / "layers.json").write_text("[" if damage == "torn" else json.dumps(stored))
    (copied / "clusters.json").write_text(json.dumps({"clusters": clusters, "tested": 1, "queries": {}, "note": ""}))
    html = client.get(f"{place}/geometry").text
    page = Page(html)
    assert "ship, harbor" in page.text and "-0.100" in page.text and "too few" in page.text and "img" not in page.tags
    assert ("is damaged" in page.text) == bool(damage) and ("0.250" in page.text) == (not damage)
    assert html.count("<svg") == (4 if damage else 6)  # wide and narrow: cut vectors, topics, layers
    assert "Fewer dimensions" in page.text and "centered binary" in page.text


def test_no_inspection_says_how_to_make_one() -> None:
    _, client = open_window()
    assert "gemma4vec inspect RUN --suite DEV" in Page(client.get("/inspect").text).text
    assert client.get("/inspect/none").status_code == 404


def test_a_judgment_is_kept_beside_the_suite(copied: Path, made: Path) -> None:
    client, place = opened()
    suite = load_suite(made / "suite")
    row = client.get(f"/api{place}").json()["queries"][0]["row"]
    address, query = f"{place}/queries/{row}/judge", suite.query_ids[row]
    document = client.get(f"/api{place}/queries/{row}").json()["sides"][0]["documents"][2]["id"]
    fields = {"document": document, "grade": "1", "place": "d1-3"}
    reply = client.post(f"{address}?outcome=failed", data=fields, headers=ORIGIN, follow_redirects=False)
    assert reply.headers["location"] == f"{place}/queries/{row}?outcome=failed#d1-3"
    assert load_judgments(suite) == {(query, document): 1}
    page = Page(client.get(f"{place}/queries/{row}").text)
    assert "verdict: right" in page.text and client.get(f"/api{place}/queries/{row}").json()["verdicts"] == {
        document: 1
    }
    client.post(address, data={**fields, "grade": "0"}, headers=ORIGIN)
    assert load_judgments(suite) == {(query, document): 0}
    for odd in ({"grade": "7"}, {"grade": ""}, {"document": "none"}, {"document": "../x"}):
        assert client.post(address, data={**fields, **odd}, headers=ORIGIN).status_code == 400
    sealed = load_columns(copied)["half"].index("sealed")
    assert client.post(f"{place}/queries/{sealed}/judge", data=fields, headers=ORIGIN).status_code == 400
    _, reading = open_window(read_only=True)
    assert reading.post(address, data=fields, headers=ORIGIN).status_code == 403
    assert 'name="grade"' not in reading.get(f"{place}/queries/{row}").text
    assert load_judgments(suite) == {(query, document): 0}


def test_a_rule_is_saved_as_a_slice_and_confirmed_once(copied: Path) -> None:
    client, place = opened()
    rule = {"rule": "query_words <= 1000", "view": "paired"}
    page = client.get(place, params={"rule": rule["rule"], "view": "paired"}).text
    assert "Save this rule as a slice" in page and f'action="{place}/slices"' in page
    reply = client.post(f"{place}/slices", data=rule, headers=ORIGIN, follow_redirects=False)
    assert reply.status_code == 400 and "leaves 0" in reply.text
    rule = {"rule": "digits is no", "view": "absolute"}
    first, again = (client.post(f"{place}/slices", data=rule, headers=ORIGIN, follow_redirects=False) for _ in "ab")
    assert first.headers["location"] == again.headers["location"]
    (saved,) = saved_slices(load_inspection(copied)[0])
    assert first.headers["location"] == f"{place}?view=absolute&slice={saved['id']}#slices"
    columns = load_columns(copied)
    scores = [
        (columns["digits"][row], columns["ndcg@10"][row])
        for row, half in enumerate(columns["half"])
        if half == "discovery"
    ]
    inside, outside = ([score for digits, score in scores if digits is flag] for flag in (False, True))
    assert saved["n"] == len(inside) and saved["gap"] == pytest.approx(
        sum(inside) / len(inside) - sum(outside) / len(outside)
    )
    shown = Page(client.get(first.headers["location"]).text).text
    assert "Saved by people" in shown and "digits is no" in shown and f"{saved['gap']:+.3f}" in shown
    assert client.get(f"/api{place}?slice={saved['id']}").json()["total"] == len(inside)
    # The inspection's own slice is opened by the same function as the command's, and is spent then.
    one = next(one for one in load_inspection(copied)[1] if one["view"] == "paired")
    asked = {"slice": one["id"], "sure": "1"}
    assert client.post(f"{place}/confirm", data={"slice": one["id"]}, headers=ORIGIN).status_code == 400
    reply = client.post(f"{place}/confirm", data=asked, headers=ORIGIN, follow_redirects=False)
    assert reply.status_code == 303 and one["id"] in reply.headers["location"]
    verdict = verdicts(load_inspection(copied)[0]["suite"]["fingerprint"])[one["id"]]
    shown = Page(client.get(reply.headers["location"]).text).text
    assert verdict.word == "confirmed" and "On the sealed half" in shown
    assert f"{verdict.body['difference']:+.3f}" in shown and verdict.body["family"] == 1
    twice = client.post(f"{place}/confirm", data=asked, headers=ORIGIN)
    assert twice.status_code == 400 and "is spent" in twice.text
    assert "Opened slices" in Page(client.get("/ledger").text).text and "Saved slices" in client.get("/ledger").text
    reply = client.post(f"{place}/confirm", data={"slice": saved["id"], "sure": "1"}, headers=ORIGIN)
    assert verdicts(load_inspection(copied)[0]["suite"]["fingerprint"])[saved["id"]].body["family"] == 2
    assert confirmed_by_command(saved["id"]) == 2


def confirmed_by_command(name: str) -> int:
    """The exit code of the command on a slice that is spent."""
    return execute(["inspect", "confirm", name])


def test_odd_slices_are_refused_and_a_read_only_window_has_no_forms(copied: Path) -> None:
    client, place = opened()
    for odd in ({"rule": "drop table"}, {"rule": ""}, {"view": "../x"}, {"view": ""}, {"rule": "nothing <= 3"}):
        fields = {"rule": "digits is yes", "view": "paired", **odd}
        assert client.post(f"{place}/slices", data=fields, headers=ORIGIN).status_code == 400, odd
    for odd in ("", "none", "digits is yes", "../x"):
        assert client.post(f"{place}/confirm", data={"slice": odd, "sure": "1"}, headers=ORIGIN).status_code == 400
    assert saved_slices(load_inspection(copied)[0]) == [] and "no inspection" not in client.get(place).text
    _, reading = open_window(read_only=True)
    page = reading.get(f"{place}?rule=digits+is+yes").text
    assert "<form method" in page and 'method="post"' not in page
    fields = {"rule": "digits is yes", "view": "paired"}
    assert reading.post(f"{place}/slices", data=fields, headers=ORIGIN).status_code == 403
    assert reading.post(f"{place}/confirm", data={"slice": "x", "sure": "1"}, headers=ORIGIN).status_code == 403


def test_a_model_that_is_no_listed_run_is_not_opened(copied: Path) -> None:
    client, place = opened()
    shutil.rmtree(cache())
    one = next(one for one in load_inspection(copied)[1] if one["view"] == "paired")
    reply = client.post(f"{place}/confirm", data={"slice": one["id"], "sure": "1"}, headers=ORIGIN)
    assert reply.status_code == 400 and "is no listed run" in reply.text
