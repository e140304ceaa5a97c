"""Plans and records of small matrices."""

import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import forked
import pytest

from gemma4vec.cli.main import execute
from gemma4vec.ledger.run_folder import RunFolder, list_runs

BROKEN = {"recipe": "mean", "name": "broken", "overrides": ["model.base=/no/such/model"]}
# BOS and the prompt's two tokens leave one for the text: every document of `tiny_matrix` begins with the same.
BLIND = {
    "recipe": "mean",
    "name": "blind",
    "overrides": ["model.max_tokens=4", "model.prompts={query: '||', document: '||'}"],
}


def matrix(file: Path, out: Path, place: Path, *more: str) -> tuple[int, Any, str]:
    """Run the command; exit code, the JSON that it printed, and what it said."""
    stdout, stderr = io.StringIO(), io.StringIO()
    words = ["matrix", str(file), "--out", str(out), "--set", f"variables.suites={place / 'suites'}", "--json", *more]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        patch.setenv("GEMMA4VEC_HOME", str(place / "home"))  # one ledger for all calls: p depends on what was tried
        code = execute(words)
    text = stdout.getvalue()
    return code, json.loads(text) if text else None, stderr.getvalue()


def row(results: dict[str, Any], variant: str) -> dict[str, Any]:
    return next(row for row in results["rows"] if row["variant"] == variant)


def half_trained(out: Path, process: forked.Popen) -> RunFolder:
    """The second run, once it has begun to train."""
    for _ in range(6000):  # five minutes: a busy machine takes one to import the libraries
        runs = list_runs(out / "runs")
        if len(runs) == 2 and len(runs[1].events("step")) >= 3:
            return runs[1]
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("the second cell never trained")
