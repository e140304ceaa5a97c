"""Run folders: made once, found again, readable after a kill at any moment."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, tzinfo
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.errors import InputError, WorkError
from gemma4vec.ledger.run_folder import RunFolder, find_run, latest_run, list_runs, slug


def test_a_new_run_has_recipe_manifest_and_a_unique_name(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path, "Code search: v1", "seed: 1  # kept\n", recipe_id="abc")
    second = RunFolder.create(tmp_path, "Code search: v1", "")
    assert first.run_id != second.run_id
    stamp, clock, rest = first.run_id.split("-", 2)
    assert (len(stamp), len(clock)) == (8, 6)
    assert rest.startswith("code-search-v1-") and len(rest.rsplit("-", 1)[1]) == 4
    assert first.recipe_text == "seed: 1  # kept\n"
    assert first.manifest["recipe_id"] == "abc"
    assert first.manifest["run_id"] == first.path.name
    assert RunFolder.open(first.path) == first


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_what_is_no_run_folder_is_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError) as error:
        RunFolder.open(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="no run folder at"):
        RunFolder.open(tmp_path / "nowhere")


def test_the_manifest_is_updated_field_by_field(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "r", "")
    run.update_manifest(status="training", suites={"test": {"path": "x"}})
    run.update_manifest(status="finished")
    assert run.manifest["status"] == "finished"
    assert run.manifest["suites"] == {"test": {"path": "x"}}
    run.write_manifest({"only": 1})
    assert run.manifest == {"run_id": run.path.name, "only": 1}


def test_events_come_back_in_order_with_their_time(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "r", "")
    assert run.events() == []
    before = time.time()
    run.event("step", step=1, loss=0.5)
    run.event("evaluation", suite="s")
    run.event("step", step=2, loss=np.float32(0.25), where=Path("a"))
    events = run.events()
    assert [event["event"] for event in events] == ["step", "evaluation", "step"]
    assert before - 1 <= events[0]["time"] <= time.time() + 1
    assert run.events("step")[1]["loss"] == 0.25
    assert events.torn == ()


def test_numbers_that_json_does_not_have_become_null(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "r", "")
    run.event("step", loss=float("nan"), more=[float("inf"), np.float64("nan"), 1.0], text="\ud800 ok\nnext")
    (event,) = run.events()
    assert event["loss"] is None
    assert event["more"] == [None, None, 1.0]
    assert event["text"].endswith(" ok\nnext")


def test_a_torn_last_line_is_skipped_said_and_swallows_nothing(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "r", "")
    run.event("step", step=1)
    file = run.path / "events.jsonl"
    whole = file.read_bytes()
    run.event("step", step=2, text="é")
    data = file.read_bytes()
    for cut in range(len(whole) + 1, len(data) - 1):
        file.write_bytes(data[:cut])
        events = run.events()
        assert [event["step"] for event in events] == [1]
        assert events.torn == (2,)
    run.event("step", step=3)
    events = run.events()
    assert [event["step"] for event in events] == [1, 3]
    assert events.torn == (2,)


def test_a_killed_writer_leaves_whole_lines(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "r", "")
    code = (
        "import sys; from pathlib import Path; from gemma4vec.ledger.run_folder import RunFolder\n"
        "run = RunFolder(Path(sys.argv[1])); step = 0\n"
        "while True: step += 1; run.event('step', step=step, text='x' * 3000)\n"
    )
    source = str(Path(__file__).parents[2] / "src")
    writer = subprocess.Popen([sys.executable, "-c", code, str(run.path)], env={**os.environ, "PYTHONPATH": source})
    deadline = time.monotonic() + 600
    while len(run.events()) < 50 and time.monotonic() < deadline:
        time.sleep(0.02)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    events = run.events()
    assert len(events) >= 50
    assert [event["step"] for event in events] == list(range(1, len(events) + 1))
    run.event("resumed")
    assert run.events()[-1]["event"] == "resumed"


def test_a_full_disk_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs Linux's /dev/full")
    run = RunFolder(Path("/dev/full/run"))
    with pytest.raises(WorkError, match="could not write"):
        run.event("step")


def test_runs_are_found_by_id_its_beginning_its_end_and_latest(tmp_path: Path) -> None:
    first, second = RunFolder.create(tmp_path, "one", ""), RunFolder.create(tmp_path, "two", "")
    (tmp_path / "data").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text(json.dumps({"name": "another tool's"}))
    assert list_runs(tmp_path) == [first, second]
    assert latest_run(tmp_path) == second == find_run("latest", tmp_path)
    assert find_run(first.run_id, tmp_path) == first
    assert find_run(f"one-{first.run_id[-4:]}", tmp_path) == first
    assert find_run(str(second.path), tmp_path) == second
    with pytest.raises(InputError, match="matches 2 runs"):
        find_run("20", tmp_path)
    with pytest.raises(InputError, match="no run 'three'"):
        find_run("three", tmp_path)
    with pytest.raises(InputError, match="gemma4vec quickstart"):
        latest_run(tmp_path / "nothing")


@given(st.text(max_size=80))
def test_a_slug_is_always_a_safe_file_name(name: str) -> None:
    made = slug(name)
    assert 1 <= len(made) <= 48
    assert made.isascii() and not set(made) & set("/\\ :") and made not in (".", "..")


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("gemma4vec.ledger.run_folder.secrets.token_hex", lambda size: next(drawn))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr("gemma4vec.ledger.run_folder.datetime", Clock)
    names = [RunFolder.create(tmp_path / "runs", "x", None).run_id for _ in range(2)]
    assert names == ["20260102-030405-x-aaaa", "20260102-030405-x-bbbb"]
