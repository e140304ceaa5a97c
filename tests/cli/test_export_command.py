"""`export` and `parity` as people type them: exit codes, one line, JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemma4vec.cli.main import execute
from gemma4vec.export import check_parity as checking
from gemma4vec.export import export_model as exporting
from gemma4vec.export.parity.ranking import RankingParity
from gemma4vec.export.parity.report import ParityReport


def report(*problems: str) -> ParityReport:
    ranking = RankingParity("dev", 30, 30, 0.5, 0.5, 0.0, 0.0, 0.0, 0.002, True)
    found = ParityReport("tiny", "f" * 64, "a program 1", "f32", 24, 32, 256, 0.99999, 0.999999, 1.0, 250, "truncates")
    found.ranking, found.problems = ranking, list(problems)
    return found


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = execute(list(words))
    found = capsys.readouterr()
    return code, found.out, found.err


def test_an_export_says_what_was_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def exported(run: str, to: str, **settings: Any) -> exporting.Export:
        asked.update(settings, run=run, to=to)
        return exporting.Export(tmp_path, tmp_path / "m.gguf", report())

    monkeypatch.setattr(exporting, "export_model", exported)
    code, out, _ = run(capsys, "export", "r", "--to", "gguf", "--dtype", "q8_0", "--dimension", "16", "--suite", "s")
    assert code == 0 and "24 of 32 dimensions" in out and "token ids: equal on 250 texts" in out
    assert f"written: {tmp_path / 'm.gguf'}" in out
    assert (asked["run"], asked["to"], asked["dtype"], asked["dimension"], asked["suite"]) == (
        "r",
        "gguf",
        "q8_0",
        16,
        "s",
    )
    code, out, _ = run(capsys, "export", "r", "--to", "gguf", "--json")
    found = json.loads(out)
    assert code == 0 and found["passed"] and found["path"].endswith("m.gguf") and found["ranking"]["equivalent"]


def test_a_difference_is_exit_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report("cosine 0.5 on query 'a'", "and more")
    found.cause = "EOS is missing"
    monkeypatch.setattr(checking, "check_parity", lambda *_, **__: found)
    code, out, err = run(capsys, "parity", "http://x", "r")
    assert code == 1 and out == "" and err.count("\n") == 1
    assert "cosine 0.5 on query 'a' (1 more differences); likely cause: EOS is missing" in err
    code, out, _ = run(capsys, "parity", "http://x", "r", "--json")
    assert code == 1 and json.loads(out)["cause"] == "EOS is missing"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("export", "r", "--to", "tflite"), "--to tflite: unknown format; use st, onnx, gguf"),
        (("export", "r", "--to", "onnx", "--dtype", "q8_0"), "--dtype q8_0: the format onnx is written as f32"),
        (("export", "nowhere", "--to", "st"), "no run 'nowhere'"),
        (("parity", "http://127.0.0.1:9", "nowhere"), "no run 'nowhere'"),
        (("parity", "file.txt", "nowhere"), "file.txt is neither a URL"),
        (("parity", "http://x", "r", "--dtype", "int4"), "--dtype int4: use"),
        (("parity", "http://x", "r", "--token-file", "missing"), "--token-file missing cannot be read"),
    ],
)
def test_bad_input_is_exit_2_and_one_line(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEMMA4VEC_HOME", str(tmp_path / "home"))
    code, out, err = run(capsys, *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err
