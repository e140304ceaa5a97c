"""docs/results.md: every kept result has a claim, and the table is that of the files."""

from pathlib import Path

import pytest

import results_table


def test_the_page_is_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert results_table.main(["--check"]) == 0, capsys.readouterr().err


def test_a_result_without_a_claim_and_an_old_table_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, results = tmp_path / "results.md", tmp_path / "results"
    results.mkdir()
    (results / "speed-amd-epyc-2-cores.json").write_text(
        '{"command": ["python", "-m", "x"], "created": "2026-01-02T03:04:05", "git": {"commit": "0123456789"}, '
        '"machine": {"cpu": "AMD EPYC", "cores": 2, "gpus": ["H100"]}}'
    )
    page.write_text(f"| fast | `other` |\n\n{results_table.MARK}")
    monkeypatch.setattr(results_table, "PAGE", page)
    monkeypatch.setattr(results_table, "RESULTS", results)
    assert results_table.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "no claim names speed" in said and "run python tools/results_table.py" in said
    page.write_text(f"| fast | `speed` |\n\n{results_table.MARK}")
    assert results_table.main([]) == 0 and results_table.main(["--check"]) == 0
    assert "| `speed` | `python -m x` | 01234567 | 2026-01-02 | AMD EPYC, 2 cores, H100 |" in page.read_text()
