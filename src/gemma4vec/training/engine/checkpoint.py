"""Checkpoints: everything that a killed run needs to continue as if nothing had happened.

Each checkpoint is a folder, `step-00000120`. It is renamed into place when it is complete, and older ones are deleted
after that. So there is a complete one at any moment, even after `kill -9`.
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from gemma4vec.errors import InputError
from gemma4vec.files import atomic_folder, crc32_file, write_json
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.training.engine.checked_weights import read_weights, write_weights
from gemma4vec.training.engine.optimizer import MasterAdamW

_NAME = re.compile(r"step-(\d{8})")
CHECKSUMS = "checksums.json"


# Name prefix of parameters that belong to the objective, not to the model (see `training.terms`).
OBJECTIVE_PREFIX = "objective."


@dataclass
class Progress:
    """The progress of a run: counters of its current stage."""

    stage: int = 0
    step: int = 0  # optimizer steps done in this stage
    batch: int = 0  # batches drawn in this stage
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0  # spent on training steps
    best_score: float | None = None
    best_step: int | None = None
    looks: int = 0  # looks that the stop rule has taken
    stopped: str | None = None  # why the stop rule ended this stage


def random_state() -> dict[str, Any]:
    """State of torch's generators, which dropout draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    return {"random": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore torch's generators from `random_state`; states of GPUs that do not exist here are ignored."""
    torch.set_rng_state(state["random"])
    if state["cuda"] is not None and torch.cuda.is_available():
        for number, generator in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(generator, number)


def save_checkpoint(
    folder: Path,
    progress: Progress,
    optimizer: MasterAdamW,
    keep_as: str | None = None,
    random: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write a checkpoint below `folder`, and delete older ones; `keep_as` names one that is never deleted ("best").

    `random` has the `random_state` of each training process; the default is this process's current one.

    Raises:
        WorkError: the disk is full; the last whole checkpoint is still there.
    """
    name = keep_as or f"step-{progress.step:08d}"
    with atomic_folder(folder / name) as temporary:
        own, *others = random or [random_state()]
        state = {"optimiser": optimizer.state(), **own, "others": others}
        try:
            write_weights(temporary / "trained.safetensors", optimizer.weights())
            torch.save(state, temporary / "optimiser.pt")
        except (SafetensorError, RuntimeError) as error:  # their ways to say that the disk is full
            raise OSError(None, f"{' '.join(str(error).split())[:120]} (is the disk full?)") from error
        (temporary / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
        checksums = {name: crc32_file(temporary / name) for name in ("optimiser.pt", "progress.json")}
        write_json(temporary / CHECKSUMS, checksums)
    if keep_as is None:
        for older in folder.glob("step-*"):
            if older.name != name and _NAME.fullmatch(older.name):
                shutil.rmtree(older)
    return folder / name


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the most steps, if there is one."""
    found = sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))
    return found[-1] if found else None


def read_progress(checkpoint: Path) -> Progress:
    """Read the progress of the run at a checkpoint.

    Raises:
        InputError: the checkpoint is damaged.
    """
    try:
        _check(checkpoint, "progress.json")
        values: dict[str, Any] = load_own_json(checkpoint / "progress.json")
        return Progress(**values)
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(checkpoint, error) from error


def trained_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the model's trained values at full precision, by name, without parameters of the objective.

    Raises:
        InputError: the checkpoint is damaged.
    """
    return {name: value for name, value in _weights(checkpoint).items() if not name.startswith(OBJECTIVE_PREFIX)}


def objective_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the values of the objective's own parameters at full precision, by name.

    Raises:
        InputError: the checkpoint is damaged.
    """
    return {name: value for name, value in _weights(checkpoint).items() if name.startswith(OBJECTIVE_PREFIX)}


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    try:
        return read_weights(checkpoint / "trained.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(checkpoint, error) from error


def load_checkpoint(checkpoint: Path, optimizer: MasterAdamW, rank: int = 0) -> None:
    """Restore weights, moments and the random state of process `rank`, which keeps its own if none was saved for it.

    A checkpoint written on a GPU can be loaded without one, or with fewer; the random states of missing GPUs are
    ignored.

    Raises:
        InputError: the checkpoint is damaged, or belongs to another model.
    """
    weights = _weights(checkpoint)
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in optimizer.masters.items()}:
        raise InputError(f"{checkpoint} belongs to another model; start a new run instead of resuming this one")
    try:
        _check(checkpoint, "optimiser.pt")
        state = torch.load(checkpoint / "optimiser.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # whatever zip files, pickles and torch raise
        raise _damaged(checkpoint, error) from error
    optimizer.load_weights(weights)
    optimizer.load_state(state["optimiser"])
    random = [state, *state.get("others", ())]
    if rank < len(random):
        set_random_state(random[rank])


def _check(checkpoint: Path, name: str) -> None:
    """Compare a file with its checksum; checkpoints of earlier releases have none.

    Raises:
        OSError: a file cannot be read.
        ValueError: its bytes differ from those that were written.
    """
    file = checkpoint / CHECKSUMS
    known = load_own_json(file).get(name) if file.exists() else None
    if known is not None and known != crc32_file(checkpoint / name):
        raise ValueError(f"{name} differs from what was written")


def _damaged(checkpoint: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"{checkpoint} is damaged ({reason}); delete it to train this stage again from its start")
