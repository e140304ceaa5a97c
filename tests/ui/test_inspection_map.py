"""The map of an inspection: its points are those of the file, its lasso a list and rules, nothing sealed is shown."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hostile_page import Page
from open_window import ORIGIN, open_window
from planted_suite import PlantedModel, planted_suite
from starlette.testclient import TestClient

from gemma4vec.data.suites.retrieval import load_suite, write_suite
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.files import home
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject, Wanted
from gemma4vec.inspection.inspection_files import load_columns, load_inspection
from gemma4vec.inspection.saved.saved_slices import saved_slices
from gemma4vec.inspection.topics.map import DOCUMENT, read_map


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two inspections of one suite, with maps of main axes."""
    folder = tmp_path_factory.mktemp("mapped")
    suite = planted_suite(140)
    suite.role = "dev"
    write_suite(folder / "suite", suite)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_HOME", str(folder / "runs"))
        patch.setenv("GEMMA4VEC_CACHE", str(folder / "cache"))
        patch.setattr("gemma4vec.inspection.topics.map._open_tsne", lambda: None)
        for name in ("one", "two"):
            inspect(
                Subject(PlantedModel(name), name),
                load_suite(folder / "suite"),
                folder / "runs" / "inspect" / name / "planted",
                against=Subject(Bm25Model(), "bm25"),
                opened_as={"spec": str(folder / "suite"), "task": None, "mirror": None},
                wanted=Wanted(map=True),
                permutations=200,
            )
    return folder


@pytest.fixture
def copied(made: Path) -> Path:
    """The same, to be changed by a test; the first inspection's folder."""
    shutil.copytree(made / "runs", home(), dirs_exist_ok=True)
    return home() / "inspect" / "one" / "planted"


def opened(folder: Path) -> tuple[TestClient, str, str]:
    """A client, and the addresses of the inspection in a folder and of the other one."""
    _, client = open_window()
    keys = {one["folder"]: one["key"] for one in client.get("/api/inspect").json()}
    own = keys.pop(str(folder))
    return client, f"/inspect/{own}", next(iter(keys.values()))


def read(data: bytes) -> tuple[list[str], dict[str, np.ndarray]]:
    length = int.from_bytes(data[4:8], "little")
    about = json.loads(data[8 : 8 + length])
    n, rest = about["count"], data[8 + length :]
    columns = {"x": ("<f4", 0), "y": ("<f4", 4 * n), "row": ("<u4", 8 * n), "group": ("u1", 12 * n)}
    return about["groups"], {name: np.frombuffer(rest, kind, n, at) for name, (kind, at) in columns.items()}


def test_points_are_those_of_the_file_in_the_groups_of_the_color(copied: Path) -> None:
    client, place, _ = opened(copied)
    header, stored = read_map(copied / "map.bin")
    columns = load_columns(copied)
    n = len(columns["half"])
    for color in ("kind", "outcome", "topic", "difference", "rule"):
        asked = {"color": color, "rule": "digits is yes"}
        names, points = read(client.get(f"/api{place}/map/points", params=asked).content)
        assert len(points["x"]) == header["points"] and set(points["group"].tolist()) == set(range(len(names)))
        order = np.argsort(points["x"], kind="stable")
        assert (order == np.argsort(stored["x"], kind="stable")).all()
        is_document = stored["kind"] == DOCUMENT
        assert (points["row"] == np.where(is_document, stored["row"] + n, stored["row"])).all()
        shown = [names[group] for group in points["group"].tolist()]
        assert all((one == "documents") == flag for one, flag in zip(shown, is_document.tolist(), strict=True))
        for name, row in zip(shown, points["row"].tolist(), strict=True):
            if row >= n:
                continue
            is_open = columns["half"][row] == "discovery"
            rank, gap = columns["gold_rank"][row], (columns["ndcg@10"][row] or 0) - (columns["against"][row] or 0)
            sign = "worse" if gap < 0 else "better" if gap > 0 else "equal"
            expected = {
                "kind": "queries" if is_open else "sealed queries",
                "outcome": ("failed" if rank is None or rank > 10 else "found") if is_open else "sealed queries",
                "difference": sign if is_open else "sealed queries",
                "rule": "in the slice" if columns["digits"][row] else "not in it",
                "topic": name,
            }
            assert name == expected[color], (color, row)


