"""Two and four processes are one: loss, gradients, whole runs, and who writes."""

import os
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from asked import asked_for
from gloo_world import ROWS, TERMS
from tiny_model import write_tiny
from tiny_run import RECIPE, write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder, list_runs
from gemma4vec.training.engine.distributed import FollowedRun, World

TESTS = Path(__file__).resolve().parents[2]
SOURCE = TESTS.parent / "src"
WORLD = TESTS / "helpers" / "training" / "gloo_world.py"


def environment() -> dict[str, str]:
    paths = [str(SOURCE), str(WORLD.parent), str(WORLD.parents[1] / "models")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("worlds")
    words = [str(WORLD), str(base), str(out), *sorted(asked_for(request, "name"))]
    forked.run([sys.executable, *words], env=environment(), check=True)
    made: dict[str, Any] = torch.load(out / "found.pt", weights_only=False)
    return made


def test_a_gather_has_every_row_and_every_process_gradient(found: dict[str, Any]) -> None:
    whole = torch.tensor([0.0, 1, 1, 2, 2, 2])[:, None].expand(6, 2)
    rows = torch.arange(6, dtype=torch.float32)[:, None].expand(6, 2) * (1 + 2 + 3)
    for rank, part in enumerate((rows[:1], rows[1:3], rows[3:])):
        assert torch.equal(found["gathered"][rank]["every"], whole)
        assert torch.equal(found["gathered"][rank]["gradient"], part)


@pytest.mark.parametrize(("name", "atol"), [pytest.param("fp32", 1e-6, marks=pytest.mark.slow), ("fp64", 1e-12)])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("size", [2, 4])
def test_many_processes_have_the_loss_and_gradients_of_one(
    found: dict[str, Any], size: int, cached: bool, name: str, atol: float
) -> None:
    (one,) = found[f"1 {name} False"]
    own = [process["facts"][2] for process in found[f"{size} {name} {cached}"]]
    assert sum(own) == ROWS and len(set(own)) == 2
    for process in found[f"{size} {name} {cached}"]:
        assert process["loss"] == pytest.approx(one["loss"], abs=atol * 10)
        assert process["facts"][:2] == one["facts"][:2]
        assert process["terms"] == pytest.approx(one["terms"], abs=atol * 10)
        assert list(process["terms"]) == [term["kind"] for term in TERMS]
        for key, gradient in one["gradients"].items():
            assert gradient.abs().max() > 1e-4, key
            away = (process["gradients"][key] - gradient).norm() / gradient.norm()
            assert away < atol, key


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("size", [2, 4])
def test_scores_and_weights_by_source_are_those_of_one_process(found: dict[str, Any], size: int, cached: bool) -> None:
    (one,) = found["1 scored False"]
    assert set(one["terms"]) == {"nce", "kl", "margin_mse"} and min(one["terms"].values()) > 1e-3
    for process in found[f"{size} scored {cached}"]:
        assert process["loss"] == pytest.approx(one["loss"], abs=1e-11)
        assert process["terms"] == pytest.approx(one["terms"], abs=1e-11)
        for key, gradient in one["gradients"].items():
            assert gradient.abs().max() > 1e-5, key
            assert (process["gradients"][key] - gradient).norm() / gradient.norm() < 1e-11, key


def test_a_run_of_two_is_resumed_to_the_same_weights(found: dict[str, Any]) -> None:
    straight, resumed = found["straight"], found["resumed"]
    assert resumed[0]["losses"] == straight[0]["losses"] and len(straight[0]["losses"]) == 4
    for name, weight in straight[0]["weights"].items():
        assert torch.equal(resumed[0]["weights"][name], weight), name
    for one, other in ((straight[0], straight[1]), (resumed[0], resumed[1])):
        for name, weight in one["model"].items():
            assert torch.equal(other["model"][name], weight), name


@pytest.mark.slow  # the worlds above are processes as torchrun starts them
def test_torchrun_trains_as_one_process_does_and_writes_once(base: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.format(base=base, rows=write_rows_file(tmp_path / "rows.jsonl"))
    recipe.write_text(text.replace("dropout: 0.2", "dropout: 0.0").replace("dtype: bf16", "dtype: fp32"))
    assert execute(["train", str(recipe), "--out", str(tmp_path / "one")]) == 0
    words = ["--nproc-per-node", "2", "--master-port", "0", "-m", "gemma4vec", "train", str(recipe), "--json"]
    forked.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *words, "--out", str(tmp_path / "two")],
        env=environment(),
        check=True,
    )
    (one,), (two,) = list_runs(tmp_path / "one"), list_runs(tmp_path / "two")
    steps = two.events("step")
    assert [s["loss"] for s in steps] == pytest.approx([s["loss"] for s in one.events("step")], abs=1e-5)
    assert [s["rows"] for s in steps] == [s["rows"] for s in one.events("step")]
    assert [s["tokens"] for s in steps] == [s["tokens"] for s in one.events("step")]
    assert [e["event"] for e in two.events()] == [e["event"] for e in one.events()]
    assert two.manifest["status"] == "finished" and (two.model / "model.safetensors").is_file()


def test_rows_are_shared_out_evenly_and_each_process_has_one() -> None:
    world = World()
    assert world.first and world.size == 1 and world.share(5) == slice(0, 5)
    world.size = 4
    for rows in range(4, 20):
        counts = world.counts(rows)
        assert sum(counts) == rows and max(counts) - min(counts) <= 1 and len(counts) == 4
        taken = []
        for rank in range(4):
            world.rank = rank
            taken += range(rows)[world.share(rows)]
        assert taken == list(range(rows))
    with pytest.raises(InputError, match=r"batch\.rows: 3 rows for 4 processes"):
        world.counts(3)


def test_a_process_behind_the_first_writes_nothing(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "tiny", "name: tiny\n")
    before = run.manifest
    followed = FollowedRun(run.path)
    followed.event("step", step=1)
    followed.update_manifest(status="failed")
    followed.write_manifest({})
    assert run.manifest == before and not run.events()
