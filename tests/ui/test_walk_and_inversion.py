"""Walks and inversions in the window: the figures of their functions, what was kept, and every refusal in its place."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hashed_words import HashedWords
from hostile_page import HOSTILE, Page
from kept_results import kept_result
from ledger_samples import make_run
from open_window import open_window
from starlette.testclient import TestClient

from gemma4vec.errors import InputError
from gemma4vec.fanout.one_walk import walk_to
from gemma4vec.fanout.setting import Choices
from gemma4vec.fanout.writers import LogWriter
from gemma4vec.files import home, write_json
from gemma4vec.inversion.measures import split_words, token_set_f1
from gemma4vec.serving.search.documents import IndexedDocument
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.ui.content.decoder_work import DecoderWork, mark_common
from gemma4vec.ui.content.kept_results import keep_result
from gemma4vec.ui.content.search_worker import MOST_WAITING, SearchWorker
from gemma4vec.ui.window import Window

KNOWN = ["red green", "green blue", "blue white", "white black", "black red", HOSTILE]
DOCUMENTS = [IndexedDocument(f"d{row}", f"{text} text") for row, text in enumerate(KNOWN[:5])]


class Words64(HashedWords):
    """With the width that an index asks for."""

    dimension = 64


EMBEDDER = Words64()


class NearestText:
    """A decoder whose texts are the nearest of `KNOWN`; n samples are the n nearest."""

    def __init__(self, folder: Path) -> None:
        self.facts = SimpleNamespace(role="query", dimension=64, text_tokens=8)
        frame = SimpleNamespace(longer=lambda tokenizer, texts: [text for text in texts if len(text.split()) > 8])
        self.parts = SimpleNamespace(folder=folder, frame=frame, tokenizer=None)

    def greedy(self, vectors: np.ndarray) -> list[int]:
        return [int(row) for row in (vectors @ EMBEDDER.encode_query(KNOWN).T).argmax(axis=1)]

    def nucleus(self, vectors: np.ndarray, n: int, **_: Any) -> list[list[int]]:
        return np.argsort(-vectors @ EMBEDDER.encode_query(KNOWN).T, axis=1)[:, :n].tolist()

    def text(self, place: int) -> str:
        return KNOWN[place]


def make(decoder: Any = None) -> tuple[Window, TestClient, dict[str, str]]:
    """A window on a run with an index and a run with a decoder, and what they are called in addresses."""
    run = make_run(home(), "searcher")
    run.model.mkdir()
    SearchIndex.build(run.path / "index" / "test", DOCUMENTS, EMBEDDER)
    made = make_run(home(), "writer")
    made.model.mkdir()
    write_json(made.model / "decoder.json", {"encoder_name": "searcher", "role": "query", "dimension": 64})
    window, client = open_window()
    window.__dict__["search"] = SearchWorker(lambda _: EMBEDDER)
    opening = decoder or (lambda run, embedder: NearestText(made.model))
    window.__dict__["decoders"] = DecoderWork(window.search, opening)
    return window, client, {"index": f"{run.run_id}/test", "decoder": made.run_id, "model": run.run_id}


def walk(query: str = "red green", **more: Any) -> dict[str, Any]:
    """The same walk by its function."""
    documents = EMBEDDER.encode_document([one.as_document() for one in DOCUMENTS])
    start = EMBEDDER.encode_query([query])[0]
    targets = documents[np.argsort(-documents @ start, kind="stable")[:3]]
    return walk_to(EMBEDDER, LogWriter(KNOWN, EMBEDDER.encode_query(KNOWN)), Choices(), start, targets, documents)


def test_a_walk_has_the_steps_of_its_function() -> None:
    _, client, names = make()
    found = client.get("/api/walk", params={"q": "red green", **names}).json()
    slow = walk()
    assert [one["text"] for one in found["steps"]] == [one["text"] for one in slow["steps"]] and found["rank"] == 1
    assert [one["rank"] for one in found["steps"]] == [one["rank"] for one in slow["steps"]]
    assert found["hits"][0]["id"] == "d0" and found["target"] == "the mean of the query's first 3 hits"
    page = Page(client.get("/walk", params={"q": "red green", **names}).text).text
    assert all(f"{one['to_target']:.3f}" in page and one["text"] in page for one in found["steps"])
    one = client.get("/api/walk", params={"q": "red green", "to": "3", **names}).json()
    assert one["target_id"] == "d3" and one["steps"][-1]["to_target"] > found["steps"][-1]["to_target"] - 1
    assert one["steps"][-1]["rank"] == 1 < one["rank"]  # the last text finds the document, the query does not
    assert "to=3" in client.get("/walk", params={"q": "red green", **names}).text


def test_what_comes_back_of_a_text_stands_beside_it() -> None:
    _, client, names = make()
    asked = {"text": "red green white", "n": "4", "model": names["model"], "decoder": names["decoder"]}
    found = client.get("/api/inversion", params=asked).json()
    vector = EMBEDDER.encode_query(["red green white"])[0]
    assert found["vector"] == pytest.approx(vector.tolist())
    best = found["candidates"][0]
    assert best["text"] == "red green" and best["how"] == "greedy"
    assert best["cosine"] == pytest.approx(float(EMBEDDER.encode_query(["red green"])[0] @ vector), abs=1e-6)
    assert best["f1"] == token_set_f1(["red", "green"], split_words("red green white")) and not best["exact"]
    cosines = [one["cosine"] for one in found["candidates"]]
    assert cosines == sorted(cosines, reverse=True) and 1 < len(cosines) <= 4
    html = client.get("/inversion", params=asked).text
    page = Page(html)
    assert f"{best['cosine']:.4f}" in page.text and "mark" in page.tags and f"{vector[0]:+.4f}" in page.text
    assert html.count("<svg") == 2  # wide and narrow
    long = client.get("/inversion", params={**asked, "text": "red " * 20}).text
    assert "longer than the 8 tokens" in long


def test_marks_are_the_words_that_f1_counts() -> None:
    assert mark_common("Red, the green!", "red GREEN blue") == [
        ("Red", True),
        (", the ", False),
        ("green", True),
        ("!", False),
    ]
    assert "".join(text for text, _ in mark_common(HOSTILE, "b img")) == HOSTILE
    assert mark_common("", "red") == []


def test_kept_results_are_listed_and_shown() -> None:
    _, client = open_window()
    assert "Nothing is kept yet" in Page(client.get("/walk").text).text
    files = {kind: keep_result(home(), kind, kept_result(kind)) for kind in ("walk", "table", "texts", "measured")}  # type: ignore[arg-type]
    assert keep_result(home(), "walk", kept_result()) == files["walk"]  # the same result is one file
    for address, kinds, words in (
        ("/walk", ("walk", "table"), ("red green", "No method gains")),
        ("/inversion", ("texts", "measured"), ("back", "f1 over ridge")),
    ):
        listed = client.get(address).text
        assert "of 2 that" in Page(listed).text
        for kind, word in zip(kinds, words, strict=True):
            assert f"kept={files[kind].stem}" in listed
            page = Page(client.get(address, params={"kept": files[kind].stem}).text)
            assert word in page.text and "img" not in page.tags and "\x1b" not in page.text, kind


@pytest.mark.parametrize("key", ["none", "../ledger/x", "%2e%2e%2fx", "a" * 5000])
def test_a_kept_result_is_looked_up_and_never_a_path(key: str) -> None:
    _, client = open_window()
    home().mkdir(parents=True, exist_ok=True)
    (home() / "secret.json").write_text(json.dumps({"kind": "walk", **kept_result()}))
    for address in ("/walk", "/inversion"):
        assert client.get(address, params={"kept": key}).status_code == 404


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"kind": "texts"}', '{"kind": "walk", "model": "m"}', "steps", "\x00", '{"kind": []}']
)
def test_a_damaged_result_is_one_line_in_the_list(damage: str) -> None:
    good, torn = keep_result(home(), "walk", kept_result()), home() / "walks" / "torn.json"
    torn.write_text(json.dumps({"kind": "walk", **kept_result(steps=[{"text": 5}])}) if damage == "steps" else damage)
    _, client = open_window()
    page = client.get("/walk")
    assert page.status_code == 200 and "is damaged" in page.text and f"kept={good.stem}" in page.text
    one = client.get("/walk", params={"kept": "torn"})
    assert one.status_code == 404 and "delete it, or keep it again" in one.text


def test_odd_requests_are_refused_in_one_line() -> None:
    _, client, names = make()
    for odd in ({"index": "../x"}, {"decoder": "none"}, {"index": ""}):
        assert client.get("/walk", params={"q": "red", **names, **odd}).status_code == 404, odd
    for odd in ({"model": names["decoder"]}, {"decoder": names["model"]}, {"model": "../x"}):
        assert client.get("/inversion", params={"text": "red", **names, **odd}).status_code == 404, odd
    for to in ("-1", "x", "5", "99999999999"):
        page = client.get("/walk", params={"q": "red green", **names, "to": to})
        assert page.status_code == 200 and 'role="alert"' in page.text, to
    assert "4,000 characters" in client.get("/inversion", params={"text": "x" * 5000, **names}).text
    assert "choose 1, 4, 16" in client.get("/inversion", params={"text": "x", "n": "999", **names}).text
    assert client.get("/inversion", params={"text": "x", "n": "²", **names}).status_code == 200
    assert client.get("/api/inversion", params={"text": " ", **names}).status_code == 404


@pytest.mark.parametrize(
    ("error", "line"),
    [(MemoryError(), "too large for the free memory"), (InputError("of another encoder"), "of another")],
)
def test_a_decoder_that_does_not_load_says_why_and_the_form_stays(error: Exception, line: str) -> None:
    def broken(run: Path, embedder: Any) -> Any:
        raise error

    _, client, names = make(broken)
    for address, field in (("/walk", "q"), ("/inversion", "text")):
        page = client.get(address, params={field: "red", **names})
        assert page.status_code == 200 and line in page.text and "<form" in page.text, address


def test_they_wait_in_the_queue_of_searches() -> None:
    window, client, names = make()
    begun, go = threading.Event(), threading.Event()

    def slow() -> Sequence[int]:
        begun.set()
        go.wait(30)
        return []

    futures = [window.search.run(slow)]
    assert begun.wait(30)
    futures += [window.search.run(slow) for _ in range(MOST_WAITING)]
    for address, field in (("/walk", "q"), ("/inversion", "text"), ("/api/walk", "q"), ("/api/inversion", "text")):
        reply = client.get(address, params={field: "red", **names})
        assert reply.status_code == 429 and "wait already" in reply.text
    go.set()
    assert [future.result(30) for future in futures] == [[]] * (1 + MOST_WAITING)


def test_without_runs_the_pages_say_what_they_need() -> None:
    _, client = open_window()
    for address in ("/walk", "/inversion"):
        assert "gemma_embed/query_decoder" in Page(client.get(address).text).text
    broken = make_run(home(), "odd")
    broken.model.mkdir()
    (broken.model / "decoder.json").write_text("[1")
    assert "gemma_embed/query_decoder" in Page(client.get("/walk").text).text
