"""What is printed: valid JSON on stdout, tables that fit 100 columns."""

import io
import json
import logging
import math
import sys

import pytest

from gemma4vec.cli.output import MAXIMAL_WIDTH, console, emit, print_json, results, table
from gemma4vec.machine.terminal import show_on


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan, "b": [1.5, -math.inf], "c": {"d": (1, None)}, "e": "ü"})

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    read = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert read == {"a": None, "b": [1.5, None], "c": {"d": [1, None]}, "e": "ü"}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_valid_for_every_terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"é": ["\N{GRINNING FACE}", "lone \ud800", "漢"]}
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    print_json(value)
    sys.stdout.flush()
    assert json.loads(raw.getvalue().decode(encoding)) == value


def test_emit_prints_json_or_what_is_rendered(capsys: pytest.CaptureFixture[str]) -> None:
    emit(True, {"a": 1}, lambda _: pytest.fail("rendered"))
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    emit(False, {"a": 1}, lambda value: f"a is [bold]{value['a']}[/bold]")
    assert capsys.readouterr().out == "a is [bold]1[/bold]\n"  # texts are shown as they are, not as markup


def test_log_lines_go_to_stderr_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with show_on(lambda: console):
        logging.getLogger("gemma4vec.any").info("word [x] " * 50)
        logging.getLogger("gemma4vec.any").debug("more")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1 and output.err.count("[x]") == 50


def test_tables_fit(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["a model with a name " * 10, 0.123456, 7, None, True], ["b", 1.0, 1000, "text", False]]
    results.print(table(["model", "nDCG@10", "n", "note", "best"], rows, title="Scores"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= MAXIMAL_WIDTH
    text = "\n".join(lines)
    assert "0.1235" in text and "-" in text and "yes" in text and "Scores" in text
