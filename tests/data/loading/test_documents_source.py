"""The source `documents` in recipes: rows, test and what is left out come through the one data path."""

import json
from pathlib import Path

import pytest
from small_documents import write_animals

from gemma4vec.cli.main import execute
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.recorded.paths import with_absolute_paths
from gemma4vec.recipe.sources import source_of


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_animals(tmp_path_factory.mktemp("animals") / "docs", files=8)


def test_rows_and_test_come_from_the_folder(animals: Path, log_lines: list[str]) -> None:
    loaded = load_sources([source_of(name="docs", source="documents", path=str(animals), max_rows=20)])
    assert len(loaded.rows) == 20 and all(row.pos and row.group for row in loaded.rows)
    assert loaded.test_suite is not None and load_suite(loaded.test_suite).role == "dev"
    assert loaded.sources["docs"]["source"] == "documents" and loaded.sources["docs"]["path"].endswith("train.jsonl.gz")
    assert any(line.startswith("docs: only ") and line.endswith("differences can be chance") for line in log_lines)


def test_keys_choose_the_pairs(animals: Path) -> None:
    keys = {"name": "docs", "source": "documents", "path": str(animals)}
    headings = load_sources([source_of(**keys, pairs=["heading"], negatives=0)])
    assert {row.task for row in headings.rows} == {"heading"} and not any(row.neg for row in headings.rows)
    with pytest.raises(InputError, match="none has a heading or a sentence to train on"):
        load_sources([source_of(**keys, pairs=["link"])])
    with pytest.raises(InputError, match="no such file; name a file of your queries"):
        load_sources([source_of(**keys, queries="nowhere.tsv")])


def test_paths_are_of_the_recipes_folder(tmp_path: Path) -> None:
    text = "stages: [{data: [{name: d, source: documents, path: docs, queries: q.tsv}], budget: {steps: 1}}]\nname: x"
    source = with_absolute_paths(parse_recipe(text, "x.yaml"), tmp_path).stages[0].data[0]
    assert (source.path, source.queries) == (str(tmp_path / "docs"), str(tmp_path / "q.tsv"))  # type: ignore[union-attr]


def test_the_command_prints_what_it_found(animals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (animals / "scan.bin").write_bytes(b"x")
    assert execute(["data", "documents", str(animals), "--json"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert printed["counts"]["files"] == {"markdown": 8} and printed["left_out"] == {"of a kind that is not read": 1}
    assert "warning: 1 left out: of a kind that is not read (scan.bin)" in captured.err
    assert execute(["data", "documents", str(animals)]) == 0
    assert "training rows: heading" in capsys.readouterr().out


def test_bad_folders_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert execute(["data", "documents", str(folder)]) == 2
        assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: {folder}: no ")
