"""Shipped recipes on real weights: they run on a fresh machine, and open in sentence-transformers as the same model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shipped_names import SIX
from tiny_run import rows

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import write_rows
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.find import shipped_recipes
from gemma4vec.recipe.load import load_recipe
from gemma4vec.training.run import start_run, train_run

QUERIES = ["read a file line by line", "sort", "What does a red-black tree cost to build, and why?" * 20]


@pytest.mark.slow
@pytest.mark.parametrize("name", SIX)
def test_a_trained_270m_opens_in_sentence_transformers(name: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    write_rows(tmp_path / "rows.jsonl", rows())
    changes = [
        "model.base=bundled:gemma-3-270m",
        "model.max_tokens=128",
        f"stages.-1.data=[{{name: rows, path: {tmp_path / 'rows.jsonl'}}}]",
        "stages.-1.task.hard_negatives=0",
        "stages.-1.batch={rows: 8}",
        "stages.-1.layout={row_tokens: 256, compile: false}",
        "stages.-1.budget={steps: 2}",
    ]
    stages = len(load_recipe(f"gemma4vec/{name}").stages)
    overrides = [c.replace("stages.-1", f"stages.{n}") for n in range(stages) for c in changes]
    if stages == 2:
        overrides = [c for c in overrides if c != "stages.0.task.hard_negatives=0"]
    run = start_run(load_recipe(f"gemma4vec/{name}", overrides), tmp_path / "runs")
    model = train_run(run)
    ours = Embedder.load(model, dtype="fp32").encode_query(QUERIES)
    plain = SentenceTransformer(str(model), device="cpu", trust_remote_code=True, model_kwargs={"dtype": "float32"})
    theirs = plain.encode_query(QUERIES)
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() >= 0.99999, cosines
    assert abs(float(ours[0] @ ours[1])) < 0.9999


# The others start from a trained model, or from files that only their user has.
NEED_NO_FILES = [
    name for name in shipped_recipes() if name != "embeddinggemma/quantize" and not name.startswith("gemma_embed/")
]


@pytest.fixture(scope="module")
def clean_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home, in which pycode is built once for each number of negatives, and an empty cache."""
    made = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA4VEC_HOME", str(made / "runs"))
        patch.setenv("GEMMA4VEC_CACHE", str(made / "cache"))
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("name", NEED_NO_FILES)
def test_a_shipped_recipe_runs_on_a_fresh_machine(
    name: str, clean_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own data, negatives, prompts and limits; only base, batch and budget are made small."""
    monkeypatch.setenv("GEMMA4VEC_HOME", str(clean_home / "runs"))
    monkeypatch.setenv("GEMMA4VEC_CACHE", str(clean_home / "cache"))
    base = "model.base=bundled:gemma-3-270m"
    assert execute(["train", name, base, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == load_recipe(name).name
    stages = len(load_recipe(name).stages)
    small = [
        change.format(n)
        for n in range(stages)
        for change in (
            "stages.{}.batch={{rows: 4, query_tokens: 32, document_tokens: 64}}",
            "stages.{}.layout={{row_tokens: 64, tokens_per_forward: 512, compile: false}}",
            "stages.{}.budget={{steps: 2}}",
        )
    ]
    assert execute(["train", name, base, *small, "--json"]) == 0
    run = RunFolder(Path(json.loads(capsys.readouterr().out)["run"]))
    assert len(run.events("stage_finished")) == stages and run.manifest["status"] == "finished"
    shutil.rmtree(run.path)  # each model takes a gigabyte
