"""Models that were really trained with a fault: the inspection names the fault first."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_model import write_tiny

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.files import home
from gemma4vec.ledger.run_folder import RunFolder, list_runs
from gemma4vec.text.prompts import Document

SYLLABLES = [one + other for one in "bdfgklmnprstvz" for other in "aeiou"]
QUERIES, SENTENCES, WORDS = 160, 5, 3


def pairs(count: int, generator: np.random.Generator, place: int | None = None) -> list[tuple[str, Document]]:
    """A query is one sentence of its document, at this place or at any; a sentence is three words of two syllables."""
    found = []
    for _ in range(count):
        drawn = generator.choice(SYLLABLES, (SENTENCES, WORDS, 2))
        sentences = [" ".join("".join(word) for word in sentence) for sentence in drawn.tolist()]
        chosen = int(generator.integers(SENTENCES)) if place is None else place
        found.append((sentences[chosen], Document(". ".join(sentences) + ".")))
    return found


def train(
    folder: Path, rows: list[tuple[str, Document]], steps: int, *, echoes: bool = False, **model: object
) -> RunFolder:
    """Train a tiny model on rows, and write a suite of other pairs: `folder/faults`.

    With `echoes` each query is a wrong document too: only its prompt says that it is a query.
    """
    echo = (lambda query: [Document(query)]) if echoes else (lambda _: [])
    write_rows(folder / "rows.jsonl", [Row(query, [document], echo(query)) for query, document in rows])
    asked = pairs(QUERIES, np.random.default_rng(1))
    ids = [f"q{row}" for row in range(QUERIES)]
    documents = [f"d{row}" for row in range(QUERIES)]
    suite = RetrievalSuite(
        "faults",
        documents + [f"echo{row}" for row in range(QUERIES)] * echoes,
        [document for _, document in asked] + [one for query, _ in asked for one in echo(query)],
        ids,
        [query for query, _ in asked],
        {key: {right: 1} for key, right in zip(ids, documents, strict=True)},
        role="dev",
    )
    write_suite(folder / "faults", suite)
    base = {"base": str(write_tiny(folder / "base", "gemma3", layers=2, window=64)), "lora": None, "train": "full"}
    stage = {
        "data": [{"name": "pairs", "path": str(folder / "rows.jsonl")}],
        "task": {"kind": "contrast", "hard_negatives": int(echoes)},
        "batch": {"rows": 32},
        "layout": {"compile": False},
        "optimizer": {"learning_rate": 0.003},
        "budget": {"steps": steps},
    }
    usual = {"readout": {"name": "mean"}, "attention": "bidirectional", "prompts": "none"}
    recipe = {"name": "faulty", "model": {**base, **usual, **model}, "stages": [stage]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    before = {run.run_id for run in list_runs(home())}
    assert execute(["train", str(folder / "recipe.yaml")]) == 0
    (run,) = (run for run in list_runs(home()) if run.run_id not in before)
    return run


def inspected(model: str, folder: Path, probes: str, capsys: pytest.CaptureFixture[str]) -> dict:
    """What `inspect --json` prints."""
    capsys.readouterr()
    words = ["inspect", model, "--suite", str(folder / "faults"), "--dtype", "fp32", "--probes", probes, "--json"]
    assert execute(words) == 0
    found: dict = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_a_model_that_reads_32_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path, pairs(800, np.random.default_rng(0)), 60, max_tokens=32)
    found = inspected(run.run_id, tmp_path, "truncation,prompts", capsys)
    assert found["kinds"][0]["name"] == "evidence_cut" and found["kinds"][0]["low"] > 1.0
    first = found["probes"]["figures"][0]
    assert first["probe"] == "truncation" and first["clear"] and first["value"] == pytest.approx(1.0, abs=0.1)
    assert found["advice"][0]["what"].startswith("let the model read longer texts")
    best = found["slices"][0]
    assert best["rule"] == "evidence_cut is yes" or best["rule"].startswith("evidence_place > ")
    assert best["p_max_t"] < 0.01


@pytest.mark.slow
def test_a_model_trained_on_rows_whose_evidence_is_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path, pairs(1500, np.random.default_rng(0), place=0), 120, max_tokens=160)
    found = inspected(run.run_id, tmp_path, "position,length,prompts", capsys)
    last, middle = found["probes"]["figures"][:2]
    assert last["name"] == "evidence last instead of first" and last["clear"] and last["low"] > 0.2
    assert middle["name"] == "evidence middle instead of first" and middle["clear"] and middle["value"] < last["value"]
    best = found["slices"][0]
    assert best["rule"].startswith("evidence_place > ") and best["p_max_t"] < 0.01


@pytest.mark.slow
def test_a_model_trained_without_the_prompts_of_its_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where an embedding model that knows prompts is trained further, and nobody gives them."""
    rows = pairs(1500, np.random.default_rng(0))
    base = train(tmp_path, rows, 200, echoes=True, max_tokens=160, prompts="retrieval")
    run = train(tmp_path, rows, 2, echoes=True, max_tokens=160, base=str(base.path / "model"))
    found = inspected(run.run_id, tmp_path, "prompts,position,length,literal", capsys)
    first = found["probes"]["figures"][0]
    assert (first["probe"], first["name"]) == ("prompts", "with the prompts retrieval")
    assert first["clear"] and first["low"] > 0.05
    assert found["advice"][0]["what"].startswith("encode with other prompts")
