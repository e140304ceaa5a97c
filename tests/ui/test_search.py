"""Search in the window: the hits of the index, BM25 beside them, one thread, a short queue, models of listed runs."""

import threading
from pathlib import Path

import pytest
from fake_embedder import FakeEmbedder, functions
from hostile_page import HOSTILE, Page
from ledger_samples import make_run
from open_window import ORIGIN, open_window
from starlette.testclient import TestClient

from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.serving.search.documents import IndexedDocument
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.ui.content.search_worker import MOST_WAITING, BusyError, SearchWorker, list_sources
from gemma4vec.ui.window import Window


class Opened:
    """Opens `FakeEmbedder`s and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, run: Path) -> FakeEmbedder:
        self.count += 1
        if "large" in run.name:
            raise MemoryError
        if "broken" in run.name:
            raise InputError(f"{run} has no model")
        return FakeEmbedder()


def make_index(name: str, documents: list[IndexedDocument] | None = None) -> str:
    """A run with a model folder and an index; returns the index's key."""
    run = make_run(home(), name)
    run.model.mkdir()
    SearchIndex.build(run.path / "index" / "test", documents or functions(30), FakeEmbedder())
    return f"{run.run_id}/test"


def searching() -> tuple[Window, TestClient, Opened]:
    window, client = open_window()
    opened = Opened()
    window.__dict__["search"] = SearchWorker(opened)
    return window, client, opened


def test_hits_are_those_of_the_index_and_bm25_beside_them() -> None:
    key = make_index("one")
    _, client, opened = searching()
    asked = {"query": "def f7", "indexes": [key], "k": 5, "bm25": True}
    model, bm25 = client.post("/api/search", json=asked, headers=ORIGIN).json()
    index = SearchIndex.open(home() / key.replace("/", "/index/"))
    hits = index.search(FakeEmbedder().encode_query(["def f7"]), 5)[0]
    assert [(one["id"], one["score"]) for one in model["hits"]] == [(hit.document.id, hit.score) for hit in hits]
    assert bm25["name"] == "BM25" and bm25["hits"][0]["id"] == "p/m.py:f7"
    for one in model["hits"]:
        rank = next((other["rank"] for other in bm25["hits"] if other["id"] == one["id"]), None)
        assert one["others"] == ({} if rank is None else {"BM25": rank})
    client.post("/api/search", json=asked, headers=ORIGIN)
    assert opened.count == 1 and model["loading"] > 0.0
    page = Page(client.get("/search", params={"q": "def f7", "index": key, "bm25": "1"}).text)
    assert hits[0].document.id in page.text and "ms" in page.text and "BM25" in page.text


def test_several_models_stand_side_by_side_and_a_broken_one_says_why() -> None:
    keys = [make_index(name) for name in ("first", "second", "large", "broken")]
    _, client, _ = searching()
    html = client.get("/search", params=[("q", "x"), *(("index", key) for key in keys)]).text
    page = Page(html).text
    assert "too large for the free memory" in page and "has no model" in page
    for letter, name, key in zip("ABCD", ("first", "second", "large", "broken"), keys, strict=True):
        about = key.replace("/", ", index ")  # ids stand where who needs them finds them
        assert f'<h2 title="{about}"><b class="letter">{letter}</b> {name}</h2>' in html
        assert name == "broken" or key.split("/")[0] not in page  # its reason names the folder
    assert "in A first" in page and "in B second" in page
    boxes = [html.index(f'name="index" value="{key}"') for key in keys]
    assert boxes == sorted(boxes)  # in the order of the columns


def test_indexes_have_as_much_of_a_name_as_tells_them_apart() -> None:
    keys = [make_index(name) for name in ("same", "same", "other", "alone")]
    other = home() / keys[2].replace("/", "/index/")
    SearchIndex.build(other.parent / "more", functions(5), FakeEmbedder())
    window, _ = open_window()
    labels = {one.key: one.label for one in list_sources(window.runs.all())}
    ends = [key.split("/")[0][-4:] for key in keys]
    assert labels == {
        keys[0]: f"same {ends[0]}",
        keys[1]: f"same {ends[1]}",
        keys[2]: "other, test",
        keys[2].replace("test", "more"): "other, more",
        keys[3]: "alone",
    }


