"""What the ledger says of runs and results, live and rebuilt; counts never fall."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import RECIPE, look, make_run

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import home
from gemma4vec.ledger import recording
from gemma4vec.ledger.comparison_count import ComparisonFamily, count_family, count_looks
from gemma4vec.ledger.index import INDEX
from gemma4vec.ledger.journal import JOURNAL
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.overview import all_runs, diff_runs, find_recorded_run, newest_evaluations
from gemma4vec.ledger.rebuild import rebuild
from gemma4vec.ledger.records import find_parents
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.suite_access import REFERENCE, NamedSuite, Viewer, may_see

CONTENTS = "f" * 64


def rows(query: str) -> list[dict[str, Any]]:
    with open_ledger(home()) as ledger:
        return ledger.rows(query)


def seen() -> dict[str, Any]:
    """All that the views show, without the order in which it came."""
    views = {}
    for view in ("runs", "evaluations", "looks", "decisions", "freezes", "locks", "comparisons"):
        found = [{key: value for key, value in row.items() if key != "seq"} for row in rows(f"SELECT * FROM {view}")]
        views[view] = sorted(found, key=lambda row: json.dumps(row, sort_keys=True))
    return views


def family(a: str = "a", b: str = "b", metric: str = "ndcg@10") -> ComparisonFamily:
    sides = [{"fingerprint": one, "created": None} for one in (a, b)]
    with open_ledger(home()) as ledger:
        return count_family(ledger, CONTENTS, metric, *sides)


def compared(a: str, b: str) -> None:
    body = {"suite_fingerprint": CONTENTS, "metric": "ndcg@10", "fingerprint_a": a, "fingerprint_b": b}
    recording.record_comparison({"suite": "s", "a": a, "b": b, **body})


def work() -> RunFolder:
    """A run with three results, a decision, a look without a folder, a result outside of runs."""
    odd = 'nDCG@10 +1 "quoted"\nsecond line; \'); DROP TABLE records; -- 🦜 \u2028 é'
    run = make_run(home(), hypothesis=odd, data={"0-contrast": {"x": {"rows": 3, "content_hash": "h"}}})
    for model, fingerprint, value in (("bm25", "bm25", 0.3), ("untrained", "u", 0.1), ("trained", "t", 0.4)):
        look(run.evaluation(model, "s"), model, fingerprint, value=value, run=run)
    look(None, "checkpoint", "c", run=run)
    look(home() / "evals" / "peer" / "s", "peer", "p")
    with open_ledger(home()) as ledger:
        recording.decide(home(), find_recorded_run(ledger, "latest"), "keep", odd)
    return run


def test_a_run_is_listed_with_its_scores_decision_and_hypothesis() -> None:
    run = work()
    with open_ledger(home()) as ledger:
        (found,) = all_runs(ledger)
    assert found["run_id"] == run.run_id and found["status"] == "finished" and not found["deleted"]
    assert found["scores"] == {"s": 0.4}
    assert found["cost"] == {"seconds": 2.0, "tokens": 100, "peak_memory_bytes": 2**30}
    assert found["hypothesis"] == run.manifest["hypothesis"] == found["words"]
    assert found["decision"] == "keep" and found["recipe"] == RECIPE
    assert [row["status"] for row in rows("SELECT status FROM run_states ORDER BY seq")] == ["started", "finished"]


def test_baselines_have_a_run_but_no_recipe() -> None:
    run = work()
    found = {row["model"]: row for row in rows("SELECT * FROM looks WHERE metric = 'map'")}
    assert {name: row["recipe_id"] for name, row in found.items()} == {
        "bm25": None, "untrained": None, "trained": "abc", "checkpoint": "abc", "peer": None,
    }  # fmt: skip
    assert found["bm25"]["run_id"] == run.run_id and found["peer"]["run_id"] is None


def test_rebuilt_from_the_journal_it_is_the_same() -> None:
    work()
    recording.freeze(home(), "abc", None, "now")
    recording.lock(home(), "s", CONTENTS, "")
    before = seen()
    (home() / INDEX).unlink()
    done = rebuild(home())
    assert (done.from_folders, done.damaged) == (0, [])
    assert seen() == before


def test_rebuilt_from_folders_alone_only_what_has_no_folder_is_missing() -> None:
    work()
    before = seen()
    for file in home().glob("ledger.*"):
        file.unlink()
    rebuild(home())
    after = seen()
    before["looks"] = [row for row in before["looks"] if row["model"] != "checkpoint"]
    assert after == before


def test_a_second_rebuild_changes_nothing() -> None:
    work()
    rebuild(home())
    before, journal = seen(), (home() / JOURNAL).read_bytes()
    assert rebuild(home()).from_folders == 0
    assert seen() == before
    assert (home() / JOURNAL).read_bytes() == journal


@pytest.mark.parametrize("lost", [INDEX, JOURNAL])
def test_deleting_runs_and_one_of_the_files_lowers_no_count(lost: str) -> None:
    work()
    with open_ledger(home()) as ledger:
        before, many = count_looks(ledger), family()
    for folder in home().iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    (home() / lost).unlink()
    rebuild(home())
    with open_ledger(home()) as ledger:
        assert count_looks(ledger) == before
        assert all_runs(ledger)[0]["deleted"]
    assert family() == many
    assert before[0]["looks"] == 5


def test_results_from_before_the_ledger_are_found(tmp_path: Path) -> None:
    folder = home() / "evals" / "old" / "s"
    folder.mkdir(parents=True)
    summary = {
        "model": "old",
        "suite": "s",
        "mean": {"ndcg@10": 0.5},
        "settings": {"created": "2025-01-01T00:00:00+00:00"},
    }
    (folder / "metrics.json").write_text(json.dumps(summary))
    (home() / "evals" / "bad").mkdir()
    (home() / "evals" / "bad" / "metrics.json").write_text("{")
    (home() / "evals" / "odd").mkdir()
    odd = summary | {"settings": {"suite": ["s"]}}
    (home() / "evals" / "odd" / "metrics.json").write_text(json.dumps(odd))
    done = rebuild(home())
    assert done.from_folders == 2 and len(done.damaged) == 2
    assert [row["time"] for row in rows("SELECT time FROM looks")] == ["2025-01-01T00:00:00+00:00"]


def test_a_run_elsewhere_is_rebuilt_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "elsewhere")
    run.event("finished", seconds=9.0, tokens=1)
    rebuild(home())
    with open_ledger(home()) as ledger:
        assert find_recorded_run(ledger, run.run_id)["cost"]["seconds"] == 9.0


def test_the_family_counts_models_and_pairs() -> None:
    assert family().size == 1
    for number in range(5):
        look(None, "m", f"m{number}")
        look(None, "m", f"m{number}")  # again, unchanged: the same try
    assert family("m0", "m1") == ComparisonFamily(4, 5, 1)
    assert family("m0", "new") == ComparisonFamily(5, 6, 1, unrecorded=1)
    assert family("m0", "m1", "recall@100").size == 1  # which nobody looked at
    for a in range(4):
        for b in range(4):
            if a != b:
                compared(f"m{a}", f"m{b}")  # six pairs, each both ways
    assert family("m0", "m1") == ComparisonFamily(6, 5, 6)
    assert family("m0", "m4") == ComparisonFamily(7, 5, 7)


def test_a_freeze_begins_no_family() -> None:
    for number in range(20):
        look(None, "m", f"m{number}")
    recording.freeze(home(), "abc", None, "")
    assert family("m0", "m1").size == 19
    look(None, "m", "fresh")
    assert (family("m0", "fresh").size, family("m0", "fresh").models) == (20, 21)


def test_looks_are_counted_by_contents() -> None:
    look(None, "m", "a")
    look(None, "m", "a")
    look(None, "m", "b", contents="other")
    recording.freeze(home(), "abc", None, "")
    look(None, "m", "c")
    compared("a", "b")
    with open_ledger(home()) as ledger:
        first, second = count_looks(ledger)
    assert (first["looks"], first["looks_since_freeze"], first["models"], first["models_since_freeze"]) == (3, 1, 2, 1)
    assert (first["comparisons"], first["locked"]) == (1, False)
    assert (second["looks"], second["suite_fingerprint"]) == (1, "other")


def check_lock(suite: str, contents: str, recipe: str | None) -> None:
    may_see(NamedSuite(suite, contents), REFERENCE if recipe is None else Viewer("run", recipe, "m"))


def test_a_locked_suite_opens_for_the_frozen_recipe_and_then_for_baselines() -> None:
    check_lock("s", CONTENTS, "abc")
    recording.freeze(home(), "early", None, "")
    recording.lock(home(), "s", CONTENTS, "")
    for suite, contents in (("s", "changed"), ("renamed", CONTENTS)):
        with pytest.raises(InputError, match="locked until a recipe is frozen"):
            check_lock(suite, contents, None)
    check_lock("other", "other", "abc")
    run = make_run(home())
    recording.freeze(home(), "abc", run.run_id, "")
    check_lock("s", CONTENTS, "abc")
    with pytest.raises(InputError, match="until one of them is scored on it"):
        check_lock("s", CONTENTS, None)
    look(None, "trained", "t", run=run)
    check_lock("s", CONTENTS, None)
    with pytest.raises(InputError, match="for frozen recipes only"):
        check_lock("s", CONTENTS, "xyz")


def test_a_damaged_index_opens_no_lock() -> None:
    recording.lock(home(), "s", CONTENTS, "")
    (home() / INDEX).write_bytes(b"garbage" * 1000)
    with pytest.raises(InputError, match="locked"):
        check_lock("s", CONTENTS, None)


def test_a_ledger_that_cannot_be_written_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(recording, "_warned", set())
    run = make_run(tmp_path / "runs")
    look(run.evaluation("trained", "s"), "trained", "t", run=run)
    compared("a", "b")
    check_lock("s", CONTENTS, None)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"warning: the ledger does not know the run {run.path.name}: ")


def test_the_difference_of_two_runs() -> None:
    data = {"0-contrast": {"x": {"rows": 3, "content_hash": "h", "path": "/one"}}}
    other = {"0-contrast": {"x": {"rows": 3, "content_hash": "k", "path": "/two"}}}
    code = {"git": {"commit": "c1", "dirty": False}, "versions": {"torch": "2"}, "machine": {"cores": 2}}
    a = make_run(home(), "a", data=data, environment=code)
    text = RECIPE.replace("mean", "{name: last_token}")
    b = make_run(home(), "b", data=other, environment={**code, "versions": {"torch": "3"}}, recipe_text=text)
    for run, value in ((a, 0.5), (b, 0.6)):
        look(run.evaluation("trained", "s"), "trained", run.run_id, value=value, run=run)
        look(run.evaluation("bm25", "s"), "bm25", "bm25", run=run)
    with open_ledger(home()) as ledger:
        found = diff_runs(ledger, find_recorded_run(ledger, a.run_id), find_recorded_run(ledger, b.run_id))
    assert found == {
        "recipe": {"model.readout": ["mean", None], "model.readout.name": [None, "last_token"]},
        "data": {"0-contrast.x.content_hash": ["h", "k"]},
        "code": {"versions.torch": ["2", "3"]},
        "machine": {},
        "scores": {"s": [0.5, 0.6]},
        "metrics": {"s": "ndcg@10"},
        "limits": {},
        "further_looks": {},
    }


def test_a_look_at_cut_texts_is_not_a_runs_score() -> None:
    a, b = make_run(home(), "a"), make_run(home(), "b")
    for run, tokens, value in ((a, 64, 0.5), (a, 8, 0.1), (b, 64, 0.4), (b, 8, 0.2)):
        look(run.evaluation(f"at-{tokens}", "s"), "trained", run.run_id, value=value, run=run, max_tokens=tokens)
    with open_ledger(home()) as ledger:
        assert [run["scores"] for run in all_runs(ledger)] == [{"s": 0.5}, {"s": 0.4}]
        assert [(one["cut_at"], one["mean"]["ndcg@10"]) for one in newest_evaluations(ledger, a.run_id)] == [
            (None, 0.5),
            (8, 0.1),
        ]
        assert diff_runs(ledger, find_recorded_run(ledger, a.run_id), find_recorded_run(ledger, b.run_id))[
            "scores"
        ] == {"s": [0.5, 0.4]}
    c = make_run(home(), "c")
    look(c.evaluation("trained", "s"), "trained", c.run_id, value=0.3, run=c, max_tokens=32)
    with open_ledger(home()) as ledger:
        assert diff_runs(ledger, find_recorded_run(ledger, a.run_id), find_recorded_run(ledger, c.run_id))[
            "limits"
        ] == {"s": [64, 32]}


def test_finding_a_run() -> None:
    a, b = make_run(home(), "one"), make_run(home(), "two")
    with open_ledger(home()) as ledger:
        assert find_recorded_run(ledger, "latest")["run_id"] == b.run_id
        assert find_recorded_run(ledger, a.run_id[:-2])["run_id"] == a.run_id
        assert find_recorded_run(ledger, str(a.path))["run_id"] == a.run_id
        with pytest.raises(InputError, match="matches 2 runs"):
            find_recorded_run(ledger, a.run_id[:8])
        with pytest.raises(InputError, match="no run 'nothing'"):
            find_recorded_run(ledger, "nothing")


def test_parents_are_the_runs_that_a_recipes_paths_lie_in(tmp_path: Path) -> None:
    run = make_run(home())
    (run.path / "model").mkdir()
    tree = {
        "model": {"base": str(run.path / "model")},
        "stages": [{"name": "x" * 5000, "data": "bundled:gemma-3-270m"}],
    }
    assert find_parents(tree) == [run.run_id]
    assert find_parents({"model": {"base": str(tmp_path)}, "n": 3, "odd": "a/\x00b"}) == []


def test_a_journal_that_is_no_file_is_one_line() -> None:
    make_run(home(), "one")
    (home() / JOURNAL).unlink()
    (home() / JOURNAL).symlink_to("/dev/null")  # it cannot be flushed
    with (
        pytest.raises(WorkError, match=r"ledger\.jsonl: .*; free space or make it readable and writable"),
        open_ledger(home()),
    ):
        pass


def test_a_recipe_that_is_no_text_is_one_line_and_its_run_is_not_rebuilt() -> None:
    run = make_run(home(), "one")
    (run.path / "recipe.yaml").write_bytes("name: one".encode("utf-16"))
    with pytest.raises(InputError, match=r"recipe\.yaml is damaged .*; put the file back"):
        _ = run.recipe_text
    assert len(rebuild(home()).damaged) == 1
