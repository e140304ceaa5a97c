"""The map: its file holds every document once, its groups and texts are the index's, and it says what it keeps."""

import json
import struct

import numpy as np
from fake_embedder import FakeEmbedder
from hostile_page import HOSTILE, Page
from ledger_samples import make_run
from open_window import open_window

from gemma4vec.files import home
from gemma4vec.inspection.geometry.plane import inside_polygon, kept_neighbors, principal_plane
from gemma4vec.serving.search.documents import IndexedDocument
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.ui.content.map_points import group_documents, make_map


def documents(count: int = 40) -> list[IndexedDocument]:
    return [IndexedDocument(f"package{row % 3}/m.py:f{row}", f"def f{row}(): pass") for row in range(count)]


def make_index(found: list[IndexedDocument]) -> tuple[str, SearchIndex]:
    run = make_run(home(), "mapped")
    run.model.mkdir()
    return f"{run.run_id}/test", SearchIndex.build(run.path / "index" / "test", found, FakeEmbedder())


def test_the_file_has_every_document_once_where_the_plane_has_it() -> None:
    _, index = make_index(documents())
    made = make_map(index)
    (length,) = struct.unpack("<I", made.data[4:8])
    about = json.loads(made.data[8 : 8 + length])
    assert made.data[:4] == b"G4VM" and length % 4 == 0 and about["count"] == 40
    assert about["groups"] == [name for name, _ in made.groups] == ["package0", "package1", "package2"]
    rest = made.data[8 + length :]
    x, y = (np.frombuffer(rest, "<f4", 40, offset=160 * place) for place in (0, 1))
    rows = np.frombuffer(rest, "<u4", 40, offset=320)
    groups = np.frombuffer(rest, np.uint8, 40, offset=480)
    assert sorted(rows.tolist()) == list(range(40)) and rows.tolist() != list(range(40)) and len(rest) == 40 * 13
    plane = principal_plane(index.vectors_MD)
    scaled = (plane - plane.min(axis=0)) / np.ptp(plane, axis=0)
    assert np.allclose(np.stack([x, y], axis=1), scaled[rows]) and groups.tolist() == [row % 3 for row in rows.tolist()]
    assert made.kept == kept_neighbors(index.vectors_MD, plane)


def test_groups_are_the_largest_and_the_rest() -> None:
    found = [IndexedDocument(f"g{row % 10}/{row}", "x") for row in range(45)] + [IndexedDocument("/odd", "x")]
    names, groups = group_documents(found)
    assert names == ["g0", "g1", "g2", "g3", "g4", "g5", "g6", "other"]
    assert np.bincount(groups).tolist() == [5, 5, 5, 5, 5, 4, 4, 13]
    assert group_documents([])[0] == ["other"] == group_documents([IndexedDocument("a", "x")])[0]


def test_the_page_says_what_the_map_keeps_and_lists_the_same() -> None:
    key, index = make_index(documents())
    _, client = open_window()
    page = Page(client.get("/map").text).text
    kept = make_map(index).kept
    assert kept is not None and f"keeps {kept:.0%} of each document's 10 nearest" in page
    assert "package1" in page and "package0/m.py:f0" in page
    one = Page(client.get("/map", params={"index": key, "group": "package1"}).text).text
    assert "package1/m.py:f1" in one and "package0/m.py:f0" not in one and "13 documents" in one
    assert client.get("/api/map/points", params={"index": key}).content == make_map(index).data
    texts = client.get("/api/map/texts", params={"index": key, "rows": "3,0"}).json()
    assert [one["id"] for one in texts] == ["package0/m.py:f3", "package0/m.py:f0"]


def test_odd_requests_are_one_line() -> None:
    _, client = open_window()
    assert "gemma4vec quickstart" in Page(client.get("/map").text).text
    key, _ = make_index(documents())
    assert client.get("/map", params={"index": "../x"}).status_code == 404
    assert client.get("/map", params={"index": key, "group": "none"}).status_code == 404
    assert client.get("/api/map/points").status_code == 404
    for rows in ("", "x", "40", "-1", "1e3", "²", "9" * 30):
        assert client.get("/api/map/texts", params={"index": key, "rows": rows}).status_code == 404, rows
    (home() / key.replace("/", "/index/") / "vectors.npy").write_bytes(b"torn")
    reply = client.get("/map", params={"index": key})
    assert reply.status_code == 404 and "is damaged" in reply.text


def test_hostile_documents_stay_texts() -> None:
    key, _ = make_index([IndexedDocument(f"{HOSTILE}{row}", f"{HOSTILE} {row}") for row in range(3)])
    _, client = open_window()
    page = Page(client.get("/map", params={"index": key}).text)
    assert "img" not in page.tags and "\x1b" not in page.text and "Too few documents" in page.text


def key_of(run_name: str) -> str:
    """The index of a second run with the same documents and other vectors."""
    run = make_run(home(), run_name)
    run.model.mkdir()
    SearchIndex.build(run.path / "index" / "test", documents(), FakeEmbedder("e" * 64))
    return f"{run.run_id}/test"


def test_a_lasso_lists_what_is_inside_as_a_slow_loop_finds_it() -> None:
    key, index = make_index(documents())
    _, client = open_window()
    corners = [(0.1, 0.1), (0.9, 0.3), (0.3, 0.5), (0.8, 0.95)]  # not convex
    lasso = ",".join(f"{x},{y}" for x, y in corners)
    places = make_map(index).places

    def inside(x: float, y: float) -> bool:
        crossed = 0
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * (bx - ax):
                crossed += 1
        return crossed % 2 == 1

    slow = [row for row, (x, y) in enumerate(places.tolist()) if inside(x, y)]
    assert 2 < len(slow) < 38 and np.flatnonzero(inside_polygon(places, corners)).tolist() == slow
    html = client.get("/map", params={"index": key, "lasso": lasso}).text
    page = Page(html).text
    assert f"{len(slow)} documents" in page and "in the lasso" in page and f'data-lasso="{lasso}"' in html
    assert all((f"m.py:f{row} " in page) == (row in slow) for row in range(40))
    one = Page(client.get("/map", params={"index": key, "lasso": lasso, "group": "package1"}).text).text
    assert f"{sum(row % 3 == 1 for row in slow)} documents" in one
    for odd in ("1,2", "x", "1,2,3,4,5", "1,2,3,4,5,nan", "0," * 400 + "0", "1,2,3,4,5,1e9", "1,2,3,4,5,inf"):
        reply = client.get("/map", params={"index": key, "lasso": odd})
        assert reply.status_code == 404 and "draw it again" in reply.text, odd


def test_two_maps_are_linked_where_they_hold_the_same_documents() -> None:
    key, _ = make_index(documents())
    other = key_of("other")
    _, client = open_window()
    html = client.get("/map", params={"index": key, "with": other}).text
    assert html.count("data-linked") == 2 and 'id="map-2"' in html and "hold the same documents" in html
    third, _ = make_index(documents(30))
    html = client.get("/map", params={"index": key, "with": third}).text
    assert "data-linked" not in html and "not linked" in html
    lasso = "-1,-1,2,-1,2,2,-1,2"  # everything, of the second map
    html = client.get("/map", params={"index": key, "with": third, "lasso": lasso, "of": "2"}).text
    assert "30 documents" in Page(html).text and html.count(f'data-lasso="{lasso}"') == 1
    assert client.get("/map", params={"index": key, "with": "../x"}).status_code == 404
