"""`benchmarks.data.label_flags`: which pairs are read, and what the verdicts say."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.data.label_flags import draw, main, read_verdicts, shares

from gemma4vec.errors import InputError


def test_the_draw_is_the_first_ones_and_a_random_sample_of_all() -> None:
    top, random = draw(200, 25, 50, seed=0)
    assert top == list(range(25)) and len({*top, *random}) == 50 and len(set(random)) == len(random)
    assert draw(200, 25, 50, seed=0) == (top, random) != draw(200, 25, 50, seed=1)
    assert set(random) & set(top) and draw(200, 0, 30, seed=0)[1] == draw(200, 25, 50, seed=0)[1] + [
        one for one in draw(200, 0, 30, seed=0)[1] if one not in random
    ]
    few = draw(7, 25, 50, seed=0)
    assert few[0] == list(range(7)) and few[1] == []


def verdict(query: str, document: str, grade: int | None, gold: str | None = "right") -> dict[str, Any]:
    return {"query_id": query, "doc_id": document, "grade": grade, "gold": gold, "reason": "because"}


def test_undecidable_is_not_right_and_a_gold_counts_once_a_query() -> None:
    read = [
        verdict("q1", "a", 1, "wrong"),
        verdict("q1", "b", 0, "wrong"),
        verdict("q2", "c", None),
        verdict("q3", "d", 0),
    ]
    found = shares(read)
    assert (found["right"], found["wrong"], found["undecidable"], found["precision"]) == (1, 2, 1, 0.25)
    assert found["interval"] == pytest.approx([0.0456, 0.6994], abs=1e-4)  # Wilson's, computed by hand
    assert (found["queries"], found["gold_wrong"], found["label_faults"]) == (3, 1, 2)
    assert shares([])["precision"] is None


def test_the_result_has_ids_and_verdicts_and_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "suite"
    folder.mkdir()
    lines = [
        {"query_id": f"q{row}", "doc_id": f"d{row}", "duplicate_of": None, "query": "secret", "grade": None}
        for row in range(6)
    ]
    (folder / "queue.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    words = ["label_flags", str(folder / "queue.jsonl"), "--top", "2", "--read", "4"]
    monkeypatch.setattr(sys, "argv", [*words, "--list", str(tmp_path / "list.jsonl")])
    assert main() == 0
    chosen = [json.loads(line) for line in (tmp_path / "list.jsonl").read_text().splitlines()]
    assert len(chosen) == 4 and [one["rank"] for one in chosen[:2]] == [1, 2] and chosen[0]["query"] == "secret"
    graded = [one | verdict(one["query_id"], one["doc_id"], 1) for one in chosen]
    (tmp_path / "verdicts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in graded))
    monkeypatch.setattr(
        sys, "argv", [*words, "--verdicts", str(tmp_path / "verdicts.jsonl"), "--results", str(tmp_path / "results")]
    )
    assert main() == 0
    (file,) = (tmp_path / "results").iterdir()
    text = file.read_text()
    found = json.loads(text)["suites"]["suite"]
    assert "secret" not in text and found["top"]["precision"] == 1.0 and len(found["verdicts"]) == 4
    (tmp_path / "verdicts.jsonl").write_text(json.dumps(graded[0]))
    with pytest.raises(InputError, match="3 pairs of the list have no verdict"):
        main()


@pytest.mark.parametrize("change", [{"grade": 2}, {"gold": "maybe"}, {"reason": ""}])
def test_a_verdict_without_its_parts_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "verdicts.jsonl"
    file.write_text(json.dumps(verdict("q", "d", 1) | change))
    with pytest.raises(InputError, match="line 1: a verdict has"):
        read_verdicts(file)
