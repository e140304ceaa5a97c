"""`examples/own_data.py` runs from a person's file to a searched model, here on a tiny base for a few steps."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import forked
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_data.py"


@pytest.mark.parametrize(
    "own", [pytest.param(True, id="own rows"), pytest.param(False, id="rows of the library", marks=pytest.mark.slow)]
)
def test_the_example_runs(trained: Any, tmp_path: Path, own: bool) -> None:
    given: list[str] = []
    if own:
        verbs, things = ("read", "write", "sort", "open", "close", "return"), ("file", "tree", "graph", "list")
        rows = [{"query": f"{a} the {b}", "pos": [f"one can {a} such a {b}"]} for a in verbs for b in things]
        file = tmp_path / "mine.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = [str(file)]
    base = str(trained.recipe["model"]["base"])
    words = ["--base", base, "--steps", "2", "--out", str(tmp_path / "out"), "--held-out", "8", "--max-rows", "80"]
    done = forked.run(
        [sys.executable, str(EXAMPLE), *given, *words],
        cwd=tmp_path,
        env={**os.environ, "GEMMA4VEC_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    lines = " ".join(done.stdout.split())
    assert "own-data: 8 queries" in lines and "bm25" in lines and "95% interval" in lines
    assert ("24 rows, such as" if own else "80 rows, such as") in lines
    assert "the model:" in lines and "the report:" in lines and "nothing found" in lines
    (run,) = (tmp_path / "home").glob("*/model/modules.json")
    assert run.is_file()
