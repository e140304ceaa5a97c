"""`gemma4vec eval` says in its result how the suite opens again, and `inspect` needs no --suite then."""

import json
from pathlib import Path

import pytest
from hashed_words import HashedWords
from planted_suite import planted_suite

from gemma4vec.api import scoring
from gemma4vec.cli.inspection import inspect as inspect_command
from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import load_suite, write_suite
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.files import home
from gemma4vec.ledger.recording import record_run
from gemma4vec.ledger.run_folder import RunFolder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two suites in the working folder, and models that need no weights."""
    monkeypatch.setattr(scoring, "open_scorer", lambda spec, *_, **__: HashedWords(str(spec), name=str(spec)))
    monkeypatch.setattr(inspect_command, "check_model", lambda spec: None)
    monkeypatch.chdir(tmp_path)
    for name, queries in (("one", 30), ("two", 20)):
        write_suite(tmp_path / name, planted_suite(queries, name))
    return tmp_path


@pytest.fixture
def run_id(place: Path) -> str:
    run = RunFolder.create(home(), "good", "name: x\n", recipe_id="recipe", status="finished")
    record_run(run)
    return run.run_id


def stored(model: str, suite: str = "one") -> dict:
    return json.loads((home() / "evals" / model / suite / "metrics.json").read_text())


def test_a_result_says_how_its_suite_opens_from_every_folder(place: Path) -> None:
    (place / "copies").mkdir()
    assert execute(["eval", "m", "--suite", "one", "--mirror", "copies"]) == 0
    found = stored("m")
    assert found["settings"]["opened"] == {"spec": str(place / "one"), "task": None, "mirror": str(place / "copies")}
    suite = load_suite(place / "one")
    plain = json.dumps(found, ensure_ascii=False)
    assert not any(text in plain for text in (*suite.queries, *(one.text for one in suite.corpus)))


def test_fingerprints_do_not_depend_on_how_a_suite_was_opened(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, words in (("a", "one"), ("b", str(place / "one")), ("c", "./two/../one")):
        assert execute(["eval", model, "--suite", words]) == 0
    evaluate(HashedWords("d", name="d"), load_suite(place / "one"), home() / "evals" / "d" / "one")  # as older ones
    results = [load_result(home() / "evals" / name / "one") for name in "abcd"]
    assert [one.opened is None for one in results] == [False, False, False, True]
    assert results[0].opened == results[1].opened
    described = [one.settings["suite"] for one in results]
    assert described == [described[0]] * 4 and described[0]["fingerprint"] == load_suite(place / "one").fingerprint
    capsys.readouterr()
    assert execute(["compare", "a", "d", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["difference"] == 0.0


@pytest.mark.parametrize("opened", [None, "one", {"spec": 7}, {"spec": None, "mirror": "x"}, []])
def test_a_damaged_note_reads_as_none(place: Path, opened: object) -> None:
    assert execute(["eval", "m", "--suite", "one"]) == 0
    folder = home() / "evals" / "m" / "one"
    value = stored("m")
    value["settings"]["opened"] = opened
    (folder / "metrics.json").write_text(json.dumps(value))
    assert load_result(folder).opened is None


def test_inspect_finds_the_suite_that_a_run_was_evaluated_on(
    place: Path, run_id: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["eval", run_id, "--suite", "one"]) == 0
    (place / "far").mkdir()
    monkeypatch.chdir(place / "far")
    words = ["inspect", run_id, "--against", "none", "--permutations", "100"]
    capsys.readouterr()
    assert execute([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suite"]["name"] == "one" and found["suite"]["open"]["spec"] == str(place / "one")
    monkeypatch.chdir(place)
    assert execute(["eval", run_id, "--suite", "two"]) == 0
    capsys.readouterr()
    assert execute(words) == 2
    error = capsys.readouterr().err
    assert f"{run_id} was evaluated on one, two; name a dev suite" in error and error.count("\n") == 1


def test_a_suite_that_moved_is_one_line(place: Path, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["eval", run_id, "--suite", "one"]) == 0
    (place / "one").rename(place / "elsewhere")
    capsys.readouterr()
    assert execute(["inspect", run_id, "--against", "none"]) == 2
    error = capsys.readouterr().err
    assert f"{place / 'one'}: no such suite folder" in error and error.count("\n") == 1


def test_a_final_suite_is_not_what_inspect_opens(place: Path, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["eval", run_id, "--suite", "one", "--role", "final", "--look-again", "to see"]) == 0
    capsys.readouterr()
    assert execute(["inspect", run_id]) == 2
    assert f"no result of {run_id} names one" in capsys.readouterr().err
