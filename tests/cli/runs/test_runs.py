"""`gemma4vec runs ...` as a person types it, on what evaluations and comparisons recorded themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma4vec.cli.main import execute
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.ranking import Ranking
from gemma4vec.files import home
from gemma4vec.ledger.index import INDEX
from gemma4vec.ledger.recording import record_run
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.text.prompts import Document

QUERIES = 12


class Model:
    """Ranks the right document first, for all queries or for some."""

    def __init__(self, name: str, right: int):
        self.name, self.fingerprint, self.right = name, name, right

    def describe(self) -> dict[str, Any]:
        return {"kind": "test"}

    def rank(self, suite: RetrievalSuite, depth: int, progress: Any) -> Ranking:
        rows = [[row, (row + 1) % QUERIES] if row < self.right else [(row + 1) % QUERIES] * 2 for row in range(QUERIES)]
        indices = np.array(rows, dtype=np.int64)
        indices[self.right :, 1] = -1
        scores = np.where(indices >= 0, np.array([[2.0, 1.0]]), -np.inf).astype(np.float32)
        return Ranking(indices, scores, {})


def suite(folder: Path, role: str | None = "final") -> RetrievalSuite:
    made = RetrievalSuite(
        name="words",
        corpus_ids=[f"d{row}" for row in range(QUERIES)],
        corpus=[Document(f"text {row}") for row in range(QUERIES)],
        query_ids=[f"q{row}" for row in range(QUERIES)],
        queries=[f"query {row}" for row in range(QUERIES)],
        qrels={f"q{row}": {f"d{row}": 1} for row in range(QUERIES)},
        role=role,  # type: ignore[arg-type]
    )
    write_suite(folder, made)
    return made


def run_with_results(tmp_path: Path, name: str, right: int) -> RunFolder:
    text = f"name: {name}\nseed: 0\n"
    run = RunFolder.create(home(), name, text, recipe_id=f"id-{name}", status="finished", hypothesis="it helps")
    record_run(run)
    model, words = Model(f"model-{name}", right), suite(tmp_path / "words")
    evaluate(model, words, run.evaluation("trained", "words"), look_again="not frozen: this is about the ledger")
    return run


def say(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command prints as JSON."""
    assert execute([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_list_show_diff_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, poor = run_with_results(tmp_path, "good", 12), run_with_results(tmp_path, "poor", 3)
    listed = say(capsys, "runs")
    assert [(run["run_id"], run["scores"]) for run in listed] == [
        (good.run_id, {"words": 1.0}),
        (poor.run_id, {"words": 0.25}),
    ]
    assert say(capsys, "runs", "decide", poor.run_id, "drop", "no\nuse")["decision"] == "drop"
    shown = say(capsys, "runs", "show", poor.run_id)
    assert shown["hypothesis"] == "it helps" and shown["words"] == "no\nuse" and len(shown["evaluations"]) == 1
    assert json.loads((poor.path / "decision.json").read_text())["body"]["decision"] == "drop"
    found = say(capsys, "runs", "diff", good.run_id, poor.run_id)
    assert found["recipe"] == {"name": ["good", "poor"]} and found["scores"] == {"words": [1.0, 0.25]}
    for words in ([], ["show", "latest"], ["diff", good.run_id, poor.run_id], ["looks"], ["rebuild"]):
        assert execute(["runs", *words]) == 0
    printed = capsys.readouterr().out
    # The reason of a further look at a final suite is next to the score: in the list, the page, the difference.
    why = "a further look at a final suite, since: not frozen: this is about the ledger"
    assert " ".join(printed.split()).count(why) == 5
    assert listed[0]["further_looks"] == {"words": "not frozen: this is about the ledger"}
    assert "words 0.250" in printed and "drop: no" in printed and "A - B" in printed and "contents" in printed


def test_compare_takes_its_family_from_the_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, poor = run_with_results(tmp_path, "good", 12), run_with_results(tmp_path, "poor", 3)
    alone = say(capsys, "compare", good.run_id, poor.run_id)
    assert alone["family"]["size"] == alone["verdict"]["family"] == 1
    for number in range(19):
        evaluate(Model(f"other-{number}", 5), suite(tmp_path / "words"))
    among = say(capsys, "compare", good.run_id, poor.run_id)
    assert among["family"]["size"] == among["verdict"]["family"] == 20
    assert among["family"]["models"] == 21
    assert among["verdict"]["p"] == pytest.approx(20 * alone["verdict"]["p"])
    assert execute(["compare", good.run_id, poor.run_id]) == 0
    assert "20 (21 models seen, 1 pair compared so far)" in capsys.readouterr().out
    stored = say(capsys, "runs", "sql", "SELECT family, verdict FROM comparisons ORDER BY seq")
    assert [row["family"] for row in stored] == [1, 20, 20]


def test_a_locked_suite_is_refused_until_a_recipe_is_frozen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with_results(tmp_path, "good", 12)
    folder = str(tmp_path / "words")
    assert say(capsys, "runs", "lock", folder, "until the end")["suite"] == "words"
    assert say(capsys, "runs", "looks")[0]["locked"] is True
    assert execute(["eval", "bm25", "--suite", folder]) == 2
    refused = capsys.readouterr().err.strip()
    assert "locked until a recipe is frozen" in refused and "\n" not in refused
    assert say(capsys, "runs", "freeze", run.run_id)["recipe_id"] == "id-good"
    assert execute(["eval", "bm25", "--suite", folder]) == 2
    assert "(id-good) until one of them is scored on it" in capsys.readouterr().err
    assert execute(["eval", "bm25", "--suite", folder, "--look-again", "to know the yardstick first"]) == 0
    capsys.readouterr()
    rows = say(capsys, "runs", "looks")
    assert (rows[0]["looks"], rows[0]["locked"]) == (2, False)


def test_a_list_is_locked_with_each_of_its_suites_and_other_kinds_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite(tmp_path / "words")
    (tmp_path / "all.yaml").write_text("role: final\nsuites: [words]\n")
    (tmp_path / "pairs.tsv").write_text(
        "split\tscore\tsentence1\tsentence2\n" + "".join(f"test\t{n}\ta {n}\tb\n" for n in range(5))
    )
    for name in ("all.yaml", "pairs.tsv"):
        assert execute(["runs", "lock", str(tmp_path / name)]) == 0
    for name in ("words", "all.yaml"):
        assert execute(["eval", "bm25", "--suite", str(tmp_path / name)]) == 2
        assert "locked until a recipe is frozen" in capsys.readouterr().err
    assert execute(["runs", "detectable", str(tmp_path / "all.yaml")]) == 0
    assert execute(["runs", "detectable", str(tmp_path / "pairs.tsv")]) == 2
    assert "is of kind sts" in capsys.readouterr().err


def test_a_dev_suite_is_not_locked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite(tmp_path / "dev", "dev")
    assert execute(["runs", "lock", str(tmp_path / "dev")]) == 2
    assert "only final suites can be locked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["show", "nothing"], "the ledger has no run 'nothing'"),
        (["decide", "latest", "maybe"], "decision 'maybe': use one of keep, drop, repeat"),
        (["decide", "latest", "keep"], "keep: give a reason"),
        (["sql", "DELETE FROM records"], "one SELECT over runs"),
        (["sql", "SELECT absent FROM looks"], "no such column: absent; give one SELECT over"),
    ],
)
def test_bad_usage_is_one_line(words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_with_results(tmp_path, "good", 12)
    assert execute(["runs", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert line in said and "\n" not in said


def test_a_damaged_index_is_one_line_and_evaluation_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_with_results(tmp_path, "good", 12)
    (home() / INDEX).write_bytes(b"garbage" * 2000)
    assert execute(["runs"]) == 1
    said = capsys.readouterr().err.strip()
    assert "is damaged" in said and "gemma4vec runs rebuild" in said and "\n" not in said
    assert execute(["eval", "bm25", "--suite", str(tmp_path / "words")]) == 0
    assert "warning: the ledger does not know" in capsys.readouterr().err
    assert say(capsys, "runs", "rebuild")["kept_aside"]
    assert say(capsys, "runs", "looks")[0]["looks"] == 2


def test_an_empty_ledger_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    for words, line in (([], "gemma4vec quickstart"), (["looks"], "no suite has been looked at")):
        assert execute(["runs", *words]) == 0
        assert line in capsys.readouterr().out
    assert not home().exists()
