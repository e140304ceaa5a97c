"""A whole inspection: its files, its seal, and what is refused in one line."""

import json
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from planted_suite import PlantedModel, planted_suite
from scipy import stats

from gemma4vec.data.quality.contamination_record import ContaminationRecord, write_record
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError, WorkError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.open_any_suite import require_retrieval
from gemma4vec.files import home
from gemma4vec.inspection.confirm import confirm, find_slice
from gemma4vec.inspection.explain.explain_query import explain_query
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Inspection, Subject
from gemma4vec.inspection.inspection_files import FILES, held, load_inspection
from gemma4vec.inspection.probes.registry import Material
from gemma4vec.inspection.steps import steps_folder
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.suite_halves import split_halves
from gemma4vec.recipe.load import load_recipe
from gemma4vec.retrieval.tokenize import tokenize_text
from gemma4vec.training.run import start_run

SUITE = planted_suite()


def run(out: Path, suite: RetrievalSuite = SUITE, **settings: Any) -> Inspection:
    model = settings.pop("model", None) or PlantedModel()
    return inspect(Subject(model, "planted"), suite, out, against=Subject(Bm25Model(), "bm25"), **settings)


def confirm_again(name: str, folder: Path, suite: RetrievalSuite = SUITE, model: Any = None) -> Any:
    def open_model(how: Any) -> Subject:
        return Subject(Bm25Model(), "bm25") if how["spec"] == "bm25" else Subject(model or PlantedModel(), "planted")

    return confirm(name, folder, open_model, lambda how: suite, permutations=999)


def test_the_planted_slice_is_first_and_confirmed_once(tmp_path: Path) -> None:
    found = run(tmp_path / "out")
    best = found.slices[0]
    assert best.rule == "digits is yes" and best.view == "paired" and best.p_max_t < 0.01
    assert f"inspect confirm {best.id}" in found.advice[0].what
    sealed = confirm_again(best.id, tmp_path / "out")
    assert sealed.verdict == "confirmed" and sealed.found.high < 0 and sealed.opened == 1
    assert 0 < sealed.found.detectable < abs(sealed.found.gap)
    assert load_inspection(tmp_path / "out")[1][0]["status"] == "confirmed"
    with pytest.raises(InputError, match=r"spent on planted: confirmed on 20.*gap -0"):
        confirm_again(best.id, tmp_path / "out")
    with open_ledger(home()) as ledger:
        kept = ledger.rows("SELECT metric, family, verdict FROM comparisons")
    assert kept == [{"metric": "ndcg@10 in digits is yes", "family": 1, "verdict": "confirmed"}]
    assert run(tmp_path / "again").slices[0].status == "confirmed"  # another inspection knows it too


def test_a_slice_of_a_persons_own_is_refuted_and_pays_for_the_first_opening(tmp_path: Path) -> None:
    best = run(tmp_path / "out").slices[0]
    confirm_again(best.id, tmp_path / "out")
    own = confirm_again("gold_words > 4 and digits is no", tmp_path / "out")
    assert own.verdict == "refuted" and own.opened == 2 and own.p_family == min(1.0, 2 * own.found.p)
    assert own.proposed_gap is None and "slice 2 that was opened on planted" in own.sentence()


def test_slices_of_a_sample_are_found_on_queries_that_the_whole_suite_leaves_open(tmp_path: Path) -> None:
    found = run(tmp_path / "out", sample_suite(SUITE, 80, None))
    halves = split_halves(SUITE.fingerprint, SUITE.query_ids)
    assert halves is not None and found.sealed is not None and found.suite.halves is not None
    of_whole = dict(zip(SUITE.query_ids, halves.tolist(), strict=True))
    assert found.sealed.tolist() == [of_whole[key] for key in found.suite.query_ids]
    best = found.slices[0]
    assert best.rule == "digits is yes"
    assert confirm_again(best.id, tmp_path / "out", found.suite).opened == 1
    # The sealed queries are the whole suite's: a slice that is opened there is the second one.
    assert confirm_again(run(tmp_path / "whole").slices[0].id, tmp_path / "whole").opened == 2


