"""What the page says about a stop rule is what the events say."""

from pathlib import Path

from hostile_page import HOSTILE, Page
from synthetic_run import add_training, make_run

from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.report.content.stop_looks import read_looks
from gemma4vec.report.run_page import write_report

RULE = {"suite": "dev", "metric": "ndcg@10", "smallest_effect": 0.01, "at_shares": [0.25, 0.5], "confidence": 0.95}


def look(step: int, difference: float, stopped: bool = False, **others: object) -> dict[str, object]:
    seen = {"score": 0.4, "reference": 0.5, "low": difference - 0.1, "high": difference + 0.1, "reason": "why"}
    return {"event": "look", "stage": 0, "step": step, "difference": difference, "stopped": stopped, **seen, **others}


def test_of_a_look_that_was_taken_again_the_later_counts() -> None:
    rule = {"event": "stop_rule", "stage": 0, "reference": "bm25", **RULE}
    found = read_looks([rule, look(10, 0.1), look(10, 0.2), look(20, -0.3, True), look(30, float("nan"))])
    assert found is not None
    assert [(row.place, row.difference, row.stopped) for row in found.rows] == [
        ("step 10", 0.2, False),
        ("step 20", -0.3, True),
    ]
    assert found.sentence.startswith(
        "Set before the run: ndcg@10 on dev against bm25, smallest useful effect +0.01, 2 looks"
    )
    assert found.sentence.endswith("It ended the training: why.")
    assert "did not end the training" in read_looks([rule, look(10, 0.1)]).sentence  # type: ignore[union-attr]


def test_no_rule_no_words() -> None:
    assert read_looks([look(10, 0.1)]) is None


def test_the_page_shows_it_whatever_it_holds(tmp_path: Path) -> None:
    run = RunFolder(make_run(tmp_path, queries=20, steps=20))
    run.event("stop_rule", stage=0, reference=HOSTILE, **RULE)
    seen = look(5, -0.2, True, reason=HOSTILE)
    del seen["event"]
    run.event("look", **seen)  # type: ignore[arg-type]
    run.update_manifest(ended={"by": "stop rule", "stage": 0, "step": 5, "reason": HOSTILE})
    add_training(run, 5)
    page = Page(write_report(run.path).read_text(encoding="utf-8"))
    assert "Stop rule" in page.text and "It ended the training" in page.text and "-0.2000" in page.text
    assert "The rest of the budget: the stop rule ended the training after step 5." in page.text
    assert "script" not in page.tags
