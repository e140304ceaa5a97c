"""Weight snapshots: the trained weights at a step, without the optimizer's state that resuming needs.

They are files `checkpoints/<n>-<name>/kept/step-00000120.safetensors`. With adapters each takes some megabytes and the
time of one step, so a whole curve can be measured after the training instead of during it.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_write, sha256_file, sha256_text
from gemma4vec.ledger.records import CHECKPOINT
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.adapters.fake_quantize import FakeQuantization
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.bases.start import resolve_model
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.renamed import first_names
from gemma4vec.recipe.schema import Evaluation, Recipe
from gemma4vec.training.engine.checked_weights import pack_weights, read_weights
from gemma4vec.training.engine.checkpoint import OBJECTIVE_PREFIX, latest_checkpoint, read_progress
from gemma4vec.training.engine.made_from import check_parts, own_parts
from gemma4vec.training.engine.optimizer import MasterAdamW

logger = logging.getLogger(__name__)

KEPT = "kept"
_NAME = re.compile(r"step-(\d{8})\.safetensors")


@dataclass(frozen=True)
class WeightSnapshot:
    """The trained weights of a run at one step."""

    stage: int
    step: int
    file: Path

    @property
    def name(self) -> str:
        """Name of its results."""
        return checkpoint_name(self.stage, self.step)


def checkpoint_name(stage: int, step: int) -> str:
    """Result name of the checkpoint saved after `step`."""
    return f"{CHECKPOINT}-{stage}-{step:08d}"


def checkpoint_identity(weights: str, recipe: Recipe, dtype: torch.dtype) -> str:
    """Fingerprint of a checkpoint as a model. `weights` is from `checkpoint_weights`.

    No path of a model counts: a run that goes on from another folder has the same checkpoints.
    """
    tree = first_names(recipe.model.model_dump(mode="json", exclude={"base": True, "readout": {"encoder"}}), "model")
    model = TypeAdapter(dict[str, Any]).dump_json(tree).decode()
    return sha256_text("checkpoint", weights, model, str(dtype))[:16]


def checkpoint_weights(trained: str, base: ResolvedBase) -> str:
    """Hash of all weights of a checkpoint. `trained` is the SHA-256 of its file, which leaves out what is frozen."""
    return sha256_text("checkpoint", trained, base.weights)


def snapshot_due(settings: Evaluation, step: int, total: int | None) -> bool:
    """Whether to save the weights after this step: for later, or for the background evaluation."""
    if settings.snapshot_every_steps is not None and step % settings.snapshot_every_steps == 0:
        return True
    if total is not None and step in {max(1, round(share * total)) for share in settings.snapshot_at_shares}:
        return True
    return settings.background and evaluation_due(settings, step, total)


def evaluation_due(settings: Evaluation, step: int, total: int | None) -> bool:
    """Whether to evaluate the model after this step."""
    if total is not None and step in {max(1, round(share * total)) for share in settings.at_shares}:
        return True
    return settings.every_steps is not None and (step == total or step % settings.every_steps == 0)


def save_snapshot(folder: Path, step: int, optimizer: MasterAdamW) -> Path:
    """Write the trained weights at full precision to `folder/kept`.

    Raises:
        WorkError: the disk is full.
    """
    path = folder / KEPT / f"step-{step:08d}.safetensors"
    with atomic_write(path, "wb") as stream:
        stream.write(pack_weights(optimizer.weights()))
    return path


def hash_of_weights(optimizer: MasterAdamW) -> str:
    """SHA-256 of the file that `save_snapshot` would write."""
    return hashlib.sha256(pack_weights(optimizer.weights())).hexdigest()


def kept_checkpoints(run: RunFolder, recipe: Recipe, *, whole: bool = True) -> list[WeightSnapshot]:
    """List the weights that a run still has, in training order: snapshots, and the best and last ones of each stage.

    Without `whole` only the snapshots, because the best and last weights change while a run trains.
    """
    found: dict[tuple[int, int], WeightSnapshot] = {}
    for number, stage in enumerate(recipe.stages):
        folder = run.checkpoints / f"{number}-{stage.name}"
        for checkpoint in (folder / "best", latest_checkpoint(folder)) if whole else ():
            if checkpoint is not None and (checkpoint / "trained.safetensors").is_file():
                step = read_progress(checkpoint).step
                found[number, step] = WeightSnapshot(number, step, checkpoint / "trained.safetensors")
        for file in folder.glob(f"{KEPT}/*.safetensors"):
            named = _NAME.fullmatch(file.name)
            if named:
                found[number, int(named[1])] = WeightSnapshot(number, int(named[1]), file)
    return [found[place] for place in sorted(found)]


def checkpoint_models(
    run: RunFolder, recipe: Recipe, kept: Iterable[WeightSnapshot]
) -> Iterator[tuple[WeightSnapshot, Embedder]]:
    """Yield each checkpoint as an embedder. They share one base in memory, whose trained weights are replaced.

    An embedder is valid until the next one is requested. The base is loaded with the first checkpoint.

    Raises:
        InputError: the weights are damaged, or belong to another recipe, or the base is not that of the training.
    """
    where = choose_device()
    device = where.name
    if where.reason:
        logger.info(f"device: {device} ({where.reason})")
    dtype = choose_dtype(device, recipe.model.dtype).dtype
    built: EmbeddingModel | None = None
    quantization: FakeQuantization | None = None
    limit = recipe.model.max_tokens
    for one in kept:
        if built is None:
            base = resolve_model(recipe.model)
            check_parts(run, own_parts(recipe, base))
            built = build(recipe.model, base.path, dtype=dtype, device=device, seed=recipe.seed)
        try:
            weights = {
                name: value for name, value in read_weights(one.file).items() if not name.startswith(OBJECTIVE_PREFIX)
            }
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{one.file} is damaged ({error}); delete it to leave this checkpoint out") from error
        built.load_trained(weights)
        settings = recipe.stages[one.stage].quantize  # of the last stages alone, whose snapshots come last
        if settings is not None and quantization is None:
            encoder = built.encoder
            quantization = FakeQuantization(encoder.backbone, encoder.head_layers, settings.scheme, base.path)
        if quantization is not None:
            quantization.refresh(weights)
        whole = checkpoint_weights(sha256_file(one.file), base)
        identity = checkpoint_identity(whole, recipe, dtype)
        yield one, Embedder(built, name=one.name, fingerprint=identity, weights=whole, max_tokens=limit)