def test_files_hold_no_sealed_values(tmp_path: Path) -> None:
    found = run(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    queries = pq.read_table(tmp_path / "out" / "queries.parquet").to_pylist()
    sealed = [row for row in queries if row["half"] == "sealed"]
    assert len(sealed) == 60 and len(queries) == 120
    measured = {"ndcg@10", "map", "against", "gold_rank", "gold_score", "top1_doc", "top1_score", "margin", "kinds"}
    for row in sealed:
        assert all(row[name] is None for name in measured) and row["query_words"] == 3.0
    shown = [row for row in queries if row["half"] == "discovery"]
    assert all(row["ndcg@10"] is not None for row in shown)
    right = {row["query_id"]: value for row, value in zip(queries, found.reading.values("ndcg@10"), strict=True)}
    assert all(row["ndcg@10"] == right[row["query_id"]] for row in shown)
    judged = pq.read_table(tmp_path / "out" / "judged.parquet").to_pylist()
    half = {row["query_id"]: row["half"] for row in queries}
    assert all((row["rank"] is None) == (half[row["query_id"]] == "sealed") for row in judged)
    documents = pq.read_table(tmp_path / "out" / "documents.parquet").to_pydict()
    assert sum(documents["k_occurrence"]) == 1200 and 0 < sum(documents["wrong_top10"]) <= 600
    about = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert about["halves"] == {"discovery": 60, "sealed": 60}
    assert {one["name"] for one in about["figures"]} >= {
        "hubness",
        "mean cosine",
        "int8",
        "first 16 of 32",
        "alignment",
    }
    assert about["discovery_means"]["planted-model"] == pytest.approx(np.mean([row["ndcg@10"] for row in shown]))


def test_a_killed_inspection_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = PlantedModel()
    with monkeypatch.context() as patch:
        patch.setattr(
            "gemma4vec.inspection.inspect.vector_figures", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()
    encoded = model.encoded
    first = run(tmp_path / "out", model=model)
    assert model.encoded - encoded == 120 + 60  # the geometry's vectors: ranks were known
    encoded = model.encoded
    again = run(tmp_path / "out", model=model)
    assert model.encoded == encoded and again.slices == first.slices and again.figures == first.figures


def test_bm25_alone_has_absolute_slices_and_no_geometry(tmp_path: Path) -> None:
    hard = replace(SUITE, queries=[query if "7" in query else "eh oh x" for query in SUITE.queries])
    found = inspect(Subject(Bm25Model(), "bm25"), hard, tmp_path / "out")
    assert {one.view for one in found.slices} == {"absolute"} and found.slices[0].rule == "overlap <= 0"
    assert [one.name for one in found.figures] == ["hubness", "never shown"]
    assert confirm_again(found.slices[0].id, tmp_path / "out", hard).against is None


def test_final_suites_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    model = PlantedModel()
    with pytest.raises(InputError, match="inspect shows single queries: planted is a final suite"):
        run(tmp_path / "out", replace(SUITE, role="final"), model=model)
    assert model.encoded == 0 and not (tmp_path / "out").exists()


def test_a_suite_that_became_final_stays_sealed(tmp_path: Path) -> None:
    best = run(tmp_path / "out").slices[0]
    with pytest.raises(InputError, match="inspect confirm: planted is a final suite"):
        confirm_again(best.id, tmp_path / "out", replace(SUITE, role="final"))
    with open_ledger(home()) as ledger:
        assert ledger.rows("SELECT 1 FROM records WHERE kind = 'exposure'") == []


def test_one_query_has_no_halves(tmp_path: Path) -> None:
    one = replace(SUITE, query_ids=["q0"], queries=SUITE.queries[:1], qrels={"q0": {"d0": 1}})
    found = run(tmp_path / "out", one)
    assert found.notes[0].startswith("no halves: ") and found.slices == []
    assert pq.read_table(tmp_path / "out" / "queries.parquet")["half"].to_pylist() == ["discovery"]


def test_equal_scores_are_one_note(tmp_path: Path) -> None:
    found = run(tmp_path / "out", model=PlantedModel(constant=True))
    assert any("no geometry: fewer than 20 different document vectors" in note for note in found.notes)
    perfect = inspect(Subject(Bm25Model(), "bm25"), SUITE, tmp_path / "bm25")
    assert perfect.notes == ["no slices: all 60 queries of the open half score 1.000"]


def test_broken_vectors_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="1 of 120 document vectors of planted-model on planted are not finite"):
        run(tmp_path / "out", model=PlantedModel(broken=True))
    assert not (tmp_path / "out").exists()


def test_a_changed_suite_is_not_opened(tmp_path: Path) -> None:
    best = run(tmp_path / "out").slices[0]
    with pytest.raises(InputError, match="planted has changed since the inspection"):
        confirm_again(best.id, tmp_path / "out", planted_suite(seed=1))
    assert confirm_again(best.id, tmp_path / "out").opened == 1  # it was not counted


def test_a_lost_cache_is_computed_again_and_another_model_refused(tmp_path: Path) -> None:
    found = run(tmp_path / "out")
    for path in steps_folder(found.steps["model"]).iterdir():
        path.unlink()
    with pytest.raises(InputError, match="another model"):
        confirm_again(found.slices[0].id, tmp_path / "out", model=PlantedModel("other"))
    with open_ledger(home()) as ledger:
        assert ledger.rows("SELECT 1 FROM records WHERE kind = 'exposure'") == []  # so no later slice pays for it
    model = PlantedModel()
    assert confirm_again(found.slices[0].id, tmp_path / "out", model=model).verdict == "confirmed" and model.encoded > 0


def test_a_slice_that_can_show_no_gap_stays_sealed(tmp_path: Path) -> None:
    few = planted_suite(10)
    run(tmp_path / "out", few)
    halves = pq.read_table(tmp_path / "out" / "queries.parquet").to_pydict()
    inside = sum(half == "sealed" and digits for half, digits in zip(halves["half"], halves["digits"], strict=True))
    assert inside == 1
    with pytest.raises(InputError, match=r"has 1 of 5 sealed queries, which show no gap.*nothing was opened"):
        confirm_again("digits is yes", tmp_path / "out", few)
    with open_ledger(home()) as ledger:
        assert ledger.rows("SELECT 1 FROM records WHERE kind = 'exposure'") == []


def test_an_unknown_slice(tmp_path: Path) -> None:
    run(tmp_path / "out")
    with pytest.raises(InputError, match="no inspection below"):
        find_slice("abc")
    with pytest.raises(InputError, match="is no inspection"):
        find_slice("abc", tmp_path)
    with pytest.raises(InputError, match="this inspection has no slice 'abc'"):
        confirm_again("abc", tmp_path / "out")
    with pytest.raises(InputError, match="0 of 60 sealed queries"):
        confirm_again("query_words > 99", tmp_path / "out")


def _hold(folder: Path, ready: Any, done: Any) -> None:
    with held(folder):
        ready.set()
        done.wait(30)


def test_two_processes(tmp_path: Path) -> None:
    run(tmp_path / "out")
    context = get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "out", ready, done))
    other.start()
    ready.wait(30)
    with pytest.raises(InputError, match="another process inspects into"):
        run(tmp_path / "out")
    done.set()
    other.join()
    assert run(tmp_path / "out").slices


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"other files than an inspection \(notes.txt\)"):
        run(tmp_path / "out")


