"""The tables of `gemma4vec runs`, from made-up rows."""

import io
from typing import Any

from rich.console import Console

from gemma4vec.cli.runs.runs_table import SHOWN_SUITES, difference_page, look_table, run_table


def printed(value: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(value)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return " ".join(text.split())


def row(**changes: Any) -> dict[str, Any]:
    known = {"run_id": "r1", "created": "2026-01-02T03:04:05", "recipe_id": "abc", "deleted": False, "scores": {}}
    return {**known, "status": "finished", "decision": None, "further_looks": {}, **changes}


def test_an_empty_ledger_says_what_to_do() -> None:
    assert run_table([]) == "no runs yet; start one with: gemma4vec quickstart"
    assert look_table([]) == "no suite has been looked at yet"


def test_runs_show_few_suites_and_whether_they_are_deleted() -> None:
    scores = {f"suite{number}": number / 10 for number in range(SHOWN_SUITES + 2)}
    shown = printed(run_table([row(scores=scores), row(run_id="r2", deleted=True, created=None)]))
    assert "2026-01-02 03:04" in shown and "suite0 0.000, suite1 0.100, suite2 0.200, 2 more" in shown
    assert "deleted" in shown and "suite3" not in shown
    assert "odd not a number" in printed(run_table([row(scores={"odd": None})]))


def test_scores_of_other_lengths_have_no_difference() -> None:
    found: dict[str, Any] = {"a": "r1", "b": "r2", "recipe": {"seed": [0, None]}, "data": {}, "code": {}, "machine": {}}
    found |= {"scores": {"s": [0.5, 0.25], "t": [0.5, 0.4]}, "metrics": {"s": "ndcg@10", "t": "ndcg@10"}}
    found |= {"limits": {"t": [128, 512]}, "further_looks": {"s": ["", "why\nnot"]}}
    shown = printed(difference_page(found))
    assert "+0.2500" in shown and "cut at 128 and 512 tokens" in shown and "data: the same" in shown
    assert "s, B: a further look at a final suite, since: why not" in shown
    assert "scores: no common suite" in printed(difference_page({**found, "scores": {}}))
