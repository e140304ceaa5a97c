"""Files of a run that nest too deeply for Python are damaged files, not errors of their own."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from gemma4vec.errors import InputError, WorkError
from gemma4vec.ledger.index import connect, make_schema
from gemma4vec.ledger.ledger import Ledger
from gemma4vec.ledger.overview import all_runs, recorded_evaluations
from gemma4vec.ledger.records import decision_record, evaluation_record
from gemma4vec.ledger.run_folder import RunFolder

DEEP = "[" * 100_000 + "]" * 100_000


def test_a_manifest_that_nests_too_deeply_is_damaged(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "deep", "name: deep\n")
    (run.path / "manifest.json").write_text(f'{{"deep": {DEEP}}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"manifest.json is damaged \(not JSON that can be read \(nested too deeply"):
        _ = run.manifest


def test_an_event_that_nests_too_deeply_is_a_torn_line(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "deep", "name: deep\n")
    run.event("step", loss=0.5)
    with (run.path / "events.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(f'{{"event": "step", "deep": {DEEP}}}\n')
    run.event("finished")
    events = run.events()
    assert [event["event"] for event in events] == ["step", "finished"]
    assert events.torn == (2,)


@pytest.mark.parametrize(
    "fields",
    [{"event": "prepared", "stage": 0, "tokens_per_forward": {"a": 1}}, {"event": "stage_finished"}],
)
def test_an_event_without_the_values_that_a_run_reads_is_a_torn_line(tmp_path: Path, fields: dict[str, Any]) -> None:
    run = RunFolder.create(tmp_path, "odd", "name: odd\n")
    run.event(fields.pop("event"), **fields)
    run.event("prepared", stage=0, compile=False)  # of a task that has no such choices
    run.event("stage_finished", stage=0)
    assert [event["event"] for event in run.events()] == ["prepared", "stage_finished"]
    assert run.events().torn == (1,) and run.events("prepared")[0]["stage"] == 0


def test_results_and_decisions_that_nest_too_deeply_are_damaged(tmp_path: Path) -> None:
    for name in ("metrics.json", "decision.json"):
        (tmp_path / name).write_text(f'{{"mean": {DEEP}}}', encoding="utf-8")
    assert decision_record(tmp_path) is None
    with pytest.raises(InputError, match=r"metrics\.json is damaged"):
        evaluation_record(tmp_path)


@pytest.mark.parametrize("body", ["0.5", "[]", '{"run_id": 3, "path": "x"}', '{"run_id": "x"}', '"' + "x" * 9 + '"'])
def test_a_run_of_the_index_that_is_no_run_is_damage(tmp_path: Path, body: str) -> None:
    with contextlib.closing(connect(":memory:")) as connection:
        make_schema(connection)
        connection.execute("DROP VIEW runs")
        connection.execute("CREATE TABLE runs (id, created, run_id)")
        connection.execute("INSERT INTO runs VALUES ('a', '', '')")
        connection.execute("INSERT INTO records (id, kind, time, body) VALUES ('a', 'run', '', ?)", (body,))
        with pytest.raises(WorkError, match="make it again with: gemma4vec runs rebuild"):
            all_runs(Ledger(connection, tmp_path / "ledger.sqlite"))


@pytest.mark.parametrize("mean", ["0.5", '"[[["', "{"])
def test_an_evaluation_of_the_index_whose_mean_is_no_object_is_damage(tmp_path: Path, mean: str) -> None:
    with contextlib.closing(connect(":memory:")) as connection:
        make_schema(connection)
        body = json.dumps({"run_id": "a", "mean": mean})
        connection.execute("INSERT INTO records (id, kind, time, body) VALUES ('a', 'evaluation', '', ?)", (body,))
        with pytest.raises(WorkError, match="is damaged"):
            recorded_evaluations(Ledger(connection, tmp_path / "ledger.sqlite"))
