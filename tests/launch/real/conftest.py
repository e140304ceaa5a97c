"""The training that all machines must repeat bit by bit."""

from pathlib import Path

import pytest
from launched import run_here, write_recipe

from gemma4vec.cli.main import execute
from gemma4vec.ledger.run_folder import RunFolder, list_runs


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="session")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """What two processes of one machine train, by `gemma4vec launch local`."""
    folder = tmp_path_factory.mktemp("local")
    words = [str(recipe), "--nproc-per-node", "2", "--out", str(folder / "out"), "--output", str(folder / "script")]
    assert execute(["launch", "local", *words]) == 0
    run_here(folder / "log", "bash", str(folder / "script"))
    (run,) = list_runs(folder / "out")
    return run
