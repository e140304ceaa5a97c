"""Tricks by which somebody who wants a good number gets round the rules; docs/concepts/ledger.md lists them.

Each is refused, or said with the score; what no local file can prevent is in the docs alone. Nothing is trained here.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemma4vec.data.suites.group import make_group
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.ranking import Ranking
from gemma4vec.export.parity.ranking import open_dev_suite
from gemma4vec.files import home, write_json
from gemma4vec.ledger import recording
from gemma4vec.ledger.index import INDEX
from gemma4vec.ledger.journal import JOURNAL, Record
from gemma4vec.ledger.ledger import add, identity_of, open_ledger
from gemma4vec.ledger.recording import freeze, lock, record_run
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.suite_access import check_choice, may_see
from gemma4vec.recipe.schema import Evaluation
from gemma4vec.text.prompts import Document
from gemma4vec.training.monitoring.background_eval import check_background, note_dev_suite
from gemma4vec.training.monitoring.stop_rule import rule_suite
from gemma4vec.training.preflight import check_dev_suite

SIZE = 30


class Model:
    """Ranks the right document first for some of the queries."""

    def __init__(self, name: str, right: int = 20, folder: Path | None = None, weights: str | None = None):
        self.name, self.fingerprint, self.right, self.folder, self.weights = name, name, right, folder, weights

    def describe(self) -> dict[str, Any]:
        return {"kind": "test"}

    def rank(self, suite: RetrievalSuite, depth: int, progress: Any) -> Ranking:
        rows = len(suite.queries)
        indices = np.where(np.arange(rows) < self.right, np.arange(rows), -1)[:, None].astype(np.int64)
        return Ranking(indices, np.where(indices >= 0, 1.0, -np.inf).astype(np.float32), {})


def suite(name: str = "words", role: str | None = "final", first: int = 0, size: int = SIZE) -> RetrievalSuite:
    rows = range(first, first + size)
    return RetrievalSuite(
        name=name,
        corpus_ids=[f"d{row}" for row in rows],
        corpus=[Document(f"Text number {row}, about it.") for row in rows],
        query_ids=[f"q{row}" for row in rows],
        queries=[f"Where is number {row}?" for row in rows],
        qrels={f"q{row}": {f"d{row}": 1} for row in rows},
        role=role,  # type: ignore[arg-type]
    )


def one_document_more(of: RetrievalSuite, name: str, role: str | None = None) -> RetrievalSuite:
    corpus = [*of.corpus, Document("one more")]
    return replace(of, name=name, role=role, corpus_ids=[*of.corpus_ids, "more"], corpus=corpus)  # type: ignore[arg-type]


def new_run(name: str = "run", recipe: str = "recipe") -> RunFolder:
    run = RunFolder.create(home(), name, "name: x\nstages: []\n", recipe_id=recipe, status="finished")
    record_run(run)
    return run


def frozen(name: str = "run", recipe: str = "recipe") -> RunFolder:
    run = new_run(name, recipe)
    freeze(home(), recipe, run.run_id, "")
    return run


def scored(model: Model, on: RetrievalSuite, **named: Any) -> Path:
    folder = home() / "evals" / model.name / on.name
    evaluate(model, on, folder, **named)
    return folder


# Families of comparisons.


def test_a_freeze_before_each_look_resets_no_count() -> None:
    dev = suite("dev", "dev")
    base = scored(Model("base", 5), dev)
    for number in range(6):
        freeze(home(), f"recipe {number}", None, "")
        last = scored(Model(f"m{number}", 10 + number), dev)
    family = compare(load_result(last), load_result(base)).family
    assert family is not None and (family.size, family.models, family.unrecorded) == (6, 7, 0)


def test_other_settings_of_the_same_weights_reset_no_count() -> None:
    dev = suite("dev", "dev")
    for number in range(4):
        scored(Model(f"m{number}", 10 + number, weights="w"), dev)
    freeze(home(), "recipe", None, "")
    a, b = scored(Model("m3 at 64 tokens", 13, weights="w"), dev), scored(Model("m0 at 64 tokens", 10), dev)
    family = compare(load_result(a), load_result(b)).family
    assert family is not None and family.size == 5


def test_a_clock_that_is_set_changes_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    run, final = new_run(), suite()
    for module in ("recording", "suite_access", "ledger"):
        monkeypatch.setattr(f"gemma4vec.ledger.{module}.now", lambda: "2099-01-01T00:00:00.000000+00:00")
    lock(home(), final.name, final.fingerprint, "")
    for module in ("recording", "suite_access", "ledger"):
        monkeypatch.setattr(f"gemma4vec.ledger.{module}.now", lambda: "1999-01-01T00:00:00.000000+00:00")
    freeze(home(), "recipe", run.run_id, "")  # after the lock, whatever the clock says
    evaluate(Model("m"), final, run=run)
    with pytest.raises(InputError, match="a final score is taken once"):
        evaluate(Model("m trained further"), final, run=run)


def test_a_renamed_suite_with_one_document_more_begins_no_family() -> None:
    dev = suite("dev", None)
    for number in range(5):
        scored(Model(f"m{number}", 10 + number), dev)
    other = one_document_more(dev, "fresh")
    a, b = scored(Model("m4", 14), other), scored(Model("m0", 10), other)
    family = compare(load_result(a), load_result(b)).family
    assert family is not None and family.size == 4


def test_a_group_with_one_suite_more_begins_no_family() -> None:
    parts = [suite(name, None, first) for name, first in (("one", 0), ("two", 100), ("three", 200), ("four", 300))]
    for number in range(4):
        evaluate(Model(f"m{number}"), make_group("three", parts[:3]))
    folders = [home() / "evals" / name / "four" for name in ("a", "b")]
    found = [evaluate(Model(folder.parent.name), make_group("four", parts), folder) for folder in folders]
    family = compare(*found).family
    assert family is not None and family.models == 6


def test_one_pair_by_three_metrics_is_three_comparisons() -> None:
    dev = suite("dev", "dev")
    a, b = (load_result(scored(Model(name, right), dev)) for name, right in (("a", 20), ("b", 10)))
    sizes = [compare(a, b, metric=metric).family for metric in ("ndcg@10", "mrr@10", "map")]
    assert [one.size for one in sizes if one] == [1, 2, 3]


# Final and locked suites.


def test_a_further_freeze_opens_nothing_again() -> None:
    run, final = frozen(), suite()
    evaluate(Model("m"), final, run=run)
    freeze(home(), "recipe", run.run_id, "and again")
    with pytest.raises(InputError, match="however often its recipe is frozen"):
        evaluate(Model("m trained further"), final, run=run)


def test_looks_before_the_freeze_count() -> None:
    run = new_run()
    evaluate(Model("m"), suite(role=None), run=run)
    freeze(home(), "recipe", run.run_id, "")
    with pytest.raises(InputError, match="was looked at on it"):
        evaluate(Model("m trained further"), suite(), run=run)


def test_a_throwaway_freeze_opens_a_locked_suite_for_nobody_else() -> None:
    final, own = suite(), new_run("own", "own recipe")
    lock(home(), final.name, final.fingerprint, "")
    throwaway = frozen("throwaway", "throwaway recipe")
    with pytest.raises(InputError, match="for frozen recipes only"):
        evaluate(Model("m"), final, run=own)
    for reference in (Model("published"), Bm25Model()):
        with pytest.raises(InputError, match="until one of them is scored on it"):
            evaluate(reference, final)
    evaluate(Model("t"), final, run=throwaway)  # this look counts, and now BM25 stands next to it
    evaluate(Bm25Model(), final)


@pytest.mark.parametrize("role", [None, "dev"])
def test_a_role_that_is_taken_away_changes_nothing(role: str | None) -> None:
    evaluate(Bm25Model(), suite())
    with pytest.raises(InputError, match=r"words is a final suite \(it was opened as a final suite on "):
        evaluate(Model("m"), suite(role=role), run=new_run())


@pytest.mark.parametrize("change", ["one document more", "queries spelled differently", "most queries", "other ids"])
def test_a_changed_copy_is_recognized(change: str) -> None:
    final = suite()
    evaluate(Bm25Model(), final)
    copies = {
        "one document more": one_document_more(final, "mine"),
        "queries spelled differently": replace(
            final, queries=[f"  {text.upper().replace('?', '')}  ?!" for text in final.queries]
        ),
        "most queries": suite(size=20),
        "other ids": replace(
            final, query_ids=[f"x{key}" for key in final.query_ids], qrels={f"x{k}": v for k, v in final.qrels.items()}
        ),
    }
    copy = replace(copies[change], name="mine", role="dev")
    assert copy.fingerprint != final.fingerprint
    with pytest.raises(InputError, match=r"mine is a final suite \(it overlaps the final suite words"):
        evaluate(Model("m"), copy, run=new_run())
    with pytest.raises(InputError, match="mine overlaps the final suite words"):
        check_choice("stages.0.evaluation.suite", copy)


def test_a_part_of_a_final_suite_is_said(log_lines: list[str]) -> None:
    evaluate(Bm25Model(), suite())
    part, diluted = suite("part", "dev", size=10), suite("diluted", "dev", first=20, size=200)
    for one, shared in ((part, 10), (diluted, 10)):
        found = evaluate(Model("m"), one, run=new_run())
        (overlap,) = found.settings["overlaps"]
        assert (overlap["suite"], overlap["role"]) == ("words", "final")
        assert overlap["shared"] == pytest.approx(shared / SIZE, abs=1e-3)
        assert any(f"{one.name} overlaps the final suite words (10 of its 30 queries)" in line for line in log_lines)


def test_a_final_suite_that_was_a_dev_suite_is_said() -> None:
    evaluate(Model("m"), suite("tuned on", "dev", size=10), run=new_run())
    found = evaluate(Bm25Model(), suite("fresh"))
    assert [(one["suite"], one["role"], one["shared"]) for one in found.settings["overlaps"]] == [
        ("tuned on", "dev", 1.0)
    ]


def test_suites_of_one_collection_with_other_queries_are_two() -> None:
    final = suite()
    evaluate(Bm25Model(), final)
    other = replace(final, name="other", queries=[f"Who is person {row}?" for row in range(SIZE)], role="dev")
    assert "overlaps" not in evaluate(Model("m"), other, run=new_run()).settings


def test_a_final_suite_in_a_group_is_asked_about() -> None:
    evaluate(Bm25Model(), suite("one"))
    with pytest.raises(InputError, match="renamed is a final suite"):
        evaluate(Model("m"), make_group("g", [suite("renamed", None), suite("two", None, 100)]), run=new_run())


# Whose model it is.


def test_a_copied_model_folder_is_the_run_s_model(tmp_path: Path) -> None:
    run, final = frozen(), suite()
    evaluate(Model("m"), final, run=run)
    evaluate(Model("m trained further"), suite("dev", "dev", 100), run=run)
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    with pytest.raises(InputError, match=f"{run.run_id} was looked at on it"):
        evaluate(Model("m trained further", folder=copy), final)
    unfrozen = new_run("other", "other recipe")
    evaluate(Model("o"), suite("dev", "dev", 100), run=unfrozen)
    with pytest.raises(InputError, match=f"runs freeze {unfrozen.run_id}"):
        evaluate(Model("o", folder=copy), final)


def test_a_copy_with_other_settings_is_known_by_its_weights(tmp_path: Path) -> None:
    run = new_run()
    evaluate(Model("m", weights="hash of weights"), suite("dev", "dev", 100), run=run)
    with pytest.raises(InputError, match=f"runs freeze {run.run_id}"):
        evaluate(Model("with another prompt", folder=tmp_path, weights="hash of weights"), suite())


def test_a_quantized_copy_sees_no_more_than_its_run(tmp_path: Path) -> None:
    run, final = new_run(), suite()
    evaluate(Model("m", weights="whole"), suite("dev", "dev", 100), run=run)
    about = {"scheme": "q8_0", "source": run.run_id, "source_weights": "whole", "trained": False}
    write_json(tmp_path / "gemma4vec.json", {"model": {}, "fingerprint": "", "quantization": about})
    quantized = Model("m-q8_0", folder=tmp_path, weights="rounded")
    with pytest.raises(InputError, match=f"runs freeze {run.run_id}"):
        evaluate(quantized, final)
    freeze(home(), "recipe", run.run_id, "")
    assert evaluate(quantized, final).settings["run"]["run_id"] is None  # its score is not the run's
    with pytest.raises(InputError, match="a final score is taken once"):
        evaluate(Model("m", weights="whole"), final, run=run)


@pytest.mark.parametrize("recipe", [None, "recipe"])
def test_a_manifest_that_is_edited_changes_no_recipe(recipe: str | None) -> None:
    frozen("other")
    run, final = new_run("own", "own recipe"), suite()
    run.update_manifest(recipe_id=recipe)
    with pytest.raises(InputError, match=f"runs freeze {run.run_id}"):
        evaluate(Model("m"), final, run=run)


def test_a_baseline_s_name_is_no_disguise() -> None:
    run, final = frozen(), suite()
    evaluate(Model("m"), final, run=run, name="untrained")
    with pytest.raises(InputError, match="a final score is taken once"):
        evaluate(Model("m trained further"), final, run=run, name="untrained")


# Choices.


def test_no_choice_looks_at_what_the_ledger_knows_as_final(tmp_path: Path) -> None:
    write_suite(tmp_path / "words", suite())
    evaluate(Bm25Model(), suite())
    write_suite(tmp_path / "mine", one_document_more(suite(), "mine", "dev"))
    run = new_run()
    for name in ("words", "mine"):
        settings = Evaluation(suite=str(tmp_path / name), every_steps=1, max_queries=5)
        with pytest.raises(InputError, match=r"evaluation\.suite: .* final suite"):
            check_dev_suite(settings, None, "stages.0.evaluation")
        with pytest.raises(InputError, match=r"evaluation\.stop: .* final suite"):
            rule_suite(settings, None, "stages.0.evaluation.stop")
        note_dev_suite(run, 0, settings, None)
        with pytest.raises(InputError, match=r"evaluation\.background: .* final suite"):
            check_background(run, 0)
        with pytest.raises(InputError, match=r"^--suite: .* final suite"):
            open_dev_suite(cast(Any, "no source is needed"), str(tmp_path / name), 5, 5)  # of an export


def test_a_sample_is_asked_about_with_what_it_is_sampled_from(tmp_path: Path) -> None:
    whole = suite(role=None)
    evaluate(Bm25Model(), replace(whole, role="final"))
    write_suite(tmp_path / "words", whole)
    assert sample_suite(whole, 3, 3).fingerprint != whole.fingerprint
    with pytest.raises(InputError, match="words was opened as a final suite"):
        rule_suite(Evaluation(suite=str(tmp_path / "words"), max_queries=3, max_documents=3), None, "stop")


def test_a_matrix_holds_out_only_what_nobody_opened() -> None:
    held_out, final = suite("held out"), suite("words", "final", 100)
    evaluate(Model("cell"), held_out, run=new_run(), look_again="held out by the matrix m, whose choices use dev")
    may_see(replace(held_out, role=None), use="hold out")
    evaluate(Bm25Model(), final)
    for one in (replace(final, role=None), one_document_more(final, "mine")):
        with pytest.raises(InputError, match="so its recipes must be frozen first"):
            may_see(one, use="hold out")


# Records.


def test_edited_scores_are_refused() -> None:
    folder = scored(Model("m", 10), suite("dev", "dev"))
    table = pq.read_table(folder / "per_query.parquet")
    values = pa.array([1.0] * len(table), pa.float64())
    pq.write_table(
        table.set_column(table.schema.get_field_index("value"), "value", values), folder / "per_query.parquet"
    )
    with pytest.raises(InputError, match="is not the one that the ledger recorded"):
        load_result(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("contamination", None), ("model_fingerprint", "another"), ("look_again", "nothing"), ("run", {"run_id": None})],
)
def test_edited_settings_are_refused(key: str, value: Any) -> None:
    folder = home() / "evals" / "m"
    evaluate(Model("m", 10), suite(), folder, run=new_run(), look_again="I wanted to")
    summary = json.loads((folder / "metrics.json").read_text())
    assert load_result(folder).settings["look_again"] == "I wanted to"
    summary["settings"][key] = {"touched_queries": {}} if key == "contamination" else value
    write_json(folder / "metrics.json", summary)
    with pytest.raises(InputError, match="is not the one that the ledger recorded"):
        load_result(folder)


def test_an_edited_name_is_refused() -> None:
    folder = scored(Model("m", 10), suite("dev", "dev"))
    summary = json.loads((folder / "metrics.json").read_text())
    write_json(folder / "metrics.json", {**summary, "model": "another"})
    with pytest.raises(InputError, match="is not the one that the ledger recorded"):
        load_result(folder)


def test_edited_means_are_refused() -> None:
    folder = scored(Model("m", 10), suite("dev", "dev"))
    summary = json.loads((folder / "metrics.json").read_text())
    summary["mean"]["ndcg@10"] = 0.99
    write_json(folder / "metrics.json", summary)
    with pytest.raises(InputError, match=r"says ndcg@10 0\.99 and its queries say 0\.33"):
        load_result(folder)


def test_a_look_that_was_never_taken_is_refused() -> None:
    folder = scored(Model("m", 10), suite("dev", "dev"))
    summary = json.loads((folder / "metrics.json").read_text())
    summary["settings"]["look"] = "0" * 16
    write_json(folder / "metrics.json", summary)
    with pytest.raises(InputError, match="names a look that the ledger does not have"):
        load_result(folder)


def test_results_name_their_ledger_and_another_one_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dev = suite("dev", "dev")
    here = load_result(scored(Model("here"), dev))
    assert here.settings["ledger"] == {"id": identity_of(home()), "file": str((home() / JOURNAL).resolve())}
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "secret"))
    there = load_result(scored(Model("there", 5), dev))
    assert there.settings["ledger"]["id"] not in (None, here.settings["ledger"]["id"])
    family = compare(here, there).family
    assert family is not None and family.unrecorded == 1
    assert "this ledger did not record 1 of the results" in family.sentence()


def test_a_look_that_no_ledger_recorded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "file"))
    found = evaluate(Model("m"), suite("dev", "dev"))
    assert found.settings["ledger"]["id"] is None and found.settings["ledger"]["why"]


def test_a_final_suite_is_not_opened_where_nothing_can_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = frozen(), Model("m")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gemma4vec.ledger.journal.os.write", full)
    with pytest.raises(InputError, match=r"cannot be recorded: .*No space left on device"):
        evaluate(model, suite(), run=run)


def test_a_look_that_was_cut_off_counts() -> None:
    """Also that of another process at the same time: it is recorded before the first text is encoded."""
    run, final = frozen(), suite()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Model, "rank", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        evaluate(Model("m"), final, run=run)
    with pytest.raises(InputError, match="was looked at on it"):
        evaluate(Model("m trained further"), final, run=run)
    evaluate(Model("m"), final, run=run)


# The ledger's files.


def count() -> int:
    with open_ledger(home()) as ledger:
        return int(ledger.value("SELECT count(*) FROM records"))


def lines() -> list[str]:
    return (home() / JOURNAL).read_text(encoding="utf-8").splitlines()


def note(name: str, text: str = "") -> Record:
    return Record(name, "note", "2026-01-01T00:00:00.000000+00:00", {"text": text})


@pytest.mark.parametrize("damage", ["shorter", "one line out", "gone", "empty", "another", "merged", "reordered"])
def test_the_journal_gets_back_what_it_lost(damage: str) -> None:
    for number in range(6):
        add(home(), [note(f"n{number}", "x" * number)])
    kept = lines()
    changed = {
        "shorter": kept[:3],
        "one line out": [*kept[:2], *kept[3:]],
        "empty": [],
        "another": [note("other").line().decode().strip()],
        "merged": [*kept[:2], note("other").line().decode().strip(), *kept[2:]],
        "reordered": [*kept[:4], kept[5], kept[4]],
    }
    if damage == "gone":
        (home() / JOURNAL).unlink()
    else:
        (home() / JOURNAL).write_text("".join(f"{line}\n" for line in changed[damage]))
    add(home(), [note("after")])
    names = {json.loads(line)["id"] for line in lines()}
    expected = {f"n{number}" for number in range(6)} | {"after"} | ({"other"} & names)
    assert names == expected and ("other" in names) == (damage in ("another", "merged"))
    assert count() == len(names)
    (home() / INDEX).unlink()
    assert count() == len(names)


def test_the_order_of_events_stays_when_the_journal_is_deleted() -> None:
    """Else a freeze from before a lock would come after it, and open it."""
    run, final = frozen(), suite(role=None)
    (home() / JOURNAL).unlink()
    lock(home(), final.name, final.fingerprint, "")
    (home() / INDEX).unlink()
    with pytest.raises(InputError, match="locked until a recipe is frozen"):
        evaluate(Model("m"), final, run=run)


BAD_LINES = [
    b'{"id": "x", "kind": "look", "time": "", "body": {"model": "\\ud800"}}',
    b'{"id": "y", "kind": "look", "time": "", "body": {"value": NaN}}',
    b'{"id": "z", "kind": "freeze", "time": "", "body": ' + b"[" * 100_000,
    b"\xff\xfe\x00 no text",
    b'{"id": 3}',
    b'{"id": "s", "kind": "suite", "time": "", "body": {"query_hashes": "zz", "queries": "many"}}',
    b'{"id": "l", "kind": "look", "time": "", "body": {"metrics": 7, "suite_fingerprint": []}}',
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_damaged_line_costs_a_warning(line: bytes, log_lines: list[str]) -> None:
    evaluate(Bm25Model(), suite("dev", "dev"))
    with (home() / JOURNAL).open("ab") as stream:
        stream.write(line + b"\n")
    found = evaluate(Model("m"), suite("dev", "dev"), run=new_run())
    assert found.settings["ledger"]["id"] == identity_of(home())
    with open_ledger(home()) as ledger:
        assert ledger.value("SELECT count(DISTINCT model_fingerprint) FROM looks WHERE suite = 'dev'") == 2


@pytest.mark.parametrize("damage", ["no database", "pages", "a table is missing", "another version"])
def test_a_damaged_index_costs_a_warning(
    damage: str, log_lines: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_warned", set())
    evaluate(Model("first"), suite("dev", "dev"))
    run = frozen()
    path = home() / INDEX
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    if damage == "no database":
        path.write_bytes(b"garbage" * 1000)
    elif damage == "pages":
        with path.open("r+b") as stream:
            stream.seek(100)
            stream.write(b"\xff" * 30_000)
    else:
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP VIEW looks" if damage == "a table is missing" else "PRAGMA user_version = 99")
    found = evaluate(Model("m"), suite("dev", "dev"), run=run)
    assert found.settings["ledger"]["id"] == identity_of(home())
    assert any(json.loads(line)["body"].get("model") == "m" for line in lines())
    evaluate(Model("m"), suite(first=100), run=run)
    with pytest.raises(InputError, match="a final score is taken once"):
        evaluate(Model("m trained further"), suite(first=100), run=run)
    assert "Traceback" not in capsys.readouterr().err


def test_deleted_results_and_runs_lower_no_count() -> None:
    dev = suite("dev", "dev")
    for number in range(5):
        scored(Model(f"m{number}"), dev)
    shutil.rmtree(home() / "evals")
    a, b = scored(Model("a", 20), dev), scored(Model("b", 10), dev)
    family = compare(load_result(a), load_result(b)).family
    assert family is not None and family.models == 7


def test_a_reason_stays_with_the_look() -> None:
    evaluate(Model("m"), suite(), run=new_run(), look_again="I wanted to")
    with open_ledger(home()) as ledger:
        words = ledger.value("SELECT json_extract(body, '$.look_again') FROM records WHERE kind = 'look'")
    assert words == "I wanted to"
