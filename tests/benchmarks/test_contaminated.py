"""`benchmarks.quality.contaminated`: which rows are trained on, and when the program fails."""

import gzip
import json
import sys
from pathlib import Path

import pytest
from benchmarks.quality.contaminated import parse_arguments, prepare, report
from planted_suite import planted_suite

from gemma4vec.data.rows.rows import read_rows
from gemma4vec.data.suites.retrieval import write_suite
from gemma4vec.errors import InputError


def test_a_row_for_each_right_document_and_as_many_that_touch_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, other = planted_suite(12), planted_suite(40, seed=5)
    write_suite(tmp_path / "retrieval" / "planted", suite)
    (tmp_path / "train").mkdir()
    answers = [text for text, _ in [*suite.corpus[:3], *suite.corpus[:1], *other.corpus]]
    with gzip.open(tmp_path / "train" / "pairs.jsonl.gz", "wt") as stream:
        for number, text in enumerate(answers):
            stream.write(json.dumps({"query": f"question {number}", "pos": [text]}) + "\n")
    words = ["contaminated", str(tmp_path), "--out", str(tmp_path / "out"), "--suite", "planted", "--train", "pairs"]
    monkeypatch.setattr(sys, "argv", words)
    (tmp_path / "out").mkdir()
    found = prepare(parse_arguments())
    assert found["touching_rows"] == 4 and found["trained_rows"] == 3
    touched, control = (read_rows(tmp_path / "out" / f"{arm}.jsonl").rows for arm in ("touched", "control"))
    assert [row.query for row in touched] == ["question 0", "question 1", "question 2"]
    assert len(control) == 3 and all(int(row.query.split()[1]) >= 4 for row in control)
    monkeypatch.setattr(sys, "argv", [*words, "--leak"])
    assert prepare(parse_arguments())["trained_rows"] == 6
    pairs = {query: text for query, (text, _) in zip(suite.queries, suite.corpus, strict=True)}
    leaked = read_rows(tmp_path / "out" / "touched.jsonl").rows
    assert len(leaked) == 6 and all(row.pos[0].text == pairs[row.query] for row in leaked)
    monkeypatch.setattr(sys, "argv", words)
    write_suite(tmp_path / "retrieval" / "planted", planted_suite(12, seed=9))
    with pytest.raises(InputError, match="no row of pairs has a right document of planted"):
        prepare(parse_arguments())


@pytest.mark.parametrize(("low", "code"), [(0.01, 0), (-0.01, 1), (0.0, 1)])
def test_an_interval_with_zero_fails(low: float, code: int) -> None:
    view = {"gap": 0.1, "low": low, "high": 0.2, "p": 0.01, "can_show": 0.1}
    touched = {"queries": 3, "open": 2, "views": [view]}
    assert report({"control": {"in_training": touched}, "bm25": {"in_training": {**touched, "views": []}}}) == code
    assert report({"control": {"in_training": {**touched, "views": []}}}) == 1
