"""A training from Python: `train`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.api.display import Showing, Shown, progress_shown
from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.ledger.run_folder import RunFolder, find_run
from gemma4vec.machine.memory import torchrun_count
from gemma4vec.recipe.load import load_recipe, parse_dump, typed_overrides
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.early_compiler import prepare_compiler
from gemma4vec.training.job import check_not_stopped, current_job

logger = logging.getLogger(__name__)


class Run(Showing):
    """A run on disk: what was trained, with what, and how it went. `train` returns one.

    Attributes:
        folder: where everything of the run is.
        run_folder: the same for the rest of the package.
    """

    def __init__(self, run: RunFolder):
        self.run_folder = run
        self.folder = run.path

    @property
    def id(self) -> str:
        """The run's unique name, which every command and function takes in place of the folder."""
        return self.run_folder.run_id

    @property
    def manifest(self) -> dict[str, Any]:
        """Contents of manifest.json: status, versions, data hashes, machine, how it ended."""
        return self.run_folder.manifest

    @property
    def status(self) -> str:
        """ "started", "finished", "interrupted" or "failed"."""
        return str(self.manifest.get("status", "started"))

    @property
    def recipe(self) -> Recipe:
        """The recipe that the run was started with."""
        return parse_dump(self.run_folder.recipe_text, str(self.folder / "recipe.yaml"))

    @property
    def model_folder(self) -> Path:
        """The trained model, which sentence-transformers opens too; it is there once the run is finished."""
        return self.run_folder.model

    @property
    def losses(self) -> NDArray[np.float64]:
        """The loss of every step of all stages in their order, float64[steps]; a resumed run's repeated steps once."""
        from gemma4vec.report.content.training_log import read_training

        return np.array([step.loss for step in read_training(self.events()).steps], dtype=np.float64)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What the training noted, in order: each event has `time` (seconds since 1970), `event` and its own fields.

        Args:
            kind: only events of this name, such as "step", "evaluation" or "finished".
        """
        return list(self.run_folder.events(kind))

    def report(self, out: str | Path | None = None) -> Path:
        """Write a page about the run, one HTML file without a reference to others, and return its path.

        Args:
            out: the file; None writes `report.html` into the run's folder.

        Raises:
            WorkError: the file cannot be written.
        """
        from gemma4vec.report.run_page import write_report

        return write_report(self.folder, None if out is None else Path(out))

    def _shown(self) -> Shown:
        losses = self.losses
        loss = f"{losses[0]:.4f} to {losses[-1]:.4f}" if len(losses) else None
        ended = self.manifest.get("ended") or {}
        rows: list[list[object]] = [
            ["status", self.status],
            ["ended by", ended.get("reason") or ended.get("by")],
            ["steps", len(losses)],
            ["loss, first to last step", loss],
            ["base", self.recipe.model.base],
            ["model", self.model_folder if self.model_folder.is_dir() else None],
        ]
        return Shown(f"Run {self.id}", ["", ""], rows, [f"folder: {self.folder}"])


def train(
    recipe: str | Path | Mapping[str, object] | Recipe | None = None,
    overrides: Mapping[str, object] | Sequence[str] | None = None,
    *,
    resume: Run | str | Path | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    job: str | None = None,
    progress: bool = True,
) -> Run:
    """Train what a recipe describes, or go on with a run. The same as `gemma4vec train`.

    The ledger records the run. Interrupted (Ctrl-C, a kill, a crash), it goes on from its last checkpoint with
    `train(resume=...)`, to the same result.

    Args:
        recipe: what `load_recipe` takes.
        overrides: changes to it, such as `{"stages.0.batch.rows": 64}`.
        resume: a run to go on with, in place of a recipe: a `Run`, its folder or id, or "latest".
        seed: of the model and the data's order, instead of the recipe's.
        out: folder for the run's folder; None is `$GEMMA4VEC_HOME`, by default `./runs`.
        job: a name for what starts this training again, such as "slurm-123". The first call begins a run; the next ones
            with the same name go on with it, and return it once it is finished.
        progress: show log lines and the progress of long work on standard error.

    Returns:
        The finished run.

    Raises:
        InputError: a bad recipe, bad data, or a run that is finished or held by another process.
        WorkError: the work failed; what was finished is kept.
        KeyboardInterrupt: stopped by Ctrl-C, at a checkpoint, or by SIGTERM or SIGUSR1 (`errors.Interrupted`).

    Example:
        >>> import gemma4vec as g4v
        >>> run = g4v.train(recipe, {"stages.0.budget": {"steps": 2}}, progress=False)
        >>> run.status, len(run.losses)
        ('finished', 2)
    """
    if (recipe is None) == (resume is None):
        raise InputError("give exactly one of recipe and resume=RUN")
    if resume is not None and (overrides or seed is not None):
        raise InputError("resume continues with the run's own recipe; start a new run to change it")
    if resume is not None and job is not None:
        raise InputError("resume names the run to go on with; job finds it: give one of them")
    with progress_shown(progress):
        where = None if out is None else Path(out)
        loaded = load_seeded(recipe, overrides or (), seed) if recipe is not None else None
        started_by = current_job(job)
        check_not_stopped()
        if started_by is not None and started_by.attempt > 0:
            check_not_stopped(
                _run_to_resume(resume, where) if resume is not None else started_by.find_run(where or home())
            )
        first = join_processes()
        from gemma4vec.training.prepare_run import check_inputs
        from gemma4vec.training.run import find_job_run, start_run, train_run

        begun = find_job_run(started_by, loaded, where) if loaded is not None and started_by is not None else None
        if begun is not None:
            if begun.manifest.get("status") == "finished":
                return Run(begun)
            resume, loaded = begun.path, None
        # What cannot be trained leaves no run folder behind.
        checked = check_inputs(loaded) if loaded is not None else None
        if loaded is not None:
            prepare_compiler(loaded)
        run = start_run(loaded, where, started_by) if loaded is not None else _run_to_resume(resume, where)
        if first:
            logger.info(f"run folder: {run.path}")
        train_run(run, loaded, checked)
        return Run(run)


def is_first_process() -> bool:
    """Whether this process is the one that speaks, of those that torchrun has started; true without torchrun."""
    return torchrun_count("WORLD_SIZE", 1) <= 1 or torchrun_count("RANK", 0) == 0


def join_processes() -> bool:
    """Join the processes that torchrun has started, if there are any; return whether this one is the first.

    A single process does not import torch here: a bad recipe is refused before that takes its seconds.
    """
    if torchrun_count("WORLD_SIZE", 1) <= 1:
        return True
    from gemma4vec.training.engine.distributed import join_world

    return join_world().first


def _run_to_resume(resume: Run | str | Path | None, out: Path | None) -> RunFolder:
    run = resume.run_folder if isinstance(resume, Run) else find_run(str(resume), out or home())
    if run.manifest.get("status") == "finished":
        raise InputError(f"{run.path} is finished; its model is in {run.model}")
    return run


def load_seeded(
    recipe: str | Path | Mapping[str, object] | Recipe,
    overrides: Mapping[str, object] | Sequence[str],
    seed: int | None,
) -> Recipe:
    """Load a recipe with overrides, and with this seed if one is given."""
    return load_recipe(recipe, [*typed_overrides(overrides), *([f"seed={seed}"] if seed is not None else [])])
