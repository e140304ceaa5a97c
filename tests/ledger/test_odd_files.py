"""Files of a run that nest too deeply for Python are damaged files, not errors of their own."""

from pathlib import Path

import pytest

from gemma4vec.errors import InputError
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


def test_results_and_decisions_that_nest_too_deeply_are_damaged(tmp_path: Path) -> None:
    for name in ("metrics.json", "decision.json"):
        (tmp_path / name).write_text(f'{{"mean": {DEEP}}}', encoding="utf-8")
    assert decision_record(tmp_path) is None
    with pytest.raises(InputError, match=r"metrics\.json is damaged"):
        evaluation_record(tmp_path)
