"""Sources of a stage: read in order, counted, and named in every complaint."""

import gzip
import json
from pathlib import Path

import pytest
from tiny_code import write_code

from gemma4vec.data.loading import built_sources as sources
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.pycode.build import build_pycode
from gemma4vec.data.rows.rows import content_hash, read_rows
from gemma4vec.errors import InputError
from gemma4vec.recipe.schema import source_of


def write(path: Path, count: int, prefix: str, *extra: str) -> Path:
    lines = [json.dumps({"query": f"{prefix}{i}", "pos": [f"about {prefix}{i}"]}) for i in range(count)]
    path.write_text("\n".join([*lines, *extra]) + "\n")
    return path


def test_sources_come_one_after_the_other(log_lines: list[str], tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.jsonl", 3, "a"), write(tmp_path / "b.jsonl", 5, "b")
    loaded = load_sources([source_of(name="a", path=str(first)), source_of(name="b", path=str(second), max_rows=2)])
    assert [row.query for row in loaded.rows] == ["a0", "a1", "a2", "b0", "b1"]
    assert loaded.sources["a"]["rows"] == 3 and loaded.sources["b"]["rows"] == 2
    assert loaded.sources["b"]["content_hash"] == content_hash(loaded.rows[3:])
    assert json.loads(json.dumps(loaded.sources)) == loaded.sources  # goes into the manifest
    assert loaded.dev_suite is None and loaded.test_suite is None and not log_lines


def test_a_home_folder_and_gzip_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    plain = write(tmp_path / "a.jsonl", 2, "a").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain))
    assert len(load_sources([source_of(name="a", path="~/a.jsonl.gz")]).rows) == 2


def test_bad_rows_and_unknown_keys_are_said(log_lines: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", 8, "a", '{"query": "x"}', '{"query": "y", "pos": ["z"], "negs": []}')
    loaded = load_sources([source_of(name="mine", path=str(file), max_bad_share=0.2)])
    assert len(loaded.rows) == 9 and loaded.sources["mine"]["bad_rows"] == 1
    assert any(line.startswith("mine: 1 bad rows skipped, the first: ") and "line 9" in line for line in log_lines)
    assert "mine: unknown keys in rows ignored: negs" in log_lines


def test_negatives_of_code_are_said_to_mean_nothing_elsewhere(log_lines: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", 2, "a")
    load_sources([source_of(name="mine", path=str(file), negatives=2)])
    assert log_lines == ["mine: negatives=2 applies to pycode and documents only; these rows keep their own negatives"]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [('{"query": "x"}', r"a\.jsonl line 3, field 'pos': is missing.*1 of 3 rows are bad"), ("{", r"a\.jsonl line 3")],
)
def test_more_bad_rows_than_allowed_stop(tmp_path: Path, extra: str, expected: str) -> None:
    file = write(tmp_path / "a.jsonl", 2, "a", extra)
    with pytest.raises(InputError, match=expected):
        load_sources([source_of(name="a", path=str(file))])


def test_two_sources_of_one_name_and_missing_files_are_refused(tmp_path: Path) -> None:
    source = source_of(name="a", path=str(write(tmp_path / "a.jsonl", 2, "a")))
    with pytest.raises(InputError, match="two sources are named 'a'"):
        load_sources([source, source])
    with pytest.raises(InputError, match=r"missing\.jsonl"):
        load_sources([source_of(name="a", path=str(tmp_path / "missing.jsonl"))])


def test_pycode_brings_suites_and_is_built_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = write_code(tmp_path / "code")
    built = build_pycode(tmp_path / "built", folder=code)
    calls = []

    def instead(out: Path, **settings: object) -> object:
        calls.append((out, settings["folder"]))
        return built

    monkeypatch.setattr(sources, "load_or_build_pycode", instead)
    loaded = load_sources([source_of(name="code", source="pycode", path=str(code))])
    assert calls == [(tmp_path / "runs" / "data", code)]
    assert (loaded.dev_suite, loaded.test_suite) == (built.dev, built.test)
    assert loaded.rows == read_rows(built.train).rows and loaded.sources["code"]["source"] == "pycode"


def test_code_without_a_documented_function_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "short.py").write_text("def f(x):\n    return x\n")
    source = source_of(name="code", source="pycode", path=str(tmp_path / "code"))
    with pytest.raises(InputError, match="code: no held-out function has a docstring sentence to use as a query"):
        load_sources([source])
