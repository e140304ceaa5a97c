"""A teacher's scores in rows: the same from every kind of source, wrong ones named, and kept through every change."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemma4vec.data.batching.batches import batches
from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.loading import load_rows as sources
from gemma4vec.data.loading.load_rows import read_source
from gemma4vec.data.mining.bm25_negatives import mine_bm25
from gemma4vec.data.rows.row_store import write_store
from gemma4vec.data.rows.rows import Row, content_hash, read_rows, write_rows
from gemma4vec.data.rows.scores import Scores
from gemma4vec.data.sources.drops import without_negatives
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import Columns, source_of
from gemma4vec.text.prompts import Document

SCORES = Scores((3.5, 1.25), (-2.0, 0.1, 1e-9), "judge")
ROW = Row("q", [Document("a"), Document("b")], [Document("x"), Document("y"), Document("z")], scores=SCORES)
OBJECT = {"query": "q", "pos": ["a", "b"], "neg": ["x", "y", "z"], "scores": SCORES.as_object()}


def read(path: Path, kind: str = "jsonl", **words: Any) -> list[Row]:
    return list(read_source(source_of(name="s", path=str(path), source=kind, **words)).rows)  # type: ignore[arg-type]


def test_every_source_reads_the_same_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps(OBJECT))
    pq.write_table(pa.Table.from_pylist([OBJECT]), tmp_path / "r.parquet")
    flat = {"query": "q", "p1": "a", "p2": "b", "n1": "x", "n2": "y", "n3": "z", "scores": json.dumps(OBJECT["scores"])}
    for name, delimiter in (("r.csv", ","), ("r.tsv", "\t")):
        with (tmp_path / name).open("w", newline="") as stream:
            quoted = {} if delimiter == "," else {"delimiter": delimiter, "quoting": csv.QUOTE_NONE, "quotechar": None}
            writer = csv.DictWriter(stream, list(flat), **quoted)  # type: ignore[arg-type]
            writer.writeheader()
            writer.writerow(flat)
    columns = Columns(query="query", pos=("p1", "p2"), neg=("n1", "n2", "n3"), scores="scores")
    (tmp_path / "folder").mkdir()
    pq.write_table(pa.Table.from_pylist([OBJECT]), tmp_path / "folder" / "train.parquet")
    for large in (False, True):
        monkeypatch.setattr(sources, "LARGE_BYTES", 0 if large else 2**30)
        assert read(tmp_path / "r.jsonl") == read(tmp_path / "r.parquet", "parquet") == [ROW]
        assert read(tmp_path / "folder", "datasets") == [ROW]
        assert read(tmp_path / "r.csv", "csv", columns=columns) == [ROW]
        assert read(tmp_path / "r.tsv", "tsv", columns=columns) == [ROW]


def test_columns_of_numbers_are_scores_of_the_documents_beside_them(tmp_path: Path) -> None:
    table = {"query": ["q", "r"], "positive": ["a", "b"], "negative_1": ["x", "y"], "negative_2": ["z", ""]}
    numbers = {"sp": [3.0, 4.0], "s1": [1.0, 2.0], "s2": [0.5, -9.0]}
    pq.write_table(pa.table(table | numbers), tmp_path / "t.parquet")
    pq.write_table(pa.table(table | {"label": [[3.0, 1.0, 0.5], [4.0, 2.0, -9.0]]}), tmp_path / "l.parquet")
    words = {"query": "query", "pos": "positive", "neg": ["negative_1", "negative_2"]}
    for file, column in (("t.parquet", ["sp", "s1", "s2"]), ("l.parquet", "label")):
        columns = Columns.model_validate(words | {"scores": column})
        first, second = read(tmp_path / file, "parquet", columns=columns)
        assert first.scores is not None and (first.scores.pos, first.scores.neg) == ((3.0,), (1.0, 0.5))
        # A negative that is missing takes its score with it.
        assert second.scores is not None and len(second.neg) == 1 and second.scores.neg == (2.0,)
        assert first.scores.teacher in ("sp", "label")


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"pos": [1.0]}, "scores.pos", "has 1 scores, the row has 2 positives"),
        ({"neg": [1.0, 2.0]}, "scores.neg", "has 2 scores, the row has 3 negatives"),
        ({"neg": [1.0, float("nan"), 2.0]}, r"scores.neg\[1\]", "nan is not a finite number"),
        ({"pos": [float("inf"), 1.0]}, r"scores.pos\[0\]", "inf is not a finite number"),
        ({"pos": ["high", 1.0]}, r"scores.pos\[0\]", "expected a number, not a string"),
        ({"pos": [True, 1.0]}, r"scores.pos\[0\]", "expected a number"),
        ({"pos": None}, "scores.pos", "expected a list of numbers"),
        ({"teacher": 3}, "scores.teacher", "expected a string"),
        ({"positives": [1]}, "scores.positives", "unknown key"),
    ],
)
def test_wrong_scores_are_named_with_file_line_and_field(
    tmp_path: Path, change: dict[str, Any], field: str, reason: str
) -> None:
    file = tmp_path / "r.jsonl"
    bad = OBJECT | {"scores": SCORES.as_object() | change}
    file.write_text(json.dumps(OBJECT) + "\n" + json.dumps(bad))
    with pytest.raises(InputError, match=rf"r\.jsonl line 2, field '{field}': {reason}"):
        read_rows(file)
    file.write_text(json.dumps(OBJECT | {"scores": [1, 2]}))
    with pytest.raises(InputError, match=r"line 1, field .scores.: expected .*, not a list"):
        read_rows(file)


def test_wrong_cells_are_named_with_their_row(tmp_path: Path) -> None:
    table = {"query": ["q"], "positive": ["a"], "negative": ["x"], "label": [[1.0, 2.0, 3.0]]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    columns = Columns(query="query", pos="positive", neg="negative", scores="label")
    with pytest.raises(InputError, match="row 1, field 'scores': has 3 scores, the row has 2 positives and negatives"):
        read(tmp_path / "t.parquet", "parquet", columns=columns)
    pq.write_table(pa.table(table | {"label": [True]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"column 'label': expected scores .*, not bool"):
        read(tmp_path / "t.parquet", "parquet", columns=columns)
    (tmp_path / "t.csv").write_text('query,positive,negative,label\nq,a,x,"{broken"\n')
    with pytest.raises(InputError, match="line 2, field 'scores': is not JSON"):
        read(tmp_path / "t.csv", "csv", columns=columns)


def test_scores_stay_with_their_rows(tmp_path: Path) -> None:
    rows = [ROW, Row("r", [Document("p")], [Document("n")])]
    write_rows(tmp_path / "w.jsonl", rows)
    assert read_rows(tmp_path / "w.jsonl").rows == rows
    store = write_store(tmp_path / "store", rows, {"key": "k"})
    assert list(store) == rows and store.facts["content_hash"] == content_hash(rows)
    mixed = MixedRows([Part("a", rows), Part("b", store.first(1))])
    assert mixed.has_scores().tolist() == [True, False, True]
    assert content_hash([ROW]) != content_hash([Row(ROW.query, ROW.pos, ROW.neg)])
    assert without_negatives(ROW, [1]).scores == Scores((3.5, 1.25), (-2.0, 1e-9), "judge")
    blank = OBJECT | {"neg": ["x", " ", "z"]}
    (tmp_path / "b.jsonl").write_text(json.dumps(blank))
    assert read_rows(tmp_path / "b.jsonl").rows[0].scores == Scores((3.5, 1.25), (-2.0, 1e-9), "judge")
    # Negatives that a teacher has not seen leave the row without scores.
    mined = mine_bm25([Row("red fox", [Document("a")], [Document("x")], scores=Scores((1.0,), (0.0,)))], RED, 1)
    assert len(mined[0].neg) == 2 and mined[0].scores is None


RED = [Document("red apple"), Document("green fox")]


def test_a_batch_has_the_scores_of_what_was_drawn() -> None:
    def value(text: str) -> float:
        return float(int(text[1:]))

    def row(n: int) -> Row:
        pos, neg = ([Document(f"{kind}{10 * n + i}") for i in range(4)] for kind in "pn")
        scores = Scores(tuple(value(d.text) for d in pos), tuple(-value(d.text) for d in neg))
        return Row(f"q{n}", pos, neg, scores=scores if n % 2 else None)

    for drawn, _ in zip(batches([row(n) for n in range(8)], size=4, hard_negatives=2, seed=3), range(6), strict=False):
        for query, positive, negatives, scores in zip(
            drawn.queries, drawn.positives, drawn.negatives, drawn.scores, strict=True
        ):
            wanted = [value(positive.text), *(-value(document.text) for document in negatives)]
            assert scores == (wanted if int(query[1:]) % 2 else None)
            assert scores is None or np.isfinite(scores).all()
