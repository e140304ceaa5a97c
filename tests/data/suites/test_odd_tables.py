"""Tables of a mirrored data set: what is no id, text, grade or score is named, never made into one."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from gemma4vec.data.suites.catalog import CatalogSuite, HubTask
from gemma4vec.data.suites.hub import open_catalog_suite
from gemma4vec.data.suites.hub_tables import read_table
from gemma4vec.errors import InputError

RETRIEVAL = CatalogSuite("s", "retrieval", "dev", "", (HubTask("t", "o/n", "1" * 40, "test"),))
STS = CatalogSuite("s", "sts", "dev", "", (HubTask("t", "o/n", "1" * 40, "test", "sts"),))
CORPUS = [{"_id": "d1", "text": "one"}, {"_id": "d2", "text": None, "title": None}]
QUERIES = [{"_id": "q1", "text": "which"}]
PAIRS = [{"sentence1": f"a{n}", "sentence2": "b", "score": n} for n in range(4)]


def mirror(path: Path, **tables: list[dict[str, Any]]) -> Path:
    for name, rows in tables.items():
        file = path / "o" / "n" / name / "test.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judged(*scores: Any) -> list[dict[str, Any]]:
    return [{"query-id": "q1", "corpus-id": f"d{n}", "score": score} for n, score in enumerate(scores, start=1)]


def test_whole_grades_of_any_type_are_read(tmp_path: Path) -> None:
    found = open_catalog_suite(
        RETRIEVAL, mirror=mirror(tmp_path, corpus=CORPUS, queries=QUERIES, qrels=judged(1.0, "0"))
    )
    (suite,) = found.members
    assert suite.qrels == {"q1": {"d1": 1, "d2": 0}}


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"qrels": judged(1, 0.5)}, r"n: row 2 of the judgments: score 0\.5 is not a whole number"),
        ({"qrels": judged(None)}, r"row 1 of the judgments: score None is not a whole number"),
        ({"qrels": judged(True)}, r"row 1 of the judgments: score True is not a whole number"),
        ({"qrels": judged(10**7)}, r"row 1 of the judgments: score 10000000 is beyond"),
        ({"qrels": [{"query-id": None, "corpus-id": "d1"}]}, r"field 'query-id': a string is needed, not null"),
        (
            {"qrels": [{"query-id": "q1", "corpus-id": ["d1", None]}]},
            r"field 'corpus-id': a string is needed, not null",
        ),
        ({"corpus": [{"_id": "\ud83d", "text": "x"}]}, r"row 1 of the texts, field '_id': the id '\\ud83d' has a lone"),
        ({"corpus": [*CORPUS, {"text": "x"}]}, r"row 3 of the texts, field '_id': a string is needed, not null"),
        ({"corpus": [{"_id": "d1", "text": 5}]}, r"row 1 of the texts, field 'text': a string is needed, not a number"),
        ({"corpus": [{"_id": "d1", "text": "x", "title": []}]}, r"field 'title': a string is needed, not a list"),
    ],
)
def test_what_is_no_id_text_or_grade_is_named(tmp_path: Path, tables: dict[str, Any], expected: str) -> None:
    tables = {"corpus": CORPUS, "queries": QUERIES, "qrels": judged(1), **tables}
    with pytest.raises(InputError, match=expected):
        open_catalog_suite(RETRIEVAL, mirror=mirror(tmp_path, **tables))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"score": None}, r"n: row 2 of test: score None is not a number"),
        ({"score": "nan"}, r"row 2 of test: score 'nan' is not a number"),
        ({"score": 10**400}, r"test\.jsonl line 2: an integer of 401 digits"),
        ({"sentence2": None}, r"row 2 of test, field 'sentence2': a string is needed, not null"),
    ],
)
def test_what_is_no_sentence_or_score_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    rows = [PAIRS[0], {**PAIRS[1], **change}, *PAIRS[2:]]
    with pytest.raises(InputError, match=expected):
        open_catalog_suite(STS, mirror=mirror(tmp_path, default=rows))


def test_doubled_columns_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    doubled = pyarrow.Table.from_arrays([pyarrow.array([x]) for x in "ab"], names=["text", "text"])
    pyarrow.parquet.write_table(doubled, tmp_path / "qrels" / "test.parquet")
    with pytest.raises(InputError, match=r"test\.parquet: two columns are called 'text'"):
        read_table(tmp_path, "qrels", "test")
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 1, pyarrow.array([b"\xff"], pyarrow.binary()).buffers())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "qrels" / "test.parquet")
    with pytest.raises(InputError, match=r"test\.parquet is damaged"):
        read_table(tmp_path, "qrels", "test")


@pytest.mark.parametrize(
    "readme", [b"---\n\xff\n---\n", b"---\nconfigs: [{config_name: qrels, data_files: /etc/*}]\n---\n"]
)
def test_an_odd_readme_leaves_the_usual_layout(tmp_path: Path, readme: bytes) -> None:
    (mirror(tmp_path, qrels=judged(1)) / "o" / "n" / "README.md").write_bytes(readme)
    assert read_table(tmp_path / "o" / "n", "qrels", "test") == judged(1)


@pytest.mark.parametrize(("name", "read"), [("train", False), ("corpus", True), ("test", True), ("validation", False)])
def test_the_only_split_is_not_read_for_another(tmp_path: Path, name: str, read: bool) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / f"{name}-00000-of-00001.jsonl").write_text('{"_id": "d", "text": "x"}\n')
    if read:
        assert len(read_table(tmp_path, "corpus", "test")) == 1
        return
    with pytest.raises(InputError, match=f"corpus has no split 'test'; it has {name}"):
        read_table(tmp_path, "corpus", "test")
