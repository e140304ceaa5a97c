"""Checkpoints that are kept for looking at later: the trained weights alone, without what resuming needs.

`checkpoints/<n>-<name>/kept/step-00000120.safetensors`. With adapters that is some megabytes, written in the time of
a step, so that a whole curve can be measured after the training instead of during it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_write, sha256_file, sha256_text
from gemma4vec.ledger.records import CHECKPOINT
from gemma4vec.ledger.runs import RunFolder
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.bases import resolve_base
from gemma4vec.model.build import build
from gemma4vec.model.embedder import Embedder
from gemma4vec.recipe.schema import Evaluation, Recipe
from gemma4vec.training.checkpoint import latest_checkpoint, read_progress
from gemma4vec.training.optimiser import MasterAdamW

Say = Callable[[str], None]
KEPT = "kept"
_NAME = re.compile(r"step-(\d{8})\.safetensors")


@dataclass(frozen=True)
class Kept:
    """Trained weights of one moment of a run."""

    stage: int
    step: int
    file: Path

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"{CHECKPOINT}-{self.stage}-{self.step:08d}"


def keep_due(settings: Evaluation, step: int, total: int | None) -> bool:
    """Whether the weights after this step are to be kept."""
    if settings.keep_every_steps is not None and step % settings.keep_every_steps == 0:
        return True
    return total is not None and step in {max(1, round(share * total)) for share in settings.keep_at_shares}


def keep_weights(folder: Path, step: int, optimiser: MasterAdamW) -> Path:
    """Write the trained weights at full precision to `folder/kept`.

    Raises:
        WorkError: the disk is full.
    """
    path = folder / KEPT / f"step-{step:08d}.safetensors"
    with atomic_write(path, "wb") as stream:
        stream.write(save(optimiser.weights()))
    return path


def kept_checkpoints(run: RunFolder, recipe: Recipe) -> list[Kept]:
    """All weights that a run still has, in the order of training: kept ones, the best and the last of each stage."""
    found: dict[tuple[int, int], Kept] = {}
    for number, stage in enumerate(recipe.stages):
        folder = run.checkpoints / f"{number}-{stage.name}"
        for whole in (folder / "best", latest_checkpoint(folder)):
            if whole is not None and (whole / "trained.safetensors").is_file():
                step = read_progress(whole).step
                found[number, step] = Kept(number, step, whole / "trained.safetensors")
        for file in folder.glob(f"{KEPT}/*.safetensors"):
            named = _NAME.fullmatch(file.name)
            if named:
                found[number, int(named[1])] = Kept(number, int(named[1]), file)
    return [found[place] for place in sorted(found)]


def checkpoint_models(run: RunFolder, recipe: Recipe, kept: list[Kept], say: Say) -> Iterator[tuple[Kept, Embedder]]:
    """Each checkpoint as an embedder: one base in memory, into which their weights are put one after the other.

    An embedder is good until the next one is asked for.

    Raises:
        InputError: the weights are damaged, or belong to another recipe.
    """
    device = choose_device().name
    dtype = choose_dtype(device, recipe.model.dtype).dtype
    base = resolve_base(recipe.model.base, notice=say)
    built = build(recipe.model, base.path, dtype=dtype, device=device, seed=recipe.seed)
    limit, method = recipe.model.max_tokens, recipe.model.model_dump_json()
    for one in kept:
        try:
            weights = load_file(one.file)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{one.file} is damaged ({error}); delete it to leave this checkpoint out") from error
        built.load_trained(weights)
        identity = sha256_text("checkpoint", sha256_file(one.file), method, str(base.revision), str(dtype))[:16]
        yield one, Embedder(built, name=one.name, fingerprint=identity, max_tokens=limit)
