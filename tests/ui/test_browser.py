"""The window in a real browser: `make browser`. It needs the extra `uitest` and Debian's chromium."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compared_runs import make_runs
from fake_embedder import FakeEmbedder, functions
from kept_results import kept_result
from planted_suite import PlantedModel, planted_suite

from gemma4vec.data.suites.retrieval import load_suite, write_suite
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.files import write_json
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject, Wanted
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.report.content.comparison_data import read_comparison
from gemma4vec.serving.search.index import SearchIndex

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
PATIENCE_MS = 300_000  # a busy machine is slow, not wrong
SIZES = {"desktop": (1280, 900), "tablet": (800, 1000), "phone": (360, 780)}


WHOLE = "-1,-1,2,-1,2,2,-1,2"  # a lasso around everything
LONG = 100_000


def make_long_list(home: Path) -> None:
    """An inspection like the first one, with a hundred thousand queries."""
    folder = home / "inspect" / "long" / "s"
    shutil.copytree(home / "inspect" / "planted" / "s", folder, ignore=shutil.ignore_patterns("map.*", "clusters.*"))
    table = pq.read_table(folder / "queries.parquet")
    rows = [row for row, half in enumerate(table["half"].to_pylist()) if half == "discovery"]
    longer = table.take([rows[place % len(rows)] for place in range(LONG)])
    ids = pa.array([f"n{place:06d}" for place in range(LONG)])
    pq.write_table(
        longer.set_column(longer.schema.get_field_index("query_id"), "query_id", ids), folder / "queries.parquet"
    )


class Served:
    """A running window: the first URL, the base address, and the addresses of its pages by name."""

    def __init__(self, home: Path, first: str, ids: list[str]):
        self.home, self.first, self.ids = home, first, ids
        self.base = first.partition("/open")[0]
        self.pages = {
            "runs": "/",
            "ledger": "/ledger",
            "inspections": "/inspect",
            "search": "/search",
            "choose": "/compare",
        }
        self.pages |= {"walk": "/walk?kept=m-walk", "inversion": "/inversion?kept=m-texts"}
        self.pages |= {"map": "/map", "run": f"/runs/{ids[0]}", "nothing": "/runs/none"}
        self.pages |= {"compare": f"/compare?run={ids[0]}&run={ids[1]}", "new": f"/compare?run={ids[0]}&run={ids[2]}"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A window on three runs, one comparison, one inspection and one index."""
    folder = tmp_path_factory.mktemp("browser")
    home, cache = folder / "runs", folder / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_HOME", str(home))
        patch.setenv("GEMMA4VEC_CACHE", str(cache))
        ids = make_runs(home, {"baseline": 0.3, "hard negatives": 0.6, "higher rate": 0.45})
        read_comparison([home / one for one in ids[:2]])
        suite = planted_suite(120)
        suite.role = "dev"
        write_suite(folder / "suite", suite)
        opened = {"spec": str(folder / "suite"), "task": None, "mirror": None}
        subject, other = Subject(PlantedModel(), "planted"), Subject(Bm25Model(), "bm25")
        more = Wanted(clusters=True, map=True)
        for one, name in ((subject, "planted"), (Subject(PlantedModel("second"), "second"), "second")):
            out = home / "inspect" / name / "s"
            inspect(
                one, load_suite(folder / "suite"), out, against=other, opened_as=opened, wanted=more, permutations=200
            )
        make_long_list(home)
        for folder_name, kind in (("walks", "walk"), ("inversions", "texts")):
            write_json(home / folder_name / f"m-{kind}.json", {"kind": kind, **kept_result(kind)})
        (home / ids[0] / "model").mkdir()
        SearchIndex.build(home / ids[0] / "index" / "test", functions(20), FakeEmbedder())
        process = subprocess.Popen(
            [sys.executable, "-m", "gemma4vec", "ui", "--no-browser"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])},
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found is not None
        yield Served(home, found[0], ids)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_MS / 1000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; skipped with a reason where something is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason='needs pip install "gemma4vec[uitest]"')
    if CHROMIUM is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


class Opened:
    """A page in a context of its own that has the cookie; what went wrong in it is in `faults`."""

    def __init__(self, browser: Any, served: Served, **settings: Any):
        size = dict(zip(("width", "height"), SIZES[settings.pop("size", "desktop")], strict=True))
        self.context = browser.new_context(viewport=size, reduced_motion="reduce", **settings)
        self.context.set_default_timeout(PATIENCE_MS)
        self.served, self.faults = served, list[str]()
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.context.route(lambda address: not address.startswith((served.base, "data:")), self._refuse)
        self.page.goto(served.first)
        self.page.wait_for_url(f"{served.base}/")
        keys = {
            one["folder"].split("/")[-2]: one["key"]
            for one in self.context.request.get(f"{served.base}/api/inspect").json()
        }
        served.pages["failures"] = f"/inspect/{keys['planted']}"
        served.pages["long"] = f"/inspect/{keys['long']}?order=id"
        served.pages["mapped"] = f"/inspect/{keys['planted']}/map?color=outcome"
        served.pages["linked"] = f"/inspect/{keys['planted']}/map?with={keys['second']}&lasso={WHOLE}"
        self.page.goto(served.base + served.pages["failures"])
        served.pages["query"] = str(self.page.locator("#queries [data-open]").first.get_attribute("href"))
        served.pages["slices"] = f"{served.pages['failures']}?rule=digits+is+yes"
        served.pages["geometry"] = f"{served.pages['failures']}/geometry"

    def _refuse(self, route: Any) -> None:
        self.faults.append(f"asked for {route.request.url}")
        route.abort()

    def go(self, name: str) -> Any:
        """Open a page by name."""
        reply = self.page.goto(self.served.base + self.served.pages[name])
        assert reply.status == (404 if name == "nothing" else 200), (name, reply.status)
        if name == "nothing":  # the browser reports its status
            self.faults = [one for one in self.faults if "404" not in one]
        return self.page


