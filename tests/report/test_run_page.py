"""The report: what is on it is what was measured, whatever the texts hold and whatever is missing."""

import json
import re
import shutil
from pathlib import Path

import pytest
from hostile_page import HOSTILE, Page
from synthetic_run import add_result, add_training, make_run, make_suite

from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.comparison.paired import largest_differences
from gemma4vec.evaluation.results.result import Result, load_result, save_result
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.suite_halves import split_halves
from gemma4vec.report.run_page import write_report


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("home"), queries=60)


def page_of(run: Path) -> Page:
    path = write_report(run)
    assert path == run / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_a_whole_run_shows_what_was_measured(whole_run):
    page = page_of(whole_run)
    comparison = compare(whole_run / "evals/trained/test", whole_run / "evals/bm25/test")
    assert f"{comparison.mean_a:.3f} against {comparison.mean_b:.3f}" in page.text
    assert f"{comparison.difference:+.3f}" in page.text
    assert f"{comparison.interval.low:+.3f} to {comparison.interval.high:+.3f}" in page.text
    assert comparison.verdict.word in page.text
    for model in ("bm25", "untrained", "trained"):
        result = load_result(whole_run / "evals" / model / "test")
        for metric in ("ndcg@10", "recall@100", "mrr@10", "map"):
            interval = result.interval(metric)
            limits = f"{interval.low:.3f} to {interval.high:.3f}" if interval.high > interval.low else "no interval"
            assert f"{interval.mean:.3f} {limits}" in page.text
    assert f"{comparison.wins:,} better" in page.text and f"{comparison.losses:,} worse" in page.text
    for words in (
        "60 queries over 120 documents",
        "450,000",
        "4.94 GiB",
        "2.1%",
        "Gemma terms of use",
        "What is missing",
    ):
        assert (words in page.text) == (words != "What is missing"), words


def test_examples_show_the_query_the_right_document_and_what_was_put_first(whole_run):
    page = page_of(whole_run)
    trained, bm25 = (load_result(whole_run / "evals" / model / "test") for model in ("trained", "bm25"))
    ids = [key for _, key in trained.keys]
    sealed = split_halves(trained.settings["suite"]["fingerprint"], ids)
    assert sealed is not None
    best = largest_differences(trained, bm25, "ndcg@10", ~sealed).largest_wins[0]
    row = int(best.query_id[1:])
    assert f"Return the shortest path number {row} between" in page.text
    assert f"def function_{row}(graph" in page.text
    assert page.text.count("Trained model: a relevant document first") >= 1
    assert "30 of 60 queries are sealed" in page.text and page.tags.count("details") > 5
    for key in (key for key, one in zip(ids, sealed, strict=True) if one):
        assert f"path number {key[1:]} between" not in page.text


def test_examples_of_a_final_suite_are_not_shown(tmp_path):
    run = make_run(tmp_path, queries=12, steps=20)
    for file in run.glob("evals/*/test/metrics.json"):
        about = json.loads(file.read_text())
        about["settings"]["suite"]["role"] = "final"
        file.write_text(json.dumps(about))
    page = page_of(run)
    assert "Single queries of a final suite are not shown" in page.text and "Return the shortest" not in page.text


