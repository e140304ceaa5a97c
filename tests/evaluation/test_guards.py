"""Whoever calls from Python meets the same rules as the commands: final suites, contamination, the ledger's family."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma4vec.cli.main import execute
from gemma4vec.data.quality.contamination_record import read_record
from gemma4vec.data.rows.rows import Row, content_hash, write_rows
from gemma4vec.data.suites.group import make_group
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.comparison.comparison_count import NotComparedError
from gemma4vec.evaluation.comparison.corrected import compare_pairs
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.guards import check_allowed, find_owner
from gemma4vec.evaluation.scoring.ranking import Ranking
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.recording import freeze, lock
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.text.prompts import Document

QUERIES = 40


class Model:
    """Ranks the right document first for some of the queries, and nothing for the others."""

    def __init__(self, name: str, right: int, folder: Path | None = None):
        self.name, self.fingerprint, self.right, self.folder = name, name, right, folder
        self.ranked = 0

    def describe(self) -> dict[str, Any]:
        return {"kind": "test"}

    def rank(self, suite: RetrievalSuite, depth: int, progress: Any) -> Ranking:
        self.ranked += 1
        found = np.arange(QUERIES)[:, None] if self.right else np.zeros((QUERIES, 1), dtype=np.int64)
        indices = np.where(np.arange(QUERIES)[:, None] < self.right, found, -1).astype(np.int64)
        return Ranking(indices, np.where(indices >= 0, 1.0, -np.inf).astype(np.float32), {})


def suite(name: str = "words", role: str | None = "final") -> RetrievalSuite:
    return RetrievalSuite(
        name=name,
        corpus_ids=[f"d{row}" for row in range(QUERIES)],
        corpus=[Document(f"{name} text {row}") for row in range(QUERIES)],
        query_ids=[f"q{row}" for row in range(QUERIES)],
        queries=[f"query {row}" for row in range(QUERIES)],
        qrels={f"q{row}": {f"d{row}": 1} for row in range(QUERIES)},
        role=role,  # type: ignore[arg-type]
    )


def new_run(name: str = "run", recipe: str = "recipe") -> RunFolder:
    return RunFolder.create(home(), name, "name: x\n", recipe_id=recipe, status="finished")


def looks(contents: str) -> int:
    with open_ledger(home()) as ledger:
        return int(ledger.value("SELECT count(DISTINCT id) FROM looks WHERE suite_fingerprint = ?", (contents,)))


Call = Callable[[Model, RunFolder, RetrievalSuite], Any]
WAYS: dict[str, Call] = {
    "the run is named": lambda model, run, on: evaluate(model, on, run=run),
    "the result goes into the run": lambda model, run, on: evaluate(model, on, run.evaluation("trained", on.name)),
    "the model was opened from the run": lambda model, run, on: evaluate(
        Model(model.name, model.right, run.path / "model"), on
    ),
    "a baseline's name": lambda model, run, on: evaluate(model, on, run=run, name="untrained"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_final_suite_is_refused_for_an_unfrozen_recipe_however_it_is_called(way: str) -> None:
    run, final = new_run(), suite()
    for number in range(3):
        model = Model(f"m{number}", 30)
        with pytest.raises(InputError, match=f"words is a final suite.* runs freeze {run.run_id}"):
            WAYS[way](model, run, final)
        assert model.ranked == 0
    assert looks(final.fingerprint) == 0 and not run.evaluation("trained", "words").exists()


@pytest.mark.parametrize("way", list(WAYS)[:3])
def test_a_frozen_recipe_is_scored_once(way: str) -> None:
    run, final = new_run(), suite()
    freeze(home(), "recipe", run.run_id, "")
    WAYS[way](Model("m", 30), run, final)
    for number in range(3):
        with pytest.raises(InputError, match="a final score is taken once"):
            WAYS[way](Model(f"other {number}", 30), run, final)
    WAYS[way](Model("m", 30), run, final)  # the very same model shows nothing new
    assert looks(final.fingerprint) == 2


def test_a_reason_opens_it_and_is_stored() -> None:
    found = evaluate(Model("m", 30), suite(), run=new_run(), look_again="the reviewer asked")
    assert found.settings["look_again"] == "the reviewer asked"


def test_yardsticks_and_dev_suites_are_always_open() -> None:
    run = new_run()
    for _ in range(2):
        evaluate(Bm25Model(), suite())
        evaluate(Bm25Model(), suite(), run.evaluation("bm25", "words"), name="bm25")  # beside a run's own results
        evaluate(Model("published", 30), suite())
        evaluate(Model("m", 30), suite("dev words", "dev"), run=run)
    assert looks(suite().fingerprint) == 6


def test_a_member_of_a_group_is_guarded() -> None:
    run = new_run()
    group = make_group("both", [suite("one"), suite("two")], None, None)
    with pytest.raises(InputError, match="is a final suite"):
        evaluate(Model("m", 30), group, run=run)
    evaluate(Bm25Model(), group)
    with pytest.raises(InputError, match="two is a final suite"):
        evaluate(Model("m", 30), suite("two", None), run=run)  # the ledger knows it as final


def test_all_suites_are_refused_before_the_first_is_scored() -> None:
    run = new_run()
    with pytest.raises(InputError, match="words is a final suite"):
        check_allowed(Model("m", 30), [suite("dev words", "dev"), suite()], owner=find_owner(Model("m", 30), run=run))
    lock(home(), "locked", suite("locked", None).fingerprint, "")
    with pytest.raises(InputError, match="locked until a recipe is frozen"):
        check_allowed(Model("published", 30), [suite("locked", None)])


def test_the_line_is_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    run, model = new_run(), Model("m", 30)
    write_suite(tmp_path / "words", suite())
    monkeypatch.setattr("gemma4vec.api.scoring.open_scorer", lambda *words, **named: model)
    assert execute(["eval", run.run_id, "--suite", str(tmp_path / "words")]) == 2
    line = capsys.readouterr().err.strip()
    with pytest.raises(InputError) as refused:
        evaluate(model, suite(), run=run)
    assert line.endswith(str(refused.value)) and "\n" not in line


def test_small_training_data_is_checked_before_the_score(tmp_path: Path) -> None:
    rows = [Row("Query 3!", [Document("other words")]), Row("b", [Document("c")])]
    write_rows(tmp_path / "rows.jsonl", rows)
    recipe = f"name: r\nstages:\n- data: [{{name: rows, path: {tmp_path / 'rows.jsonl'}}}]\n  budget: {{steps: 1}}\n"
    data = {"0-contrast": {"rows": {"path": str(tmp_path / "rows.jsonl"), "content_hash": content_hash(rows)}}}
    run = RunFolder.create(home(), "r", recipe, recipe_id="i", data=data)
    dev = suite("dev words", "dev")
    found = evaluate(Model("m", 30), dev, run=run)
    assert found.settings["contamination"]["touched_queries"] == {"dev words": ["q3"]}
    assert found.settings["contamination"]["unchecked"] == []
    assert read_record(content_hash(rows), dev.fingerprint) is not None
    (tmp_path / "rows.jsonl").unlink()
    found = evaluate(Model("m", 30), suite("others", "dev"), run=run)
    assert found.settings["contamination"]["unchecked"] == ["rows"]
    assert evaluate(Bm25Model(), dev, run.evaluation("bm25", "dev words")).settings["contamination"] is None


def results(count: int, on: RetrievalSuite) -> list[Any]:
    return [
        evaluate(Model(f"m{right}", right), on, home() / "evals" / f"m{right}" / on.name)
        for right in range(10, 10 + 4 * count, 4)
    ]


def command(a: str, b: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert execute(["compare", a, b, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def comparisons() -> int:
    with open_ledger(home()) as ledger:
        return int(ledger.value("SELECT count(*) FROM comparisons"))


def test_compare_is_corrected_and_recorded_as_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    made = results(5, suite("dev words", "dev"))
    ours = compare(made[-1], made[0])
    assert comparisons() == 1
    assert ours.family is not None and (ours.family.size, ours.family.models, ours.family.pairs) == (4, 5, 1)
    assert ours.verdict.family == 4 and ours.verdict.p == pytest.approx(min(1.0, 4 * ours.test.p))
    theirs = command("m26", "m10", capsys)
    assert comparisons() == 2
    assert theirs["verdict"]["p"] == ours.verdict.p and theirs["verdict"]["word"] == ours.verdict.word
    assert theirs["family"]["size"] == ours.family.size and theirs["test"]["p"] == ours.test.p
    assert theirs["smallest_detectable"] == ours.smallest_detectable


def test_a_pair_that_is_compared_again_counts_once() -> None:
    one, two, three = results(3, suite("dev words", "dev"))
    sizes = [compare(a, b).family.pairs for a, b in ((one, two), (one, two), (two, one), (one, three), (two, three))]  # type: ignore[union-attr]
    assert sizes == [1, 1, 1, 2, 3] and comparisons() == 5


def test_compare_takes_folders_results_and_several_of_each() -> None:
    one, two = results(2, suite("dev words", "dev"))
    folders = [home() / "evals" / name / "dev words" for name in ("m10", "m14")]
    expected = compare(one, two)
    for pair in (folders, ([one], [two]), (folders[0], [two])):
        again = compare(*pair)
        assert (again.interval, again.test, again.verdict) == (expected.interval, expected.test, expected.verdict)


@pytest.mark.parametrize(
    ("sides", "settings", "reason"),
    [
        (lambda a, b: (a, []), {}, "a side without results"),
        (lambda a, b: (a, a), {}, "is on both sides"),
        (lambda a, b: (a, b), {"margin": 0.0}, "margin 0.0: give a number above zero"),
        (lambda a, b: (a, b), {"no_worse_than": -1.0}, "no_worse_than -1.0: give a number above zero"),
    ],
)
def test_bad_comparisons_are_one_line_and_not_recorded(sides: Any, settings: dict[str, float], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        compare(*sides(*results(2, suite("dev words", "dev"))), **settings)
    assert comparisons() == 0


def test_who_shows_a_comparison_again_records_nothing_and_cannot_show_a_new_one() -> None:
    one, two, three = results(3, suite("dev words", "dev"))
    with pytest.raises(NotComparedError, match="m10 and m14 have not been compared on dev words"):
        compare_pairs([(one, two)], only_known=True)
    assert comparisons() == 0
    first = compare(one, two)
    (again,), family = compare_pairs([(two, one)], only_known=True)
    assert comparisons() == 1 and family.size == first.verdict.family and again.verdict.p == first.verdict.p
    with pytest.raises(NotComparedError):
        compare_pairs([(one, two), (one, three)], only_known=True)
    with pytest.raises(NotComparedError):
        compare_pairs([(one, two)], "recall@100", only_known=True)
