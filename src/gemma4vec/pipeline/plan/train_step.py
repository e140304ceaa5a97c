"""A step that trains a model or a decoder: an ordinary run, which goes on from its last checkpoint."""

from pathlib import Path

from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.save.read_model import SETTINGS_FILE
from gemma4vec.pipeline.plan.job_spec import JobSpec, Made
from gemma4vec.recipe.inversion import DECODER_FILE
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
    losses = next(reversed(run.events("held_out")), {}).get("parts", {}) if spec.kind == "decode" else {}
    return Made(str(run.path), str(run.model), held_out=losses)


def is_finished(run: RunFolder) -> bool:
    """Whether the run is finished and its model or decoder is whole."""
    whole = any((run.model / name).is_file() for name in (SETTINGS_FILE, DECODER_FILE))
    return run.manifest.get("status") == "finished" and whole