def test_a_group_needs_a_task() -> None:
    class Group:
        name, kind, members = "group", "retrieval", [SUITE, replace(SUITE, name="other")]

    with pytest.raises(InputError, match="group has 2 tasks; inspect one: --task planted"):
        require_retrieval(Group(), None)
    assert require_retrieval(Group(), "other").name == "other"
    with pytest.raises(InputError, match="no task 'third'"):
        require_retrieval(Group(), "third")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("slices.json", "{}"),
        ("slices.json", '[{"id": "x"}]'),
        ("slices.json", "[1"),
        ("inspection.json", "[]"),
        ("inspection.json", '{"model": {"name": "m"}}'),
        ("queries.parquet", "no parquet"),
    ],
)
def test_damaged_files_are_one_line(tmp_path: Path, file: str, content: str) -> None:
    best = run(tmp_path / "out").slices[0]
    (tmp_path / "out" / file).write_text(content)
    with pytest.raises(InputError, match=r"damaged .*; inspect again"):
        confirm_again(best.id, tmp_path / "out")
    with open_ledger(home()) as ledger:
        assert ledger.rows("SELECT 1 FROM records WHERE kind = 'exposure'") == []


def test_a_damaged_inspection_does_not_hide_another(tmp_path: Path) -> None:
    best = run(home() / "inspect" / "b" / "planted").slices[0]
    run(home() / "inspect" / "a" / "planted")
    (home() / "inspect" / "a" / "planted" / "slices.json").write_text("{")
    assert find_slice(best.id) == home() / "inspect" / "b" / "planted"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(WorkError, match="is a file; choose another folder with --out"):
        run(tmp_path / "out")


