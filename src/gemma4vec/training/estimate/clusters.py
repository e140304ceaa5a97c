"""What the clusters of a stage's rows will cost: a few rows are encoded, never all of them."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemma4vec.data.loading.load_rows import SAMPLED, TrainingData
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe import schema
from gemma4vec.recipe.batch import SELF
from gemma4vec.training.batches.row_vectors import row_vectors
from gemma4vec.training.engine.base_files import base_files

# Rows that are encoded before the time is measured, and while it is.
_WARM_UP, _MEASURED = 4, 48


@dataclass(frozen=True)
class ClusterEstimate:
    """Rows that are encoded for clusters in all, how often rows are clustered, and the time of encoding.

    Attributes:
        by: the model's name in the recipe.
        rows: number of rows, one that is encoded again counted again.
        times: how often rows are clustered.
        seconds: of encoding; None: the model is not on this machine.
        measured: number of rows that were encoded to measure it; 0: it follows from the time of a step.
    """

    by: str
    rows: int
    times: int
    seconds: float | None
    measured: int


def estimate_clusters(
    stage: schema.Stage, loaded: TrainingData, steps: int, own_seconds: float
) -> ClusterEstimate | None:
    """Estimate the clusters of a stage; None: it has none.

    Args:
        stage: the recipe's.
        loaded: its rows, or a sample of them.
        steps: of its budget.
        own_seconds: that the model in training takes to encode a row, for `by: self`.
    """
    clusters = stage.batch.clusters
    if clusters is None:
        return None
    places = steps * stage.batch.accumulate * stage.batch.rows
    sampled = any(facts.get(SAMPLED) for facts in loaded.sources.values())
    known = math.inf if sampled else len(loaded.rows)
    # Without an end in steps all rows are clustered.
    reached = places if stage.budget.steps is not None or stage.budget.rows is not None else max(places, known)
    times = 1
    if clusters.refresh is not None:
        times = max(1, math.ceil(steps / clusters.refresh))
        reached = places / times
    rows = round(times * min(reached, known if math.isfinite(known) else places))
    if clusters.by == SELF:
        return ClusterEstimate(SELF, rows, times, rows * own_seconds, 0)
    found = _measure(clusters, loaded)
    return ClusterEstimate(clusters.by, rows, times, None if found is None else rows * found, _MEASURED)


def _measure(clusters: schema.Clusters, loaded: TrainingData) -> float | None:
    """Seconds to encode a row; None: the model's weights are not on this machine."""
    if not Path(clusters.by).is_dir():
        with base_files(clusters.by, "batch.clusters.by") as files:
            if not files.ready:
                return None
    model = Embedder.load(clusters.by)
    numbers = np.linspace(0, len(loaded.rows) - 1, _WARM_UP + _MEASURED).astype(np.int64)
    rows = [loaded.rows[number] for number in numbers.tolist()]
    row_vectors(model, rows[:_WARM_UP], clusters.text, "batch.clusters.by")
    started = time.perf_counter()
    row_vectors(model, rows[_WARM_UP:], clusters.text, "batch.clusters.by")
    return (time.perf_counter() - started) / _MEASURED