@pytest.mark.parametrize(
    ("size", "scheme"), [("desktop", "light"), ("desktop", "dark"), ("tablet", "light"), ("phone", "light")]
)
def test_every_page_fits_without_errors_or_foreign_requests(
    browser: Any, served: Served, size: str, scheme: str
) -> None:
    one = Opened(browser, served, size=size, color_scheme=scheme)
    for name in list(served.pages):
        page = one.go(name)
        assert page.locator("h1").count() == 1, name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert one.faults == [], name
    one.context.close()


def test_pages_work_without_javascript(browser: Any, served: Served) -> None:
    script = Opened(browser, served)
    one = Opened(browser, served, java_script_enabled=False)
    for name in list(served.pages):
        script.go(name)
        words = one.go(name).locator("main").inner_text().split()
        if name not in ("run", "map", "mapped", "linked", "long"):  # what moves, scrolls, or is drawn by scripts
            assert words == script.page.locator("main").inner_text().split(), name
    one.context.close()


def test_text_at_twice_its_size_still_fits(browser: Any, served: Served) -> None:
    one = Opened(browser, served)
    for name in ("runs", "failures", "query", "compare"):
        page = one.go(name)
        page.evaluate("document.documentElement.style.fontSize = '200%'")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    one.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, served: Served, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason='needs pip install "gemma4vec[uitest]"'
    ).Axe()
    one = Opened(browser, served, color_scheme=scheme)
    found = []
    for name in list(served.pages):
        for fault in axe.run(one.go(name)).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                found.append((name, fault["id"], fault["nodes"][0]["html"][:120]))
    assert found == []
    one.context.close()


def test_keys_alone_lead_from_the_runs_to_a_decision(browser: Any, served: Served) -> None:
    one = Opened(browser, served)
    page = one.go("runs")
    for key in ("j", "x", "j", "x"):
        page.keyboard.press(key)
    assert sorted(page.locator("td.check .letter").all_inner_texts()) == ["", "A", "B"]
    page.keyboard.press("c")
    page.wait_for_url("**/compare?*")
    assert "Is the difference real?" in page.locator("main").inner_text()
    one.go("failures")
    page.keyboard.press("j")
    page.keyboard.press("o")
    page.wait_for_url("**/queries/*")
    before = page.url
    page.keyboard.press("n")
    page.wait_for_url(lambda address: address != before)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("1")
    page.locator("#d1-2", has_text="verdict: right").wait_for()
    page.wait_for_load_state()  # a text is there before the script that hears keys
    page.keyboard.press("0")
    page.locator("#d1-2", has_text="verdict: wrong").wait_for()
    page.wait_for_load_state()
    page.keyboard.press("?")
    page.locator("dialog[open]").wait_for()
    page.keyboard.press("Escape")
    one.go("run")
    page.keyboard.press("/")
    page.keyboard.type("it finds more")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("header", has_text="it finds more").wait_for()
    assert one.faults == []
    with open_ledger(served.home) as ledger:
        made = ledger.rows("SELECT run_id, decision, words FROM decisions")
    assert made == [{"run_id": served.ids[0], "decision": "keep", "words": "it finds more"}]
    one.context.close()


def test_a_slice_is_saved_and_confirmed_by_forms(browser: Any, served: Served) -> None:
    one = Opened(browser, served)
    page = one.go("slices")
    page.locator("button", has_text="Save this rule").click()
    page.wait_for_url("**view=paired&slice=*")
    assert one.served.pages["failures"] in page.url
    page.locator("summary", has_text="Confirm a slice").click()
    page.locator("[name=sure]").check()
    page.locator("#confirm button").click()
    page.locator("h3", has_text="On the sealed half").wait_for()
    page.wait_for_load_state()
    assert page.locator("#slices td", has_text="confirmed").count() >= 1 and one.faults == []
    one.context.close()


def test_a_step_appears_while_one_looks(browser: Any, served: Served) -> None:
    one = Opened(browser, served)
    page = one.go("run")
    page.locator("[data-live=state]").wait_for()
    RunFolder(served.home / served.ids[0]).event("step", step=4321, loss=0.25, tokens=10, seconds=1.0)
    page.locator("[data-live=step]", has_text="4,321").wait_for()
    assert one.faults == []
    one.context.close()


