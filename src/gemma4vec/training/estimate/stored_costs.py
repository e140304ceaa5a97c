"""Measurements of layers that are stored: a second dry run of the same layers, layout and rows measures nothing.

A file in `CACHE/dry-runs` holds one measurement. Its name is a hash of all that a measurement depends on: the model's
settings and configuration, the stage without its budget, what its batches hold, the machine and the versions.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gemma4vec import __version__
from gemma4vec.files import cache, optional_file, sha256_text, write_json
from gemma4vec.machine.describe import cpu_model, list_gpus, usable_cores
from gemma4vec.machine.versions import installed_version
from gemma4vec.model.backbone.compilation import CompileChoice
from gemma4vec.reading.json_values import JsonError, load_json
from gemma4vec.recipe import schema
from gemma4vec.recipe.part import Part
from gemma4vec.training.estimate.layers import Costs, LayerCosts

logger = logging.getLogger(__name__)

FOLDER = "dry-runs"
_DAYS = 7  # drivers, kernels and neighbors on the machine change
_SECONDS_OF_A_DAY = 86_400
_MEASURED = "with texts that terms write"  # what a step holds; another step has another name
_COSTS = ("seconds", "kept_bytes", "eager_kept_bytes")


def costs_file(
    recipe: schema.Recipe,
    stage: schema.Stage,
    config: Mapping[str, Any],
    rows: Mapping[str, Any],
    *,
    device: str,
    dtype: torch.dtype,
    compiled: bool | str,
) -> Path:
    """The file of a measurement.

    Args:
        config: the base's configuration as JSON values.
        rows: what the stage's sources hold (`TrainingData.sources`).
        compiled: whether layers are compiled; or a word for another way to measure them.
    """
    settings = stage.model_dump(mode="json", exclude={"name", "budget", "evaluation", "optimizer"})
    own = [recipe.model.model_dump(mode="json"), settings, _own(config), _contents(rows)]
    return _file("", [*own, *_here(device, dtype), compiled, _MEASURED])


def shares_file(
    recipe: schema.Recipe, stage: schema.Stage, config: Mapping[str, Any], *, device: str, dtype: torch.dtype
) -> Path:
    """The file of what compiled layers cost, compiled over uncompiled: of any rows, readout, task and batch."""
    model, layout = recipe.model, stage.layout
    settings = [model.attention, model.lora, model.train, layout.fast_paths]
    rows = [layout.kind, layout.row_tokens, layout.gradient_checkpointing]
    values = [part.model_dump(mode="json") if isinstance(part, Part) else part for part in settings]
    return _file("shares-", [values, rows, _own(config), *_here(device, dtype)])


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the folder that it was read from."""
    return {key: value for key, value in config.items() if key not in ("_name_or_path", "name_or_path")}


def _file(prefix: str, parts: list[Any]) -> Path:
    text = json.dumps(parts, sort_keys=True, default=str)
    return cache() / FOLDER / f"{prefix}{sha256_text(text)[:32]}.json"


def _here(device: str, dtype: torch.dtype) -> list[Any]:
    """This machine and the versions."""
    machine = [device, str(dtype), cpu_model(), usable_cores(), torch.get_num_threads(), list_gpus()]
    versions = [__version__, torch.__version__, installed_version("transformers"), installed_version("peft")]
    return [machine, versions]


def _contents(rows: Mapping[str, Any]) -> dict[str, Any]:
    """What each source holds. Built code has its state in its folder's name, and a sample stands for all of it."""
    return {
        name: Path(facts["path"]).parent.name if facts.get("source") == "pycode" else facts["content_hash"]
        for name, facts in rows.items()
    }


def load_costs(file: Path) -> tuple[LayerCosts, float] | None:
    """(the measurement, memory of the process after it in bytes); None if there is none, or an old or damaged one."""
    try:
        value = load_json(file)
        age = time.time() - value["time"]
        if not 0 <= age < _DAYS * _SECONDS_OF_A_DAY:
            return None
        costs = {name: _costs(value[name]) for name in _COSTS}
        measured = LayerCosts(
            compile=CompileChoice(bool(value["compile"]["on"]), str(value["compile"]["reason"])),
            optimizer_seconds=float(value["optimizer_seconds"]),
            optimizer_parameters=int(value["optimizer_parameters"]),
            peak_bytes=None if value["peak_bytes"] is None else int(value["peak_bytes"]),
            peak_cells={key == "true": float(cells) for key, cells in value["peak_cells"].items()},
            kinds=[tuple(kind) for kind in value["kinds"]],
            **costs,
        )
        memory = float(value["memory"])
    except (OSError, JsonError, KeyError, TypeError, ValueError, AttributeError):
        return None  # measured again, and written again
    when = time.strftime("%d %b %H:%M", time.localtime(value["time"]))
    logger.info(f"layers were measured on this machine on {when}; delete {file} to measure them again")
    return measured, memory


def save_costs(file: Path, measured: LayerCosts, memory: float) -> None:
    """Store a measurement; a cache that cannot be written is done without."""
    value = {
        "time": time.time(),
        "compile": dataclasses.asdict(measured.compile),
        "optimizer_seconds": measured.optimizer_seconds,
        "optimizer_parameters": measured.optimizer_parameters,
        "peak_bytes": measured.peak_bytes,
        "peak_cells": {str(compilable).lower(): cells for compilable, cells in measured.peak_cells.items()},
        "kinds": [list(kind) for kind in measured.kinds],
        "memory": memory,
    } | {name: _rows(getattr(measured, name)) for name in _COSTS}
    with optional_file("measurements of layers"):
        write_json(file, value)


def _rows(costs: Costs) -> list[list[Any]]:
    return [[kind and list(kind), compilable, cost] for (kind, compilable), cost in costs.items()]


def _costs(rows: list[list[Any]]) -> Costs:
    return {(kind and tuple(kind), bool(compilable)): float(cost) for kind, compilable, cost in rows}
