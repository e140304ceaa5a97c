"""How smoothly the window moves in a real browser: a map of a million points, a list of a hundred thousand queries.

    python -m benchmarks.serving.map_frames
    python -m benchmarks.serving.map_frames --points 250000 --seconds 5

It needs the extra `uitest` and Debian's chromium. An inspection is made up, its map and its table of queries have the
asked sizes, and `gemma4vec ui` shows them as it shows any. Chromium runs without a screen and draws with the processor.
The mouse drags the map and the wheel scrolls the list, sixty times a second.

A frame of the map is what its worker takes for it, from the message that asks for it until the picture is in the
canvas: while the map moves, and when it stands, with all points. An interval is the time between two callbacks of
`requestAnimationFrame`: above 20 ms a frame was dropped. Ready: from the last byte of the points to the first frame.
These say something on an idle machine alone. Beside them stands the worker's own processor time for a frame of each
kind, from the kernel's count for its thread, which says something on a busy one too (Linux).
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.serving.window import window
from benchmarks.shared.browser import find_browser, open_browser
from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.topics.map import MapPoints, write_points
from gemma4vec.text.prompts import Document

MOVING_MS, STANDING_MS, READY_SECONDS = 16.0, 40.0, 1.5  # promised
DROPPED_MS = 20.0
TICK = 1 / 60  # seconds
STANDS = 12  # frames with all points
TOPICS = 40
QUERIES = 40  # of the suite that is inspected
PATIENCE_MS = 120_000

# What the page's worker says of its frames, and when the browser draws; the page itself has nothing for it.
WATCH = """() => {
    window.frames_ = [];
    window.ticks_ = [];
    const Plain = Worker;
    window.Worker = class extends Plain {
        constructor(...given) {
            super(...given);
            this.addEventListener("message", ({ data }) => {
                const frame = data.frame;
                const stands = frame?.checksum !== undefined;
                if (frame) window.frames_.push({ at: performance.now(), ms: frame.ms, stands });
            });
        }
    };
    const tick = (at) => {
        window.ticks_.push(at);
        requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
}"""
ARRIVED = (
    """() => performance.getEntriesByType("resource").find(({ name }) => name.includes("/map/points")).responseEnd"""
)


def main() -> int:
    arguments = parse_arguments()
    find_browser()  # what is missing is said at once
    with tempfile.TemporaryDirectory(prefix="gemma4vec-frames-") as folder:
        home = Path(folder) / "runs"
        say(f"making a map of {arguments.points:,} points and a list of {arguments.queries:,} queries")
        make_home(home, arguments.points, arguments.queries)
        with window(home) as (opener, base, _, _), open_browser(opener, base) as (browser, context):
            context.set_default_timeout(PATIENCE_MS)
            context.add_init_script(f"({WATCH})()")
            keys = {
                one["folder"].split("/")[-2]: one["key"] for one in context.request.get(f"{base}/api/inspect").json()
            }
            page = context.new_page()
            measured = measure_map(page, f"{base}/inspect/{keys['map']}/map", arguments.seconds)
            measured |= measure_list(page, f"{base}/inspect/{keys['long']}?order=id", arguments.seconds)
            measured["browser"] = browser.version
    measured |= {"points": arguments.points, "queries": arguments.queries, "load_average": os.getloadavg()[0]}
    for name, words in SHOWN.items():
        print(f"{words:34} {describe(measured[name])}")
    print(f"{'ready after the last byte':34} {measured['ready_seconds']:.2f} s")
    for name, words in (("moving", "dragged"), ("standing", "with all points")):
        print(f"{'processor time, ' + words:34} {measured[name + '_cpu_ms']:.1f} ms a frame")
    write_result("map_frames", measured, arguments.results)
    kept = measured["moving_ms"]["median"] <= MOVING_MS and measured["standing_ms"]["median"] <= STANDING_MS
    return 0 if kept and measured["ready_seconds"] <= READY_SECONDS else 1


SHOWN = {
    "moving_ms": "a frame while it is dragged",
    "standing_ms": "a frame with all points",
    "drag_interval_ms": "between frames while it is dragged",
    "scroll_interval_ms": "between frames of the list",
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000, help="points of the map")
    parser.add_argument("--queries", type=int, default=100_000, help="queries of the list")
    parser.add_argument("--seconds", type=float, default=10.0, help="of dragging, and of scrolling")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if arguments.points < QUERIES or arguments.queries < 200 or arguments.seconds < 1:
        parser.error(f"--points must be {QUERIES} or more, --queries 200 or more, --seconds 1 or more")
    return arguments


def make_home(home: Path, points: int, queries: int) -> None:
    """Two inspections by BM25: `map` with a map of that many points, `long` with that many queries."""
    words = [f"w{number}" for number in range(QUERIES)]
    suite = RetrievalSuite(
        name="made up",
        corpus_ids=[f"d{word}" for word in words],
        corpus=[Document(f"{word} stands here.") for word in words],
        query_ids=[f"q{word}" for word in words],
        queries=[f"where is {word}" for word in words],
        qrels={f"q{word}": {f"d{word}": 1} for word in words},
        role="dev",
    )
    write_suite(home.parent / "suite", suite)
    mapped, long = home / "inspect" / "map" / "s", home / "inspect" / "long" / "s"
    opened = {"spec": str(home.parent / "suite"), "task": None, "mirror": None}
    inspect(Subject(Bm25Model(), "bm25"), suite, mapped, opened_as=opened, permutations=50)
    shutil.copytree(mapped, long)
    table = pq.read_table(long / "queries.parquet")
    open_rows = [row for row, half in enumerate(table["half"].to_pylist()) if half == "discovery"]
    longer = table.take([open_rows[place % len(open_rows)] for place in range(queries)])
    ids = pa.array([f"n{place:06d}" for place in range(queries)])
    column = longer.schema.get_field_index("query_id")
    pq.write_table(longer.set_column(column, "query_id", ids), long / "queries.parquet")
    write_points(mapped, made_up_points(points))


def made_up_points(count: int) -> MapPoints:
    """Documents around the middles of topics, and the suite's queries."""
    generator = np.random.default_rng(0)
    middles = generator.random((TOPICS, 2))
    places = middles[generator.integers(0, TOPICS, count)] + generator.normal(0.0, 0.05, (count, 2))
    kind = np.zeros(count, dtype=np.uint8)
    row = np.arange(count) - QUERIES
    kind[:QUERIES], row[:QUERIES] = 1, np.arange(QUERIES)
    columns = {"row": row, "kind": kind, "cluster": np.full(count, 255), "failed": np.zeros(count)}
    about = {"method": "made up", "kept_neighbors": 0.1, "neighbors": 10}
    return MapPoints(places.astype(np.float32), columns, about, 0)


def measure_map(page: Any, address: str, seconds: float) -> dict[str, Any]:
    """Frames of the worker and intervals of the page while the mouse drags the map; frames that stand."""
    began = time.perf_counter()
    page.goto(address)
    page.locator("#map[data-checksum]").wait_for()
    shown = time.perf_counter() - began
    ready = page.evaluate("frames_[0].at") - page.evaluate(ARRIVED)
    canvas = page.locator("#map canvas")
    canvas.scroll_into_view_if_needed()
    step_by_keys(page, canvas)  # the first frames compile what draws
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.evaluate("frames_.length = ticks_.length = 0")

    def drag(step: int) -> None:
        angle = step / 30
        page.mouse.move(middle[0] + 200 * np.sin(angle), middle[1] + 100 * np.sin(angle / 2))

    spent = [worker_seconds()]
    events = at_sixty(drag, seconds)
    ticks, dragged = page.evaluate("ticks_"), page.evaluate("frames_")
    spent.append(worker_seconds())
    page.mouse.up()
    stepped = step_by_keys(page, canvas)
    spent.append(worker_seconds())
    kinds = (False, True)  # whether it stands
    moving, standing = ([one["ms"] for one in (*dragged, *stepped) if one["stands"] == kind] for kind in kinds)
    # Both parts have frames of both kinds, where the machine is slow: two equations.
    counts = [[sum(one["stands"] == kind for one in part) for kind in kinds] for part in (dragged, stepped)]
    cpu = np.linalg.lstsq(np.array(counts, dtype=float), np.diff(spent), rcond=None)[0]
    return {
        "moving_cpu_ms": 1000 * float(cpu[0]),
        "standing_cpu_ms": 1000 * float(cpu[1]),
        "page_seconds": shown,
        "ready_seconds": ready / 1000,
        "drags_a_second": events / seconds,
        "frames_a_second": len(dragged) / seconds,
        "moving_ms": spread(moving),
        "standing_ms": spread(standing),
        "drag_interval_ms": spread(np.diff(ticks).tolist()),
    }


def step_by_keys(page: Any, canvas: Any) -> list[dict[str, Any]]:
    """Move by a key and wait for the frame that stands, again and again; the frames."""
    page.evaluate("frames_.length = 0")
    for number in range(STANDS):
        canvas.press("ArrowLeft" if number % 2 else "ArrowRight")
        page.wait_for_function("least => frames_.filter(({ stands }) => stands).length > least", arg=number)
    found: list[dict[str, Any]] = page.evaluate("frames_")
    return found


def worker_seconds() -> float:
    """Processor seconds of the browser's worker threads; 0 where the kernel does not count them."""
    found = 0
    for process in psutil.Process().children(recursive=True):
        for thread in Path(f"/proc/{process.pid}/task").glob("*"):
            try:
                if (thread / "comm").read_text().startswith("DedicatedWorker"):
                    found += int((thread / "schedstat").read_text().split()[0])
            except OSError:
                continue  # it has ended
    return found / 1e9


def measure_list(page: Any, address: str, seconds: float) -> dict[str, Any]:
    """Intervals of the page while the wheel scrolls the list."""
    page.goto(address)
    region = page.locator("#list.virtual")
    region.wait_for()
    region.scroll_into_view_if_needed()
    region.hover()
    page.wait_for_timeout(500)
    page.evaluate("ticks_.length = 0")
    events = at_sixty(lambda step: page.mouse.wheel(0, 120), seconds)
    ticks = page.evaluate("ticks_")
    return {
        "wheels_a_second": events / seconds,
        "scrolled_rows": int(page.locator("#list").get_attribute("data-first")),
        "scroll_interval_ms": spread(np.diff(ticks).tolist()),
    }


def at_sixty(act: Callable[[int], None], seconds: float) -> int:
    """Act sixty times a second, or as often as the browser takes it; how often that was."""
    began = time.perf_counter()
    step = 0
    while (now := time.perf_counter() - began) < seconds:
        act(step)
        step += 1
        time.sleep(max(TICK - (time.perf_counter() - began - now), 0.0))
    return step


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, 95th percentile, highest, and the share above what drops a frame."""
    return {
        "median": statistics.median(values),
        "p95": float(np.percentile(values, 95)),
        "highest": max(values),
        "above_20_ms": sum(one > DROPPED_MS for one in values) / len(values),
        "n": len(values),
    }


def describe(found: dict[str, Any]) -> str:
    """`spread` for a person."""
    share = f"{found['above_20_ms']:.1%} above {DROPPED_MS:.0f}"
    return f"{found['median']:.1f} ms, p95 {found['p95']:.1f}, highest {found['highest']:.0f}, {share}, n={found['n']}"


if __name__ == "__main__":
    as_program(main)
