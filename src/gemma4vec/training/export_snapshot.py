"""Export the model of an unfinished run from its newest checkpoint."""

import logging
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.files import cache
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.bases.start import resolve_model
from gemma4vec.model.save.write_model import save_model
from gemma4vec.training.engine.checkpoint import latest_checkpoint, read_progress, trained_weights
from gemma4vec.training.engine.made_from import check_parts, own_parts, parts_to_save
from gemma4vec.training.run import quantization_of_stage, recipe_of

logger = logging.getLogger(__name__)


def snapshot(run: RunFolder) -> Path:
    """Write the model of the run's newest checkpoint to the cache, unless it is there. Return its folder.

    Raises:
        InputError: the run has no checkpoint yet, or it was replaced while it was read.
    """
    recipe = recipe_of(run)
    for number, stage in reversed(list(enumerate(recipe.stages))):
        checkpoint = latest_checkpoint(run.checkpoints / f"{number}-{stage.name}")
        if checkpoint is not None:
            break
    else:
        raise InputError(f"{run.path} has no checkpoint yet; wait for its first, or name a finished run")
    step = read_progress(checkpoint).step
    folder = cache() / "snapshots" / f"{run.run_id}-{number}-{step}"
    if not (folder / "model").is_dir():
        logger.info(f"{run.run_id} is not finished: using its model after step {step} of stage {stage.name}")
        weights = trained_weights(checkpoint)
        base = resolve_model(recipe.model)
        parts = own_parts(recipe, base)
        check_parts(run, parts)
        origin = f"a snapshot of step {step} of stage {stage.name}, made while the run was not finished"
        save_model(
            folder / "model",
            recipe,
            base,
            weights,
            data=run.manifest.get("data", {}),
            made_from=parts_to_save(parts),
            name=f"{run.run_id}-step-{step}",
            checkpoint=origin,
            quantization=quantization_of_stage(recipe, number, base),
        )
    return folder / "model"
