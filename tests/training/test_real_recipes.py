"""Shipped recipes on real weights: they run on a fresh machine, and open in sentence-transformers as the same model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from phase_files import write_phase_files
from shipped_names import SIX
from small_suite import write_small_suite
from tiny_run import rows
from tokenizers import Tokenizer

from gemma4vec.cli.main import execute
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.bases.bundled import BUNDLED, description
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.find import shipped_recipes
from gemma4vec.recipe.load import load_recipe
from gemma4vec.text.prompts import Document
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


BASE = "bundled:gemma-3-270m"
SUITES = ("cranfield", "cosqa", "xquadr_de", "scifact", "dbpedia_entity_5k")
# What a recipe starts from, and the recipe of its module that makes it.
MADE_FROM = {
    "embeddinggemma/quantize": ("model.start", "embeddinggemma/finetune_task"),
    "gemma_embed/query_decoder": ("stages.0.task.embedder", "gemma_embed/three_phases"),
}


class FreshMachine:
    """An empty home and an empty cache, and a working folder with a user's files; runs that others start from stay."""

    def __init__(self, kept: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
        self.kept, self.capsys = kept, capsys

    def say(self, *command: str) -> dict[str, Any]:
        """Run a command that ends well and return its JSON."""
        assert execute([*command, "--json"]) == 0
        said: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return said

    def start_of(self, name: str) -> list[str]:
        """What the recipe needs that no file can hold: a base, or a model that two steps of another recipe made."""
        base = [] if name == "embeddinggemma/quantize" else [f"model.base={BASE}"]
        if name not in MADE_FROM:
            return base
        key, maker = MADE_FROM[name]
        return [*base, f"{key}={self.kept.get(maker) or self.train(maker).path}"]

    def train(self, name: str) -> RunFolder:
        """Train two steps of each stage; only base, batch and budget are made small, and bf16 is nowhere emulated."""
        stages = load_recipe(name).stages
        small = ["model.dtype=auto"]
        for number, stage in enumerate(stages):
            writes = stage.task.kind in ("vector_to_text", "suggestion")  # in texts as long as the recipe says
            limits = "rows: 4" if writes else "rows: 4, query_tokens: 32, document_tokens: 64"
            width = 160 if writes else 64
            small += [
                f"stages.{number}.batch={{{limits}}}",
                f"stages.{number}.layout={{row_tokens: {width}, tokens_per_forward: 512, compile: false}}",
                f"stages.{number}.budget={{steps: 2}}",
            ]
        run = RunFolder(Path(self.say("train", name, *self.start_of(name), *small)["run"]))
        assert len(run.events("stage_finished")) == len(stages) and run.manifest["status"] == "finished"
        if name in {maker for _, maker in MADE_FROM.values()}:
            self.kept[name] = run.path
        return run


@pytest.fixture(scope="module")
def clean_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty but for the files that only a user has; pycode is built in it once for each number of negatives."""
    made = tmp_path_factory.mktemp("home")
    (made / "files").mkdir()
    with description(BUNDLED["gemma-3-270m"]) as folder:  # in another cache
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # More different texts than the largest batch has rows.
    numbered = [Row(f"{row.query} {n}", [Document(f"{row.pos[0].text} {n}")]) for n in range(20) for row in rows()]
    write_phase_files(made / "files", numbered, ids_of=lambda text: list(tokenizer.encode(text).ids))
    for name in SUITES:
        write_small_suite(made / "files", name, extra=f" of {name}")
    return made


@pytest.fixture(scope="module")
def kept() -> dict[str, Path]:
    """The runs that others start from, by recipe."""
    return {}


@pytest.fixture
def machine(
    clean_home: Path, kept: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> FreshMachine:
    monkeypatch.setenv("GEMMA4VEC_HOME", str(clean_home / "runs"))
    monkeypatch.setenv("GEMMA4VEC_CACHE", str(clean_home / "cache"))
    monkeypatch.chdir(clean_home / "files")
    return FreshMachine(kept, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_runs_on_a_fresh_machine(name: str, machine: FreshMachine) -> None:
    """Its own data, negatives, prompts and limits; files of the published kinds where the recipe names a user's."""
    found = machine.say("train", name, *machine.start_of(name), "--dry-run")
    assert found["recipe"] == load_recipe(name).name and found["seconds"] > 0
    run = machine.train(name)
    if run.path not in machine.kept.values():
        shutil.rmtree(run.path)  # each model takes a gigabyte


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name", "changes"),
    [
        ("pipeline", "embeddinggemma/plan", ["variables.suites=."]),
        ("pipeline", "gemma_embed/plan", ["variables.dev=dev", f"set={{model.base: {BASE}}}"]),
        ("matrix", "recipes_270m", ["variables.suites=."]),
    ],
)
def test_a_shipped_plan_is_estimated_on_a_fresh_machine(
    command: str, name: str, changes: list[str], machine: FreshMachine
) -> None:
    found = machine.say(command, name, *(part for one in changes for part in ("--set", one)), "--dry-run")
    if command == "matrix":
        assert {cell["status"] for cell in found["cells"]} == {"waiting"}
        assert {cell["variant"] for cell in found["cells"]} >= set(SIX)
        return
    assert len(found["jobs"]) >= 2 and min(job["parameters"] for job in found["jobs"]) > 200_000_000
    assert found["peak_memory_gb"] > 0.5