def test_without_an_index_it_says_how_to_make_one_and_odd_requests_are_one_line() -> None:
    _, client, _ = searching()
    assert "gemma4vec quickstart" in Page(client.get("/search").text).text
    key = make_index("one")
    assert client.get("/api/search").json()[0]["key"] == key
    assert client.get("/search", params={"q": "x", "index": "../../etc"}).status_code == 404
    for body in (b"", b"[]", b"{}", b'{"query": 1, "indexes": []}', b"\xff", b'{"query": "x", "indexes": "all"}'):
        reply = client.post("/api/search", content=body, headers=ORIGIN)
        assert reply.status_code == 400 and "send" in reply.json()["error"]
    for odd in ({"k": 0}, {"k": 10**9}, {"query": " "}, {"query": "x" * 5000}, {"indexes": []}, {"indexes": ["nope"]}):
        asked = {"query": "x", "indexes": [key], **odd}
        assert client.post("/api/search", json=asked, headers=ORIGIN).status_code == 400
    surrogate = f'{{"query": "\\ud800", "indexes": ["{key}"]}}'.encode()
    assert client.post("/api/search", content=surrogate, headers=ORIGIN).status_code in (200, 400)


def test_hostile_documents_stay_texts() -> None:
    key = make_index("one", [IndexedDocument(f"d{HOSTILE}", f"words {HOSTILE}"), IndexedDocument("e", "others")])
    _, client, _ = searching()
    page = Page(client.get("/search", params={"q": f"words {HOSTILE}", "index": key, "bm25": "1"}).text)
    assert "img" not in page.tags and "\x1b" not in page.text and "{{ 7 * 7 }}" in page.text


def test_lines_of_prose_wrap_and_code_stays_as_it_is() -> None:
    words = make_index("words", [IndexedDocument("d", "a text of words"), IndexedDocument("e", "others")])
    code = make_index("code")
    _, client, _ = searching()
    for key, is_prose in ((words, True), (code, False)):
        html = client.get("/search", params={"q": "words", "index": key}).text
        assert ('<pre class="prose"' in html) is is_prose and ("<pre tabindex" in html) is not is_prose


def test_a_damaged_index_is_not_offered() -> None:
    key = make_index("one")
    run = next(iter(open_window()[0].runs.all()))
    assert [one.key for one in list_sources([run])] == [key]
    (home() / key.replace("/", "/index/") / "meta.json").write_text("{")
    assert list_sources([run]) == []


def test_eight_wait_and_the_next_is_refused() -> None:
    make_index("one")
    window, client, _ = searching()
    begun, go = threading.Event(), threading.Event()

    def slow(run: Path) -> FakeEmbedder:
        begun.set()
        go.wait(30)
        return FakeEmbedder()

    window.__dict__["search"] = worker = SearchWorker(slow)
    (source,) = list_sources(window.runs.all())
    futures = [worker.submit("x", [source], 3, bm25=False)]
    assert begun.wait(30)
    futures += [worker.submit("x", [source], 3, bm25=False) for _ in range(MOST_WAITING)]
    with pytest.raises(BusyError):
        worker.submit("x", [source], 3, bm25=False)
    asked = {"query": "x", "indexes": [source.key]}
    reply = client.post("/api/search", json=asked, headers=ORIGIN)
    assert reply.status_code == 429 and reply.headers["retry-after"] == "2"
    assert client.get("/search", params={"q": "x"}).status_code == 429
    assert window.is_computing
    go.set()
    assert all(len(future.result(30)[0].hits) == 3 for future in futures)


def test_a_read_only_window_searches() -> None:
    key = make_index("one")
    window, client = open_window(read_only=True)
    window.__dict__["search"] = SearchWorker(Opened())
    asked = {"query": "x", "indexes": [key]}
    assert client.post("/api/search", json=asked, headers=ORIGIN).status_code == 200
