"""The quickstart on a folder of documents: what it promises is there, and the index follows the folder."""

import contextlib
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_documents import ANIMALS, write_animals, write_every_kind
from tiny_code import write_code
from tiny_model import write_tiny

from gemma4vec.cli.main import execute
from gemma4vec.cli.quickstart import _changes
from gemma4vec.data.documents.build_documents import load_or_build_documents
from gemma4vec.data.rows.rows import read_rows
from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.evaluation.scoring.contamination_mark import mark_sentence
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.pipeline import quickstart_data, write_questions
from gemma4vec.pipeline.quickstart import quickstart_recipe
from gemma4vec.pipeline.quickstart_data import fit_to_folder, kind_of_folder
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.prepare_run import check_inputs
from gemma4vec.training.run import recipe_of

SMALL = [
    "stages.0.budget={steps: 2}",
    "stages.0.layout.compile=false",
    "stages.0.batch.rows=8",
    "model.lora.rank=2",
    "model.dtype=fp32",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a base model and a folder of documents."""
    root = tmp_path_factory.mktemp("quickstart")
    write_tiny(root / "base", layers=2)
    write_animals(root / "my docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart_data, "_PUBLIC_PACKAGE", "not-installed")
        yield root


@pytest.fixture(autouse=True)
def home(place: Path, own_folders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA4VEC_HOME", str(place / "home"))
    monkeypatch.setenv("GEMMA4VEC_CACHE", str(place / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class AskingWriter:
    """Stands in for a base that can write: the first question is one of the test."""

    def __init__(self, base: str) -> None:
        pass

    def write(self, prompts: Sequence[str], *, tokens: int, one_line: bool) -> list[list[str]]:
        days = [prompt.rpartition("in which day ")[2].split()[0] for prompt in prompts]
        asked = [f"Which calendar of people has day {day}?" for day in days]
        return [[question] for question in ["Who steals the bread?", *asked[1:]]]


def run_command(arguments: list[str]) -> dict[str, Any]:
    """Run a command that prints JSON and nothing else on stdout."""
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        assert execute(arguments) == 0
    printed: dict[str, Any] = json.loads(stdout.getvalue())
    return printed


def quickstart(place: Path, *arguments: str) -> dict[str, Any]:
    changes = [word for change in SMALL for word in ("--set", change)]
    return run_command(
        [
            "quickstart",
            "--json",
            "--folder",
            str(place / "my docs"),
            "--base",
            str(place / "base"),
            *changes,
            *arguments,
        ]
    )


@pytest.fixture(scope="module")
def finished(place: Path) -> dict[str, Any]:
    """What the command printed for a test of held-out documents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_HOME", str(place / "home"))
        patch.setenv("GEMMA4VEC_CACHE", str(place / "cache"))
        return quickstart(place)


def test_held_out_documents_are_called_what_they_are(finished: dict[str, Any]) -> None:
    assert finished["suite"] == "my docs-held-out-documents"
    assert "queries made from held-out documents (nobody asked them)" in finished["test"]
    assert [row["model"] for row in finished["models"]] == ["BM25", "untrained base", "trained model"]
    run = RunFolder(Path(finished["run"]))
    assert "made from held-out documents" in (run.model / "README.md").read_text(encoding="utf-8")
    assert "held-out-documents" in (run.path / "report.html").read_text(encoding="utf-8")
    assert recipe_of(run).stages[0].data[0].source == "documents"


def test_search_is_over_all_documents_and_follows_the_folder(
    finished: dict[str, Any], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = Path(finished["run"]) / "index" / "all"
    assert json.loads((index / "meta.json").read_text())["count"] == 36
    new = place / "my docs" / "whale.md"
    new.write_text("# The whale\n\nA whale that nobody has seen lives behind the last island of all.\n")
    try:
        found = run_command(["search", finished["run"], "whale behind the last island", "-k", "37", "--json"])
        assert len(found["hits"]) == 37
        whale = next(hit for hit in found["hits"] if hit["path"] == "whale.md")
        assert (whale["title"], whale["line"]) == ("The whale", 1)
        assert "vectors of unchanged documents are reused" in capsys.readouterr().err
        assert run_command(["search", finished["run"], "x", "--json", "--all", "-k", "40"])["hits"][36]
    finally:
        new.unlink()


def test_another_folder_and_a_folder_that_is_gone_can_be_searched(finished: dict[str, Any], tmp_path: Path) -> None:
    other = write_every_kind(tmp_path / "other")
    found = run_command(["search", finished["run"], "how to set a proxy", "--folder", str(other), "-k", "50", "--json"])
    assert {"guide/proxy.md", "paper.pdf", "code/send.js"} <= {hit["path"] for hit in found["hits"]}
    run = Path(shutil.copytree(finished["run"], tmp_path / Path(finished["run"]).name))
    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    (run / "recipe.yaml").write_text(text.replace("my docs", "gone"), encoding="utf-8")
    assert len(run_command(["search", str(run), "otter", "--json"])["hits"]) == 5


def test_own_queries_are_the_test_over_all_documents(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "queries.tsv"
    file.write_text("who steals the bread\tviper.md\nsinging otters\totter.md\nnothing\tdragon.md\n")
    monkeypatch.setattr(write_questions, "PromptWriter", AskingWriter)
    found = quickstart(place, "--queries", str(file), "--questions", "8", "--hard-negatives", "1")
    assert found["suite"] == "my docs-own-queries" and found["test"] == "2 queries of your own over 36 sections"
    stage = recipe_of(RunFolder(Path(found["run"]))).stages[0]
    source, questions = stage.data
    assert source.queries == str(file) and stage.task.hard_negatives == 1
    rows = read_rows(Path(questions.path)).rows
    assert questions.name == "questions" and len(rows) == 7  # one asked what a query of the test asks
    assert not any("bread" in row.query for row in rows)
    assert found["example"] == "who steals the bread"
    # All documents were trained on, and no query: none is left out of the comparisons for it.
    result = load_result(RunFolder(Path(found["run"])).evaluation("trained", found["suite"]))
    assert result.settings["contamination"]["touched_queries"] == {} and "2 queries" in found["sentence"]
    assert "of the documents that it searches, as this suite allows" in (mark_sentence(result) or "")


def test_an_interrupted_run_goes_on(finished: dict[str, Any], tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(finished["run"], tmp_path / Path(finished["run"]).name)))
    shutil.rmtree(run.path / "index")
    printed = run_command(["quickstart", "--resume", str(run.path), "--json"])
    assert printed["models"] == finished["models"]
    assert json.loads((run.path / "index" / "all" / "meta.json").read_text())["count"] == 36


def test_a_large_folder_is_indexed_by_the_first_search(
    finished: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart_data, "MOST_INDEXED", 35)
    run = RunFolder(Path(shutil.copytree(finished["run"], tmp_path / Path(finished["run"]).name)))
    shutil.rmtree(run.path / "index")
    run_command(["quickstart", "--resume", str(run.path), "--json"])
    assert json.loads((run.path / "index" / "all" / "meta.json").read_text())["count"] == finished["documents"]
    assert len(run_command(["search", str(run.path), "otter", "-k", "36", "--json"])["hits"]) == 36


def test_the_public_model_has_a_row(finished: dict[str, Any], tmp_path: Path, place: Path) -> None:
    from gemma4vec.data.suites.retrieval import load_suite
    from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
    from gemma4vec.evaluation.scoring.evaluate import evaluate
    from gemma4vec.pipeline.quickstart import summarize

    class Other(Bm25Model):
        fingerprint = "other"  # any scores do for a row

    run = RunFolder(Path(shutil.copytree(finished["run"], tmp_path / Path(finished["run"]).name)))
    suite = load_suite(run.path / "suite")
    evaluate(Other(), suite, run.evaluation("public", suite.name), name="public")
    summary = summarize(run, suite)
    assert [row["model"] for row in summary["models"]][2] == "all-MiniLM-L6-v2"
    assert "all-MiniLM-L6-v2" in summary["sentence"] and "corrected for" in summary["sentence"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--queries", "none.tsv"], "--queries none.tsv: no such file, and not a number"),
        (["--queries", "0"], "--queries 0: use a number from 1 on, or a file"),
        (["--queries", __file__], "add --folder DIR"),
        (["--as", "documents"], "add --folder DIR"),
        (["--queries", __file__, "--folder", ".", "--as", "code"], "leave --as code out"),
        (["--resume", "latest", "--queries", __file__], "--resume continues with the run's own recipe"),
        (["--resume", "latest", "--as", "code"], "--resume continues with the run's own recipe"),
        (["--as", "poems"], "'poems'"),
        (["--resume", "latest", "--questions", "5"], "--resume continues with the run's own recipe"),
        (["--resume", "latest", "--hard-negatives", "1"], "--resume continues with the run's own recipe"),
        (["--questions", "5"], "--questions is for documents"),
        (["--folder", "."], "no document that can be read (it is empty)"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: Any,
    place: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        execute(["quickstart", *arguments, *([] if "--resume" in arguments else ["--base", str(place / "base")])]) == 2
    )
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert captured.out == "" and last.startswith("error: ") and expected in last


def test_ten_short_documents_are_trained_on_in_a_smaller_batch(
    place: Path, tmp_path: Path, log_lines: list[str]
) -> None:
    (tmp_path / "ten").mkdir()
    for number, animal in enumerate(ANIMALS[:10]):
        text = f"# The {animal}\n\nThe {animal} sleeps in house {number} until the bell of the town rings.\n"
        (tmp_path / "ten" / f"{animal}.md").write_text(text, encoding="utf-8")
    recipe = fit_to_folder(documents_recipe(tmp_path / "ten", place))
    rows = recipe.stages[0].batch.rows
    assert 2 <= rows < 32 and f"only {rows} rows to train on, so a batch has {rows} instead of 32" in log_lines[-1]
    assert len(check_inputs(recipe).data[0].rows) == rows


def test_hard_negatives_are_those_that_a_folder_has(place: Path) -> None:
    folder = place / "my docs"
    sections = len(load_or_build_documents(folder).training_sections())
    asked = documents_recipe(folder, place, sections - 1)
    assert fit_to_folder(asked) == asked
    rows = check_inputs(asked).data[0].rows
    assert {len(set(row.neg)) for row in rows} == {sections - 1} and all(row.pos[0] not in row.neg for row in rows)
    with pytest.raises(
        InputError, match=rf"--hard-negatives {sections}: .*docs has {sections} .*has {sections - 1} others"
    ):
        fit_to_folder(documents_recipe(folder, place, sections))


def documents_recipe(folder: Path, place: Path, hard_negatives: int | None = None) -> Recipe:
    """The recipe that the command makes of its options."""
    changes = _changes(None, str(place / "base"), folder, None, [], hard_negatives=hard_negatives)
    return quickstart_recipe(changes, "documents")


def test_a_folder_is_read_as_what_it_mostly_is(tmp_path: Path, log_lines: list[str]) -> None:
    code = write_code(tmp_path / "code")
    assert kind_of_folder(code) == "code" and log_lines == []
    (code / "README.md").write_text("# Read me\n\nwords\n")
    assert kind_of_folder(code) == "code"
    assert log_lines == [f"{code} is read as code; --as documents reads its 1 other files too"]
    assert kind_of_folder(write_every_kind(tmp_path / "mixed")) == "documents"