def test_a_browser_without_the_cookie_is_locked_out(browser: Any, served: Served) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    assert page.goto(f"{served.base}/").status == 403
    page.set_content(
        f'<form method="post" action="{served.base}/runs/{served.ids[0]}/decide"><button>go</button></form>'
    )
    with page.expect_response(f"{served.base}/runs/*/decide") as caught:
        page.click("button")
    assert caught.value.status == 403
    context.close()


def first_point(data: bytes) -> tuple[int, float, float]:
    """Number of the first point of a map's file, and where the whole map has it, as shares of the canvas."""
    length = struct.unpack("<I", data[4:8])[0]
    count, start = json.loads(data[8 : 8 + length])["count"], 8 + length
    values = [struct.unpack_from(kind, data, start + 4 * count * at)[0] for at, kind in enumerate(("<f", "<f", "<I"))]
    x, y, number = values
    return number, 0.5 + 0.94 * (x - 0.5), 0.5 + 0.94 * (y - 0.5)


def test_the_map_draws_the_same_pixels_and_reads_the_document_under_the_pointer(browser: Any, served: Served) -> None:
    one = Opened(browser, served)
    sums = []
    for _ in range(2):
        page = one.go("map")
        page.locator("#map[data-checksum]").wait_for()
        sums.append(page.locator("#map").get_attribute("data-checksum"))
    assert sums[0] == sums[1] and sums[0] is not None
    page.locator("canvas").focus()
    page.keyboard.press("+")
    page.locator(f'#map:not([data-checksum="{sums[0]}"])').wait_for()
    page.keyboard.press("Home")
    page.locator(f'#map[data-checksum="{sums[0]}"]').wait_for()
    box = page.locator("canvas").bounding_box()
    points = one.context.request.get(f"{served.base}/api/map/points?index={served.ids[0]}/test").body()
    _, across, down = first_point(points)
    page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
    page.locator("[data-map=text]", has_text="p/m.py:f").wait_for()
    page.set_viewport_size({"width": 1280, "height": 800})
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(0, 0)
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
    page.locator("[data-map=text]", has_text="p/m.py:f").wait_for()
    text = page.locator("[data-map=text]").bounding_box()
    assert text["y"] >= 0 and text["y"] + text["height"] <= 800  # beside the point, not below the map
    assert box["y"] + box["height"] <= 800
    assert one.faults == []
    one.context.close()


SCROLL = "share => { const one = document.getElementById('list'); one.scrollTop = share * one.scrollHeight; }"
ROWS_WITHIN = """([least, most]) => {
    const rows = [...document.querySelectorAll("#list [data-row] a")].map((row) => Number(row.textContent.slice(1)));
    return rows.length > 10 && rows.every((row) => least <= row && row <= most);
}"""


def test_a_list_of_a_hundred_thousand_queries_has_rows_where_one_looks(browser: Any, served: Served) -> None:
    one = Opened(browser, served)
    page = one.go("long")
    page.locator("#list.virtual").wait_for()
    assert page.locator("#list table").get_attribute("aria-rowcount") == str(LONG + 1)
    for share, least, most in ((0.5, 49_000, 51_000), (1.0, 99_000, LONG), (0.0, 0, 1_000)):
        page.evaluate(SCROLL, share)
        page.wait_for_function(ROWS_WITHIN, arg=[least, most])
        assert page.locator("#list [data-row]").count() < 100
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("o")
    page.wait_for_url("**/queries/1?*")
    assert one.faults == []
    one.context.close()


def test_a_lasso_lists_its_points_and_marks_them_in_the_linked_map(browser: Any, served: Served) -> None:
    one = Opened(browser, served)
    page = one.go("linked")
    picked = page.locator("#map[data-picked]").get_attribute("data-picked")
    page.locator(f'#map-2[data-picked="{picked}"]').wait_for()
    assert int(str(picked)) == 240
    address = str(page.locator("#map").get_attribute("data-points"))
    number, across, down = first_point(one.context.request.get(served.base + address).body())
    box = page.locator("#map canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
    page.locator(f'#map[data-ringed="{number}"]').wait_for()
    page.locator(f'#map-2[data-ringed="{number}"]').wait_for()
    page = one.go("mapped")
    page.locator("#map[data-checksum]").wait_for()
    page.locator("[data-tool=lasso]").click()
    page.locator("#map canvas").scroll_into_view_if_needed()
    box = page.locator("#map canvas").bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= SIZES["desktop"][1]  # the whole map beside its button
    corners = [(0.01, 0.01), (0.5, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)]
    for place, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        if place == 0:
            page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**lasso=*")
    assert "Rules for this selection" in page.locator("#list").inner_text()
    page.locator("#map[data-picked]").wait_for()
    page.locator("canvas").focus()
    page.keyboard.press("+")
    page.keyboard.press("l")  # the same by keys alone
    page.wait_for_url("**view=1.25*")
    assert "in the lasso" in page.locator("#list h2").inner_text() and one.faults == []
    one.context.close()
