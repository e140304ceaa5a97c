"""A step that trains: an ordinary run, which goes on from its last checkpoint."""

from pathlib import Path

from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.pipeline.plan.job_spec import JobSpec, Made
from gemma4vec.training.run import train_run


def make_trained(spec: JobSpec) -> Made:
    """Train the run from wherever it stopped; a finished one is left as it is.

    Raises:
        InputError, WorkError, Interrupted: as `training.run.train_run`.
    """
    assert spec.run is not None
    run = RunFolder.open(Path(spec.run))
    if not is_finished(run):
        train_run(run)
    return Made(str(run.path), str(run.model))


def is_finished(run: RunFolder) -> bool:
    """Whether the run is finished and its model is whole."""
    return run.manifest.get("status") == "finished" and (run.model / "gemma4vec.json").is_file()