def test_a_lasso_is_a_list_and_rules_that_are_saved(copied: Path) -> None:
    client, place, _ = opened(copied)
    columns = load_columns(copied)
    whole = "-1,-1,2,-1,2,2,-1,2"
    html = client.get(f"{place}/map", params={"lasso": whole}).text
    page = Page(html).text
    rows = [row for row, half in enumerate(columns["half"]) if half == "discovery"]
    assert f"{len(rows)} queries of the open half" in page and "Rules for this selection" in page
    assert f"1 to 50 of {len(rows)}" in page and html.count('value="paired"') >= 1
    assert "keeps" in page and "10 nearest neighbors" in page and '<input name="rule" value=""' in html
    sealed = [row for row, half in enumerate(columns["half"]) if half != "discovery"]
    assert not any(f'/queries/{row}"' in html for row in sealed)
    none = Page(client.get(f"{place}/map", params={"lasso": "5,5,6,5,6,6"}).text).text
    assert "0 queries of the open half" in none and "No rule on the stored attributes" in none
    rule = {"rule": "digits is yes", "view": "paired"}
    assert client.post(f"{place}/slices", data=rule, headers=ORIGIN, follow_redirects=False).status_code == 303
    known = [*load_inspection(copied)[1], *saved_slices(load_inspection(copied)[0])]
    assert any(one["rule"] == "digits is yes" and one["view"] == "paired" for one in known)


def test_two_maps_of_one_suite_are_linked(copied: Path) -> None:
    client, place, other = opened(copied)
    html = client.get(f"{place}/map", params={"with": other, "of": "2", "lasso": "-1,-1,2,-1,2,2,-1,2"}).text
    assert html.count("data-linked") == 2 and html.count('data-lasso="-1') == 1 and f"/api/inspect/{other}/map" in html
    assert client.get(f"{place}/map", params={"with": "none"}).status_code == 404


def test_texts_of_points_leave_sealed_queries_out(copied: Path, made: Path) -> None:
    client, place, _ = opened(copied)
    suite, columns = load_suite(made / "suite"), load_columns(copied)
    n = len(columns["half"])
    shown, hidden = columns["half"].index("discovery"), columns["half"].index("sealed")
    found = client.get(f"/api{place}/map/texts?rows={shown},{hidden},{n + 3}").json()
    assert found[0]["text"] == suite.queries[shown] and found[2]["id"] == suite.corpus_ids[3]
    assert found[1] == {"row": hidden, "id": "a sealed query", "text": ""}
    for odd in ("", "-1", str(n + len(suite.corpus)), "x", "1e3"):
        assert client.get(f"/api{place}/map/texts", params={"rows": odd}).status_code == 404


@pytest.mark.parametrize("damage", ["torn", "empty", "huge", "rows", "gone"])
def test_a_damaged_map_is_one_line_and_the_inspection_is_shown(copied: Path, damage: str) -> None:
    file = copied / "map.bin"
    data = file.read_bytes()
    header, _ = read_map(file)
    if damage == "gone":
        file.unlink()
    elif damage == "rows":
        start = 4 + int.from_bytes(data[:4], "little") + 8 * header["points"]
        file.write_bytes(data[:start] + b"\xff" * (4 * header["points"]) + data[start + 4 * header["points"] :])
    else:
        file.write_bytes({"torn": data[:200], "empty": b"", "huge": b"\xff" * 400}[damage])
    client, place, _ = opened(copied)
    page = client.get(f"{place}/map")
    if damage == "gone":
        assert page.status_code == 200 and "gemma4vec inspect" in page.text
    else:
        assert page.status_code == 404 and "is damaged" in page.text
    points = client.get(f"/api{place}/map/points")
    assert points.status_code == 404 and "mistake" not in points.text
    assert client.get(place).status_code == 200


def test_odd_requests_are_one_line(copied: Path) -> None:
    client, place, _ = opened(copied)
    for odd in ({"color": "none"}, {"rule": "drop table"}, {"group": "none"}, {"lasso": "1"}, {"color": "rule"}):
        for address in (f"{place}/map", f"/api{place}/map/points")[: 1 if {"group", "lasso"} & set(odd) else 2]:
            reply = client.get(address, params=odd)
            assert reply.status_code == 404 and "mistake" not in reply.text, (address, odd)
