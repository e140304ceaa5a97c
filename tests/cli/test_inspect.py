"""`gemma4vec inspect`: exit codes, JSON, the screen, and the same slice confirmed by its id."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from planted_suite import planted_suite
from tiny_saved import save_tiny
from typer.main import get_group

from gemma4vec.cli.inspection.inspect import app
from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import write_suite
from gemma4vec.files import home

RECIPE = "gemma4vec/causal_last_token_native_dim"


@pytest.fixture
def hard_suite(tmp_path: Path) -> Path:
    """BM25 answers the queries with a digit alone."""
    suite = planted_suite(60, "hard", every=2)
    suite.queries = [query if "7" in query else "eh oh x" for query in suite.queries]
    write_suite(tmp_path / "hard", suite)
    return tmp_path / "hard"


def test_inspect_and_confirm(hard_suite: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert execute(["inspect", "bm25", "--suite", str(hard_suite), "--json", "--html", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    best = found["slices"][0]
    assert Path(found["folder"]) == home() / "inspect" / "bm25" / "hard" and best["rule"] == "overlap <= 0"
    text = page.read_text()
    assert "overlap &lt;= 0" in text and "<script" not in text
    assert execute(["inspect", "bm25", "--suite", str(hard_suite)]) == 0
    shown = capsys.readouterr().out
    assert best["id"] in shown and "30 open, 30 sealed" in shown and "1. confirm the slice" in shown
    assert execute(["inspect", "confirm", best["id"], "--json"]) == 0
    confirmed = json.loads(capsys.readouterr().out)
    assert confirmed["verdict"] == "confirmed" and confirmed["gap"] < -0.5 and confirmed["opened"] == 1
    assert execute(["inspect", "confirm", best["id"]]) == 2
    error = capsys.readouterr().err
    assert "is spent on hard" in error and error.count("\n") == 1
    assert execute(["inspect", "bm25", "--suite", str(hard_suite)]) == 0
    assert "(confirmed)" in capsys.readouterr().out


def test_a_suite_that_moved_opens_nothing_and_counts_nothing(
    hard_suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["inspect", "bm25", "--suite", str(hard_suite), "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["slices"][0]["id"]
    hard_suite.rename(hard_suite.with_name("elsewhere"))
    for words in (["confirm", best], ["remedy", best, "--recipe", RECIPE], ["bm25", "--suite", str(hard_suite)]):
        assert execute(["inspect", *words]) == 2
        error = capsys.readouterr().err
        assert str(hard_suite) in error and error.count("\n") == 1
    hard_suite.with_name("elsewhere").rename(hard_suite)
    assert execute(["inspect", "confirm", best, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["opened"] == 1


def test_judgments_of_unknown_documents_are_one_line(hard_suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (hard_suite / "qrels" / "test.tsv").open("a") as stream:
        stream.write("q0\tnobody\t1\n")
    assert execute(["inspect", "bm25", "--suite", str(hard_suite)]) == 2
    error = capsys.readouterr().err
    assert "nobody" in error and error.count("\n") == 1
    with (hard_suite / "suite.yaml").open("a") as stream:
        stream.write("unknown_ids: drop\n")
    assert execute(["inspect", "bm25", "--suite", str(hard_suite)]) == 0


def test_examples_on_the_page_are_of_the_open_half(hard_suite: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert execute(["inspect", "bm25", "--suite", str(hard_suite), "--html", str(page)]) == 0
    import pyarrow.parquet as pq

    rows = pq.read_table(home() / "inspect" / "bm25" / "hard" / "queries.parquet").to_pylist()
    text = page.read_text()
    sealed = [row["query_id"] for row in rows if row["half"] == "sealed"]
    shown = [row["query_id"] for row in rows if row["half"] == "discovery"]
    assert not any(f">{key}<" in text for key in sealed) and any(f">{key}<" in text for key in shown)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "bm25"], "--suite is missing, and no result of bm25 names one; name a dev suite: --suite DEV"),
        (["inspect", "bm25", "--suite", "SUITE", "--against", "bm25"], "--against bm25 is the inspected model itself"),
        (["inspect", "bm25", "--suite", "FINAL"], "inspect shows single queries: hard is a final suite"),
        (["inspect", "bm25", "--suite", "SUITE", "--task", "x"], "hard has no task 'x'"),
        (
            ["inspect", "bm25", "--suite", "SUITE", "--probes", "all"],
            "--probes, --layers and --map need vectors, and bm25",
        ),
        (["inspect", "bm25", "--suite", "SUITE", "--probes", "x"], "--probes x: use all, or some of truncation"),
        (["inspect", "confirm", "abc"], "no inspection below"),
        (["inspect", "confirm", "abc", "--in", "SUITE"], "is no inspection"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, hard_suite: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    final = planted_suite(20, "hard")
    final.role = "final"
    write_suite(tmp_path / "final", final)
    places = {"SUITE": str(hard_suite), "FINAL": str(tmp_path / "final")}
    assert execute([places.get(word, word) for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_final_suite_is_spent_for_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    final = planted_suite(20, "last")
    final.role = "final"
    write_suite(tmp_path / "last", final)
    words = ["inspect", "bm25", "--suite", str(tmp_path / "last")]
    assert execute([*words, "--spend", ""]) == 2 and "say why" in capsys.readouterr().err
    assert execute([*words, "--spend", "its failures are needed"]) == 0
    assert execute(words) == 0


def test_help_is_that_of_the_model_command_and_names_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["inspect", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--against" in out and "openTSNE" in out
    shown = out.rpartition("Further commands")[2]
    assert [name for name, one in get_group(app).commands.items() if not one.hidden and name not in shown] == []


def test_a_folder_may_be_called_model(
    hard_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute(["inspect", "model", "--suite", str(hard_suite)]) == 2
    said = capsys.readouterr().err
    assert "Missing" not in said and "model" in said.strip().splitlines()[-1]


def test_a_saved_model_is_inspected_with_its_geometry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_suite(tmp_path / "planted", planted_suite(120))
    model = save_tiny(tmp_path / "tiny", "both-mean")
    words = ["inspect", str(model), "--suite", str(tmp_path / "planted"), "--dtype", "fp32"]
    words += ["--out", str(tmp_path / "out"), "--probes", "prompts,negation,limit"]
    page = tmp_path / "page.html"
    assert execute([*words, "--json", "--html", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["against"]["name"] == "bm25" and found["model"]["open"]["dtype"] == "fp32"
    assert {"mean cosine", "alignment", "int8"} <= {one["name"] for one in found["figures"]}
    assert {"gold_truncated", "evidence_cut"} <= {one["name"] for one in found["kinds"]}
    prompts, limit = found["probes"]["figures"], found["probes"]["probes"][2]
    assert {one["name"] for one in prompts} == {"without prompts", "with the prompts retrieval"}
    assert limit["curve"]["bm25"] > 0.9 and prompts[0]["n"] == 60
    assert prompts[0]["sentence"] in page.read_text() and "LIMIT on the corpus" in page.read_text()
    assert execute(words) == 0
    shown = capsys.readouterr().out
    assert "LIMIT, recall by dimensions: 8: " in shown and "negation: 0 cases are too few" in shown
    assert execute(["inspect", "confirm", "digits is yes", "--in", str(tmp_path / "out"), "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert own["view"] == "paired" and own["n_inside"] + own["n_outside"] == 60 and own["against"] == "bm25"


def test_lists_for_a_person(hard_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, model = tmp_path / "page.html", str(save_tiny(tmp_path, "causal-last"))
    assert execute(["inspect", "flips", "bm25", model, "--suite", str(hard_suite), "--json", "--html", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Path(found["file"]).is_file() and found["queries"] == 30 and "Reading list" in page.read_text()
    assert execute(["inspect", "flips", "bm25", model, "--suite", str(hard_suite)]) == 0
    assert "of 30 queries" in capsys.readouterr().out
    key = found["list"][0]["query_id"]
    assert execute(["inspect", "explain", model, key, "--suite", str(hard_suite)]) == 0
    assert f"{key}: " in capsys.readouterr().out
    assert execute(["inspect", "explain", model, "x", "--suite", str(hard_suite)]) == 2
    assert "has no query 'x'" in capsys.readouterr().err


def test_labels_are_queued_graded_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = planted_suite(30, "copied")
    copies = [one._replace(text=one.text + " Again.") for one in planted.corpus]  # judged; BM25 shows the others first
    ids = [f"c{row}" for row in range(30)]
    qrels = {f"q{row}": {f"c{row}": 1} for row in range(30)}
    copied = replace(planted, corpus_ids=[*planted.corpus_ids, *ids], corpus=[*planted.corpus, *copies], qrels=qrels)
    write_suite(tmp_path / "copied", copied)
    model, suite = str(save_tiny(tmp_path / "tiny", "causal-last")), str(tmp_path / "copied")
    words = ["inspect", "labels", "bm25", model, "--suite", suite]
    assert execute(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "among all flags is not known: no verdict yet (--order random)" in shown and "with verdicts" not in shown
    queue = home() / "labels" / "copied" / "queue.jsonl"

    def judge(grades: list[int]) -> str:
        lines = [json.loads(line) for line in queue.read_text().splitlines()]
        graded = [one | {"grade": grade} for one, grade in zip(lines, grades, strict=False)]
        graded[0]["right"][0]["grade"] = 0
        queue.write_text("\n".join(map(json.dumps, graded)))
        assert execute(["inspect", "judge", str(queue), "--suite", suite, "--by", "a program"]) == 0
        return capsys.readouterr().out

    assert "3 of 3 grades were new; 1 contradict a label of the suite" in judge([1, 0])
    assert execute([*words, "--order", "random", "--seed", "3"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "the queue's top 2 1 50%" in shown and "not known: none was read in random order" in shown
    assert "(random, seed 3)" in shown and "verdicts by a program (3)" in shown and "1 contradicted, 0" in shown
    judge([1, 0, 0])
    assert execute(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "random order: estimates all flags" in shown and "also against it" in shown
    assert execute([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"]["random"]["seeds"] == [3]


def test_bad_words_are_refused_before_a_model_is_loaded(
    hard_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("gemma4vec.cli.inspection.opened.open_subject", opened)
    monkeypatch.setattr("gemma4vec.cli.inspection.inspect.open_subject", opened)
    model, suite = str(save_tiny(tmp_path, "causal-last")), str(hard_suite)
    (tmp_path / "queue.jsonl").write_text('{"query_id": "q1", "doc_id": "d5", "grade": 1}')
    for words, message in (
        (["labels", model, "--suite", "missing"], "two different models"),
        (["labels", model, model, "--suite", "missing"], "two different models"),
        (["labels", "bm25", model, "--suite", "missing", "--order", "shuffled"], "use likely or random"),
        (["labels", "bm25", model, "--suite", "missing", "--seed", "1"], "--seed belongs to --order random"),
        (["labels", "bm25", model, "--suite", "missing"], "missing"),
        (["labels", model, "missing", "--suite", suite], "missing is not cached"),
        (["labels", "bm25", model, "--suite", suite, "--dtype", "fp8"], "--dtype fp8"),
        (["labels", "bm25", model, "--suite", suite, "--out", str(tmp_path)], "1 grades that are not recorded"),
        (["flips", model, "missing", "--suite", suite], "missing is not cached"),
        (["similar", model, "missing", "--suite", suite], "missing is not cached"),
        ([model, "--suite", suite, "--against", "missing"], "missing is not cached"),
        (["judge", str(tmp_path / "none.jsonl"), "--suite", "missing"], "none.jsonl"),
        (["judge", str(tmp_path / "queue.jsonl"), "--suite", "missing"], "missing"),
    ):
        assert execute(["inspect", *words]) == 2, words
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1, (words, shown)
