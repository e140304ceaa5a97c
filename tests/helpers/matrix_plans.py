"""Plans and records of small matrices."""

import contextlib
import io
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_matrix import write_matrix, write_place

from gemma4vec.cli.main import execute
from gemma4vec.ledger.run_folder import RunFolder, list_runs

BROKEN = {"recipe": "mean", "name": "broken", "overrides": ["model.base=/no/such/model"]}


BLIND = {"recipe": "mean", "name": "blind", "overrides": ["model.max_tokens=4"]}  # sees the prompt's beginning alone


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def out(place: Path) -> Path:
    return place / "out"


@pytest.fixture(scope="module")
def file(place: Path) -> Path:
    return write_matrix(
        place,
        recipes=["mean", BROKEN, "last.yaml", BLIND],
        top={"count": 1, "seeds": [0, 1]},
        smallest_effect=0.24,
        stop={"after_share": 0.5},
    )


@pytest.fixture(scope="module")
def results(place: Path, file: Path, out: Path) -> dict[str, Any]:
    """What the whole matrix printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_CACHE", str(place / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        code, printed, _ = matrix(file, out, place)
    assert code == 1  # one recipe is broken
    return printed


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


def half_trained(out: Path, process: "subprocess.Popen[bytes]") -> RunFolder:
    """The second run, once it has begun to train."""
    for _ in range(1200):
        runs = list_runs(out / "runs")
        if len(runs) == 2 and len(runs[1].events("step")) >= 3:
            return runs[1]
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("the second cell never trained")