class Memorized(PlantedModel):
    """Answers what it was trained on, and guesses the rest."""

    def __init__(self, known: set[str]) -> None:
        super().__init__("memorized")
        self.known = known

    def _vector(self, text: str) -> np.ndarray:
        unknown = " stands" not in text and text not in self.known
        return super()._vector(f"7 {text}" if unknown else text.replace("7", "x"))


def test_queries_in_the_training_data_are_a_slice_of_their_own(tmp_path: Path) -> None:
    drawn = np.random.default_rng(4).permutation(120)[:60].tolist()
    model = Memorized({SUITE.queries[row] for row in drawn})
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "pos": ["b"]}\n')
    stage = {"data": [{"name": "pairs", "path": str(tmp_path / "rows.jsonl")}], "budget": {"steps": 2}}
    run_folder = start_run(load_recipe({"name": "small", "stages": [stage]}))
    run_folder.update_manifest(data={"0": {"pairs": {"content_hash": "ab" * 32, "rows": 60}}})
    subject = Subject(model, "memorized", run=run_folder)
    before = inspect(subject, SUITE, tmp_path / "before")
    assert set(before.columns["in_training"]) == {None}  # nobody has checked
    touched = [SUITE.query_ids[row] for row in drawn]
    found = {"queries": 120, "documents": 120, "found": [], "touched_queries": touched, "found_queries": 60}
    of_suite = {"suite": SUITE.name, "suite_fingerprint": SUITE.fingerprint, "found_documents": 60}
    write_record(ContaminationRecord("pairs", "ab" * 32, 60, **of_suite, **found, rules={}, created="2026-01-01"))
    after = inspect(subject, SUITE, tmp_path / "after")
    assert after.slices[0].rule == "in_training is no" and after.slices[0].p_max_t < 0.01
    found_slice = after.touched
    assert before.touched is None and found_slice is not None and found_slice["queries"] == 60
    inside_N = np.isin(SUITE.query_ids, touched)
    values_N = after.reading.values("ndcg@10")
    theirs, others = (values_N[after.open & mask] for mask in (inside_N, ~inside_N))
    (view,) = found_slice["views"]
    welch = stats.ttest_ind(theirs, others, equal_var=False).confidence_interval(0.95)
    assert (view["gap"], view["low"], view["high"]) == pytest.approx((theirs.mean() - others.mean(), *welch))
    assert found_slice["open"] == len(theirs) and view["p"] < 0.01
    assert after.notes[0].startswith(
        f"in training, by the checks so far: 60 of 120 queries or right documents of theirs ({len(theirs)} of"
    )
    about = json.loads((tmp_path / "after" / "inspection.json").read_text())
    assert about["in_training"] == found_slice
    assert after.columns["in_training"] == [key in set(touched) for key in SUITE.query_ids]
    sealed = confirm("in_training is no", tmp_path / "after", lambda _: subject, lambda _: SUITE, permutations=499)
    assert sealed.verdict == "confirmed"


def test_judgments_of_documents_that_the_corpus_lacks_lose_nothing(tmp_path: Path) -> None:
    sealed = split_halves(SUITE.fingerprint, SUITE.query_ids)
    qrels = {key: {**judged, "gone": 1} for key, judged in SUITE.qrels.items()}
    qrels["q1"] = {"gone": 1}
    suite = replace(SUITE, qrels=qrels)
    evidence = Material(suite, [1, 2], tokenize_text, None, 0).evidence()
    assert [query for query, _ in evidence] == [SUITE.queries[2]]  # texts of probes
    found = run(tmp_path / "out", suite)
    assert sealed is not None and found.slices[0].rule == "digits is yes"
    assert found.columns["gold_documents"][1] == 0.0 and found.columns["gold_documents"][2] == 1.0
    assert len(pq.read_table(tmp_path / "out" / "judged.parquet")) == 119 and found.reading.gold_rank()[1] == 0
    with pytest.raises(InputError, match="the corpus of planted has no right document of query 'q1'"):
        asked = replace(SUITE, qrels=qrels, query_ids=["q1"], queries=SUITE.queries[1:2])
        explain_query(Subject(PlantedModel(), "planted"), asked, "q1")
