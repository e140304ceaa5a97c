"""A decoder as it was after a step of its training, of which the run kept the weights."""

import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gemma4vec.errors import InputError
from gemma4vec.files import cache, disk_errors
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.run_recipe import read_recipe
from gemma4vec.model.bases.start import resolve_model
from gemma4vec.model.inverter.causal_base import save_causal_base
from gemma4vec.model.inverter.decoder_folder import DECODER_FILE, PREFIX_FILE, OpenDecoder, open_decoder
from gemma4vec.training.engine.checked_weights import read_weights
from gemma4vec.training.engine.checkpoint import OBJECTIVE_PREFIX
from gemma4vec.training.engine.made_from import check_parts, own_parts
from gemma4vec.training.monitoring.weight_snapshots import kept_checkpoints
from gemma4vec.training.writing.merged_base import PREFIX, merge_base

logger = logging.getLogger(__name__)


def open_kept_decoder(folder: Path, step: int, *, dtype: torch.dtype, device: str) -> OpenDecoder:
    """Open a run's decoder with the weights that the run kept after `step`.

    It learned from the same texts with the same split; only its weights are earlier. They have not seen the end of the
    schedule of the learning rate, and lie below what a training of that length gives.

    Args:
        folder: the finished decoder, in its run.
        step: of the training.
        dtype: of the weights.
        device: of the weights.

    Raises:
        InputError: the folder is in no run, the run kept no weights after this step or they are damaged, or its base is
            another one now. WorkError: the disk is full, or the attention is not causal.
    """
    if not (folder.parent / "manifest.json").is_file():
        raise InputError(f"--step: {folder} is not in the run that trained it, which keeps weights; name the run")
    run = RunFolder.open(folder.parent)
    recipe = read_recipe(run)
    kept = {one.step: one for one in kept_checkpoints(run, recipe, whole=False)}
    if step not in kept:
        known = f"those of {', '.join(map(str, kept))}" if kept else "none"
        raise InputError(
            f"--step {step}: {run.path} kept the weights of other steps ({known}); a training keeps them by "
            "stages.0.evaluation.snapshot_at_shares"
        )
    base = resolve_model(recipe.model)
    check_parts(run, own_parts(recipe, base))
    try:
        weights = read_weights(kept[step].file)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{kept[step].file} is damaged ({error}); name another step than {step}") from error
    logger.info(f"using the decoder of {run.run_id} as it was after step {step}")
    own = {key.removeprefix(PREFIX): value.float() for key, value in weights.items() if key.startswith(PREFIX)}
    trained = {key: value for key, value in weights.items() if not key.startswith(OBJECTIVE_PREFIX)}
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="decoder-") as temporary, disk_errors(cache()):
        # Written and read again, so that it is opened exactly as a finished one is.
        made = Path(temporary)
        save_causal_base(made, merge_base(recipe, base, trained))
        save_file(load_file(folder / PREFIX_FILE) | own, made / PREFIX_FILE)
        shutil.copyfile(folder / DECODER_FILE, made / DECODER_FILE)
        opened = open_decoder(made, dtype=dtype, device=device)
    return replace(opened, folder=folder)
