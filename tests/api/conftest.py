"""A tiny model, trained once, and a suite to score it on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny
from tiny_run import rows, write_rows_file

import gemma4vec as g4v
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite


@dataclass
class Trained:
    """Where everything of a finished run is."""

    home: Path
    rows: Path
    suite: Path
    recipe: dict[str, Any]
    run: Any


def suite_of(name: str, role: str | None = "dev") -> RetrievalSuite:
    """The documents of the tiny rows, asked for in other words than the rows have."""
    made = rows()
    return RetrievalSuite(
        name=name,
        corpus_ids=[f"d{place}" for place in range(len(made))],
        corpus=[row.pos[0] for row in made],
        query_ids=[f"q{place}" for place in range(len(made))],
        queries=[f"{row.query} now" for row in made],
        qrels={f"q{place}": {f"d{place}": 1} for place in range(len(made))},
        role=role,  # type: ignore[arg-type]
        code=True,  # words inside of names count
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run of six steps; tests read it, and write results into it alone."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = {
        "name": "tiny",
        "model": {
            "base": write_tiny(folder / "base"),
            "dtype": "fp32",
            "max_tokens": 48,
            "lora": {"rank": 4},
        },
        "stages": [
            {
                "name": "contrast",
                "data": [{"name": "rows", "path": write_rows_file(folder / "rows.jsonl")}],
                "task": {"temperature": 0.1},
                "batch": {"rows": 8},
                "layout": {"row_tokens": 32, "tokens_per_forward": 128, "compile": False},
                "optimizer": {"learning_rate": 0.01, "warmup_steps": 2},
                "budget": {"steps": 6},
                "evaluation": {"checkpoint_seconds": 0},
            }
        ],
    }
    write_suite(folder / "words", suite_of("words"))
    home = folder / "home"
    return Trained(home, folder / "rows.jsonl", folder / "words", recipe, g4v.train(recipe, out=home, progress=False))


@pytest.fixture
def same_home(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The trained run as one of this home's runs."""
    monkeypatch.setenv("GEMMA4VEC_HOME", str(trained.home))
    return trained
