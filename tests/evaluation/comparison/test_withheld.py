"""Single queries in a comparison: none that is sealed, here or in a suite that shares it, and none of a final suite."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted_suite import PlantedModel, planted_suite

from gemma4vec.cli.main import execute
from gemma4vec.data.suites.group import AnySuite, make_group
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.comparison.paired import Comparison
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.files import home
from gemma4vec.ledger.ledger import add
from gemma4vec.ledger.suite_access import contents_record, spend
from gemma4vec.ledger.suite_halves import split_halves

SUITE = planted_suite(60)


def compared(suite: AnySuite, **model: Any) -> Comparison:
    return compare(evaluate(PlantedModel(**model), suite), evaluate(Bm25Model(), suite))


def named(found: Comparison) -> set[tuple[str, str]]:
    return {(one.task, one.query_id) for one in [*found.largest_wins, *found.largest_losses]}


def open_ones(suite: Any) -> set[tuple[str, str]]:
    sealed_N = split_halves(suite.fingerprint, suite.query_ids)
    assert sealed_N is not None
    return {(suite.name, key) for key, sealed in zip(suite.query_ids, sealed_N.tolist(), strict=True) if not sealed}


def test_the_command_names_queries_of_the_open_half_alone_and_counts_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in (PlantedModel(), Bm25Model()):
        evaluate(model, SUITE, tmp_path / model.name)
    command = ["compare", str(tmp_path / "planted-model"), str(tmp_path / "bm25")]
    assert execute([*command, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    shown = {(SUITE.name, one["query_id"]) for one in [*plain["largest_wins"], *plain["largest_losses"]]}
    assert shown and shown <= open_ones(SUITE) and plain["withheld"] == 30
    assert plain["wins"] + plain["losses"] + plain["ties"] == 60  # counts are of all queries, as the verdict is
    assert execute(command) == 0
    assert "name none of 30 queries: they are sealed" in " ".join(capsys.readouterr().out.split())


def test_what_another_suite_seals_is_withheld_without_its_texts() -> None:
    part = replace(sample_suite(SUITE, 40, None), name="part", halves=None)
    before = compared(part)
    assert before.withheld == 20
    add(home(), contents_record(SUITE))
    after = compared(part)
    allowed = {key for _, key in open_ones(part)} & {key for _, key in open_ones(SUITE)}
    assert after.withheld == 40 - len(allowed) > 20
    assert named(after) and {key for _, key in named(after)} <= allowed


def test_of_a_final_suite_no_query_is_named_until_it_is_spent() -> None:
    final = replace(SUITE, role="final")
    found = compared(final)
    assert not named(found) and found.withheld == 60
    dev = replace(SUITE, role="dev")  # the ledger knows these contents as final
    assert not named(compared(dev, fingerprint="other"))
    spend(dev, "to look at its queries")
    assert named(compared(final, fingerprint="third"))


def test_each_task_has_halves_of_its_own() -> None:
    tasks = [planted_suite(40, "one", seed=1), planted_suite(30, "two", seed=2)]
    found = compared(make_group("both", tasks))
    assert found.withheld == 35 and named(found) <= open_ones(tasks[0]) | open_ones(tasks[1])
    assert {task for task, _ in named(found)} == {"one", "two"}
