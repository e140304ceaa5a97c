"""Results on disk: odd folders, and files that somebody changed."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.result import PER_QUERY_FILE, Result, load_result, save_result

RESULT = Result("model", "suite", {"suite": {"a": {"ndcg@10": 0.5, "map": 0.25}, "b": {"ndcg@10": 1.0, "map": 1.0}}})


def test_a_folder_whose_name_looks_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_result(RESULT, Path("bundled:/suite"), [])
    assert load_result(Path("bundled:/suite")).mean == {"ndcg@10": 0.75, "map": 0.625}


def test_queries_with_different_metrics_are_damage(tmp_path: Path) -> None:
    save_result(RESULT, tmp_path / "out", [])
    file = tmp_path / "out" / PER_QUERY_FILE
    pq.write_table(pq.read_table(file).slice(1), file)
    with pytest.raises(InputError, match="damaged \\(queries with different metrics\\); evaluate again"):
        load_result(tmp_path / "out")