def test_the_page_loads_nothing_and_runs_nothing(whole_run):
    page = page_of(whole_run)
    assert "script" not in page.tags
    assert not [value for name, value in page.attributes if name in ("src", "href") and value != "data:,"]
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    style = (whole_run / "report.html").read_text(encoding="utf-8").split("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_pictures_have_titles_and_tables_have_captions(whole_run):
    page = page_of(whole_run)
    assert page.tags.count("svg") >= 8
    assert page.tags.count("svg") == page.tags.count("title") - 1 == page.tags.count("desc")
    assert page.tags.count("table") == page.tags.count("caption") >= 3


def test_hostile_texts_are_shown_as_texts(tmp_path):
    run = make_run(tmp_path, queries=12, hostile=HOSTILE, steps=20)
    html = write_report(run).read_text(encoding="utf-8")
    page = Page(html)
    assert "img" not in page.tags and "b" in page.tags
    assert "</script></pre><b>&\"'" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", html)


def test_a_long_text_is_cut_and_says_so(tmp_path):
    run = make_run(tmp_path, queries=12, hostile="y" * 100_000, steps=20)
    path = write_report(run)
    assert "more characters are not shown" in Page(path.read_text(encoding="utf-8")).text
    # Ids and queries of 100,000 characters are cut as well.
    assert path.stat().st_size < 1_500_000


def test_a_run_that_has_only_started_says_what_is_missing(tmp_path):
    run = RunFolder.create(tmp_path, "started", "name: started\n")
    page = page_of(run.path)
    for words in ("No training step was recorded", "No evaluation of this run was found", "nothing can be said"):
        assert words in page.text
    assert "name: started" in page.text


def test_a_run_that_was_stopped_shows_its_curve(tmp_path):
    run = RunFolder.create(tmp_path, "stopped", "name: stopped\n")
    add_training(run, steps=40, finished=False)
    with (run.path / "events.jsonl").open("a") as stream:
        stream.write('{"event": "step", "step": 41, "lo')
    page = page_of(run.path)
    assert "the last recorded step is 40" in page.text and "torn" in page.text
    assert "Learning curve" in page.text and "60,000" in page.text


def test_texts_that_are_gone_leave_ids(tmp_path):
    run = make_run(tmp_path, queries=12, steps=20)
    shutil.rmtree(tmp_path / "data")
    page = page_of(run)
    assert "the page shows ids instead of texts" in page.text and "text not available" in page.text


def test_texts_that_changed_are_marked(tmp_path):
    run = make_run(tmp_path, queries=12, steps=20)
    make_suite(tmp_path / "data/pycode/test", 12, " changed")
    assert "The suite has changed since the evaluation" in page_of(run).text


def test_a_damaged_result_is_named_and_the_rest_shown(tmp_path):
    run = make_run(tmp_path, queries=12, steps=20)
    (run / "evals/bm25/test/per_query.parquet").write_bytes(b"no parquet")
    (run / "evals/untrained/test/metrics.json").write_text("{")
    page = page_of(run)
    assert "The result of BM25 on test cannot be read" in page.text
    assert "no other model was evaluated to compare it with" in page.text


@pytest.mark.parametrize(("skill", "words"), [(0.05, "is worse than BM25"), (0.351, "Undetermined whether")])
def test_the_headline_is_honest(tmp_path, skill, words):
    run = RunFolder.open(make_run(tmp_path, queries=60, steps=20))
    suite = make_suite(tmp_path / "data/pycode/test", 60)
    add_result(run, suite, "trained", skill, 7)
    assert words in page_of(run.path).text


def test_steps_that_a_resumed_run_repeated_count_once(tmp_path):
    run = RunFolder.create(tmp_path, "resumed", "name: resumed\n")
    add_training(run, steps=30, finished=False)
    for step in range(20, 31):
        run.event("step", step=step, loss=0.25, tokens=1500 * step, seconds=float(step))
    text = page_of(run.path).text
    assert "45,000" in text and "at the end: 0.250" in text


@pytest.mark.parametrize(
    "event",
    [
        {"event": "step"},
        {"event": "step", "step": "x", "loss": 1},
        {"event": "step", "step": 1, "loss": None, "tokens": None, "seconds": "soon"},
        {"event": "step", "step": 2, "loss": 1e300, "tokens": -5},
        {"event": "evaluation", "ndcg@10": None},
        {"event": "evaluation", "ndcg@10": 0.5, "step": 3, "suite": None, "low": "a"},
        {"event": "finished", "tokens": {}, "peak_memory_bytes": 0},
    ],
)
def test_odd_events_do_not_break_the_page(tmp_path, event):
    run = make_run(tmp_path, queries=6, steps=5)
    with (run / "events.jsonl").open("a") as stream:
        stream.write(json.dumps(event) + "\n")
    assert "Learning curve" in page_of(run).text


def test_other_suites_and_models_are_shown_too(tmp_path):
    run = RunFolder.open(make_run(tmp_path, queries=12, steps=20))
    other = make_suite(tmp_path / "other", 12)
    other.name = "scifact"
    for model, skill in (("trained", 0.4), ("minilm", 0.5)):
        add_result(run, other, model, skill, 3)
    page = page_of(run.path)
    assert "Scores on test" in page.text and "Scores on scifact" in page.text and "minilm" in page.text
    assert page.text.index("Scores on test") < page.text.index("Scores on scifact")
    assert "Not evaluated on scifact: BM25, untrained base." in page.text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError):
        write_report(tmp_path)


def test_pairs_rows_and_a_single_query_have_a_section_each_and_no_invented_interval(tmp_path):
    run = RunFolder.open(make_run(tmp_path, queries=12, steps=20))
    pairs = {str(n): {"similarity": n / 10, "gold": float(n % 4)} for n in range(9)}
    for kind, metric, items in (("sts", "spearman", pairs), ("loss", "loss", {"1": {"loss": 2.0}, "2": {"loss": 1.0}})):
        for model in ("trained", "untrained"):
            settings = {"kind": kind, "metric": metric, "suite": {"fingerprint": kind}, "model_fingerprint": model}
            save_result(Result(model, kind, {kind: items}, settings), run.evaluation(model, kind), [])
    one = {"q": {"ndcg@10": 0.5}}
    settings = {"suite": {"fingerprint": "one", "documents": 3}}
    save_result(Result("trained", "one", {"one": one}, settings), run.evaluation("trained", "one"), [])
    page = page_of(run.path)
    assert "9 pairs. Scores" in page.text and "2 rows. Scores" in page.text and "1 query over 3 documents" in page.text
    assert "0.500 no interval" in page.text  # not "0.500 to 0.500", as if it were known exactly
    assert "swaps the two models' ranks" in page.text


def test_a_degenerate_ranking_and_touched_queries_reach_the_headline(tmp_path):
    run = make_run(tmp_path, queries=20)
    bm25, trained = (run / "evals" / model / "test" for model in ("bm25", "trained"))
    for folder, changed in (
        (bm25, {"ranking": {"degenerate": True}}),
        (trained, {"contamination": {"sources": [], "touched_queries": {"test": ["q0", "q1"]}}}),
    ):
        result = load_result(folder)
        result.settings.update(changed)
        save_result(result, folder, [])
    page = page_of(run)
    assert "18 queries of test that no training data touches" in page.text
    assert "one side's ranking is degenerate and means nothing" in page.text
    assert "BM25: degenerate: most of its scores are equal" in page.text
    assert "training data touches 2 queries, which the comparison leaves out" in page.text
    result = load_result(trained)
    result.settings["contamination"]["touched_queries"]["test"] = [query for _, query in result.keys]
    save_result(result, trained, [])
    assert "Undetermined whether the trained model or BM25 is better" in page_of(run).text
