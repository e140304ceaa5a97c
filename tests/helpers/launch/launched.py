"""What tests of launching start: a tiny training, an encoding, and scripts that `gemma4vec launch` writes."""

import os
import subprocess
from pathlib import Path

from daemons import SOURCE, processes_with, until
from encoded_folders import corpus, write_corpus
from tiny_model import write_tiny
from tiny_run import RECIPE, write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.ledger.run_folder import RunFolder, list_runs

STEPS = 60
ROWS, SHARD_ROWS = 400, 4
VARIABLES = {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write_recipe(folder: Path) -> Path:
    """A recipe of `STEPS` steps with a checkpoint after each."""
    base = write_tiny(folder / "base", "gemma3", layers=1)
    text = RECIPE.format(base=base, rows=write_rows_file(folder / "rows.jsonl"))
    (folder / "recipe.yaml").write_text(text.replace("steps: 6", f"steps: {STEPS}"))
    return folder / "recipe.yaml"


def write_texts(folder: Path) -> Path:
    """Texts of `ROWS` rows."""
    return write_corpus(folder / "texts.jsonl", corpus(ROWS))


def write_launch(where: str, script: Path, *words: str) -> Path:
    """The script that `gemma4vec launch` writes for these words, which gives all machines our variables."""
    variables = [word for name, value in VARIABLES.items() for word in ("--env", f"{name}={value}")]
    assert execute(["launch", where, *variables, "--output", str(script), *words]) == 0
    return script


def run_here(log: Path, *words: str) -> None:
    """Run `gemma4vec` in a process of its own to its end."""
    with log.open("wb") as stream:
        done = subprocess.run(list(words), env=os.environ | VARIABLES, stdout=stream, stderr=stream, check=False)
    assert done.returncode == 0, log.read_text()


def run_with_steps(out: Path, number: int) -> RunFolder:
    """Wait until the only run in `out` has taken a step of this number."""

    def reached() -> bool:
        runs = list_runs(out)
        return bool(runs) and any(event["step"] >= number for event in runs[0].events("step"))

    until(reached, f"step {number} in {out}")
    (run,) = list_runs(out)
    return run


def shards_done(out: Path, first: int = 0, every: int = 1) -> int:
    """How many of the shards `first`, `first + every`, ... are done."""
    notes = [int(file.stem) for file in (out / "shards").glob("*.json")]
    return len([one for one in notes if one % every == first])


def nothing_is_left(folder: Path, seconds: float = 300.0) -> None:
    """Wait until no process has this folder in its command line."""
    until(lambda: not processes_with(str(folder)), f"no process of {folder} runs", seconds)
