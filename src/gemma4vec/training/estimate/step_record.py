"""What a training measured of its own steps, stored for later dry runs: the most exact source there is."""

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.files import optional_file, write_json
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.backbone.architectures import text_config
from gemma4vec.reading.json_values import JsonError, load_json
from gemma4vec.recipe import schema
from gemma4vec.training.estimate.stored_costs import costs_file

# The first steps compile kernels and warm caches. Of few others a mean says little.
_SKIPPED, _LEAST = 2, 3
_OUTLIER = 3.0  # a step counts at most this multiple of the median
_DAYS = 30  # a training's own steps are worth more than a measurement of a week ago
_SECONDS_OF_A_DAY = 86_400


@dataclass(frozen=True)
class StepRecord:
    """Steps of a training.

    Attributes:
        run: its id.
        steps: number of steps that were timed.
        seconds_per_token: time of a step without waiting for data, over its real tokens.
        low, high: quartiles over steps.
        peak_bytes: largest memory of its process; None: it did other things too, or a GPU trained.
        fields: how batches were computed (`MemoryPlan.fields`).
        time: when, in seconds since the epoch.
    """

    run: str
    steps: int
    seconds_per_token: float
    low: float
    high: float
    peak_bytes: int | None
    fields: Mapping[str, Any]
    time: float


def record_of(
    steps: Sequence[Mapping[str, Any]], *, run: str, peak_bytes: int | None, fields: Mapping[str, Any]
) -> StepRecord | None:
    """The record of a stage from its `step` events; None: there are too few."""
    counted = [0, *(step["tokens"] for step in steps)]
    tokens = [now - before for before, now in itertools.pairwise(counted)]
    timed = [
        (own / step["tokens_per_second"], own)
        for own, step in zip(tokens, steps, strict=True)
        if own > 0 and step["tokens_per_second"] > 0
    ][_SKIPPED:]
    if len(timed) < _LEAST:
        return None
    rates = sorted(seconds / own for seconds, own in timed)
    low, middle, high = statistics.quantiles(rates, n=4, method="inclusive")
    most = _OUTLIER * middle
    total = sum(min(seconds, most * own) for seconds, own in timed) / sum(own for _, own in timed)
    return StepRecord(run, len(timed), total, low, high, peak_bytes, dict(fields), time.time())


def store_steps(
    run: RunFolder,
    recipe: schema.Recipe,
    number: int,
    base: Path,
    data: TrainingData,
    device: str,
    dtype: torch.dtype,
    compiled: bool,
) -> None:
    """Store the record of stage `number` of a run that has just been trained, if it tells enough.

    The peak of the process is that of the stage where nothing else ran in it: in the first stage, without evaluations.
    """
    events = {kind: run.events(kind) for kind in ("prepared", "step", "stage_finished", "evaluation")}
    ours = {kind: [event for event in found if event.get("stage") == number] for kind, found in events.items()}
    if not ours["prepared"] or not ours["stage_finished"]:
        return
    alone = device == "cpu" and number == 0 and not events["evaluation"] and len(ours["prepared"]) == 1
    peak = int(ours["stage_finished"][-1]["peak_memory_bytes"]) if alone else None
    plan = {key: value for key, value in ours["prepared"][-1].items() if key in ("grad_cache", "tokens_per_forward")}
    record = record_of(ours["step"], run=run.run_id, peak_bytes=peak, fields=plan)
    if record is not None:
        config, stage = text_config(base, recipe.model.layers).to_dict(), recipe.stages[number]
        costs = costs_file(recipe, stage, config, data.sources, device=device, dtype=dtype, compiled=compiled)
        save_record(record_file(costs), record)


def record_file(costs: Path) -> Path:
    """The file of a training's record, beside that of the same layers' measurement."""
    return costs.with_suffix(".steps.json")


def save_record(file: Path, record: StepRecord) -> None:
    """Store a record; a cache that cannot be written is done without."""
    with optional_file("measurements of layers"):
        write_json(file, asdict(record))


def load_record(file: Path) -> StepRecord | None:
    """The record of the newest training of these layers; None if there is none, or an old or damaged one."""
    try:
        value = load_json(file)
        peak = value["peak_bytes"]
        found = StepRecord(
            str(value["run"]),
            int(value["steps"]),
            float(value["seconds_per_token"]),
            float(value["low"]),
            float(value["high"]),
            None if peak is None else int(peak),
            dict(value["fields"]),
            float(value["time"]),
        )
    except (OSError, JsonError, KeyError, TypeError, ValueError):
        return None
    fresh = 0 <= time.time() - found.time < _DAYS * _SECONDS_OF_A_DAY
    return found if fresh and found.seconds_per_token > 0 else None
