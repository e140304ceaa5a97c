"""A result on disk: `metrics.json`, `per_query.parquet` and `top.parquet` in one folder.

`metrics.json` is {"model", "suite", "tasks": {task: {metric: value}}, "mean": {metric: value}, "settings"};
`per_query.parquet` has the columns task, query_id, metric, value; `top.parquet` has task, query_id, rank (from 1),
doc_id, score. A query_id is the id of what the kind of task scores: a query, a pair of sentences, a row.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gemma4vec.data.suites.kinds import MAIN_METRIC
from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.task_scores import PAIRED, pair_values, task_scores
from gemma4vec.files import atomic_folder, sha256_text, write_json
from gemma4vec.ledger.recording import check_recorded
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.statistics.bootstrap import Interval, mean_interval
from gemma4vec.statistics.correlation import pair_metric_interval

METRICS_FILE, PER_QUERY_FILE, TOP_FILE = "metrics.json", "per_query.parquet", "top.parquet"
FILES = {METRICS_FILE, PER_QUERY_FILE, TOP_FILE}

# Settings that say what the scores are scores of.
_DIGESTED: tuple[str, ...] = (
    "model",
    "model_fingerprint",
    "kind",
    "metric",
    "suite",
    "run",
    "contamination",
    "created",
    "look",
)
_DIGESTED += ("look_again", "overlaps")


class OpenedAs(TypedDict):
    """The words by which a suite opens again: `spec` as for --suite, `task` of several, `mirror` of hub data sets."""

    spec: str
    task: str | None
    mirror: str | None


QueryScores = Mapping[str, Mapping[str, float]]
"""Query id -> metric -> value, for one task."""


@dataclass(frozen=True)
class Result:
    """Scores of one model on one suite.

    Attributes:
        model: the model's name.
        suite: the suite's name.
        per_query: task -> query id -> metric -> value. A single suite is one task with the suite's name.
        settings: what the scores depend on: "model" (its `describe()`), "model_fingerprint", "model_weights"
            (hash of the weights alone, if known), "kind" and "metric" (the main one), "suite" (fingerprint and counts),
            "ranking" or "quality" (depth, ties, judged share), "seconds", "versions", "created", "look" (its id in the
            ledger), "run" (ids of the model's run and recipe),
            "contamination" (overlap of the suite with the training data of the model and of all that it was made from,
            see `contamination_mark.find_mark`; null for a model that is not trained), "scores" (`digest`), "ledger"
            (which one recorded the look: "id", null if none did, and "file"), "overlaps" (with final suites), "opened"
            (`opened`).
    """

    model: str
    suite: str
    per_query: Mapping[str, QueryScores]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of its tasks; results without one are older and of retrieval."""
        return str(self.settings.get("kind") or "retrieval")

    @property
    def metric(self) -> str:
        """The main metric of the suite."""
        return str(self.settings.get("metric") or MAIN_METRIC.get(self.kind) or self.metrics[0])

    @property
    def contents(self) -> str | None:
        """The fingerprint of the suite's contents; results without one are older."""
        found = (self.settings.get("suite") or {}).get("fingerprint")
        return None if found is None else str(found)

    @property
    def opened(self) -> OpenedAs | None:
        """The words by which the suite was opened; None in older results, and where no command opened it by words."""
        found = self.settings.get("opened")
        if not isinstance(found, dict) or not isinstance(found.get("spec"), str):
            return None
        task, mirror = (one if isinstance(one := found.get(name), str) else None for name in ("task", "mirror"))
        return {"spec": found["spec"], "task": task, "mirror": mirror}

    @property
    def metrics(self) -> list[str]:
        """Names of the figures that every task has."""
        if self.kind in PAIRED:
            return list(PAIRED[self.kind])
        first_task = next(iter(self.per_query.values()))
        return list(next(iter(first_task.values())))

    @property
    def tasks(self) -> dict[str, dict[str, float]]:
        """Task -> figure -> value: means over queries, or figures of all pairs together."""
        return {task: task_scores(self.kind, items) for task, items in self.per_query.items()}

    @property
    def mean(self) -> dict[str, float]:
        """Mean over tasks of every figure."""
        tasks = self.tasks.values()
        return {metric: float(np.mean([task[metric] for task in tasks])) for metric in self.metrics}

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The (task, query id) pairs, sorted."""
        return sorted((task, query_id) for task, queries in self.per_query.items() for query_id in queries)

    def values(self, metric: str) -> tuple[list[tuple[str, str]], npt.NDArray[np.float64]]:
        """Return the (task, query id) pairs, sorted, and their values of `metric`, float64[N].

        Raises:
            InputError: the result does not have this metric, or it is one figure of all items together.
        """
        if metric not in self.metrics:
            raise InputError(f"{self.model} on {self.suite} has no metric '{metric}'; it has {', '.join(self.metrics)}")
        if self.kind in PAIRED:
            raise InputError(f"{metric} on {self.suite} is one figure of all pairs; no single pair has a value of it")
        keys = self.keys
        return keys, np.array([self.per_query[task][query_id][metric] for task, query_id in keys])

    def digest(self) -> str:
        """Return a hash of the scores of every item and of what they are scores of; the ledger's look has it."""
        about = {key: self.settings.get(key) for key in _DIGESTED}
        items = [
            [task, key, sorted((name, float(value)) for name, value in self.per_query[task][key].items())]
            for task, key in self.keys
        ]
        plain = json.loads(json.dumps([self.model, self.suite, about, items], default=str))  # as it is read back
        return sha256_text(json.dumps(plain, sort_keys=True))[:32]

    def without(self, items: Collection[tuple[str, str]]) -> "Result":
        """Return the scores without these (task, query id); a task without other queries is left out."""
        kept = {
            task: {key: values for key, values in scores.items() if (task, key) not in items}
            for task, scores in self.per_query.items()
        }
        return replace(self, per_query={task: scores for task, scores in kept.items() if scores})

    def interval(self, metric: str | None = None, *, seed: int = 0) -> Interval:
        """Return the 95% bootstrap interval over queries (or pairs) of the tasks' mean of `metric` (default: main)."""
        metric = metric or self.metric
        for figure in PAIRED.get(self.kind, ()):
            if figure == metric:
                return pair_metric_interval(
                    figure, [pair_values(items) for items in self.per_query.values()], seed=seed
                )
        keys, values_N = self.values(metric)
        return mean_interval(values_N, [task for task, _ in keys], seed=seed)


def save_result(result: Result, out: Path, top: list[dict[str, Any]], rest: Mapping[str, float] | None = None) -> None:
    """Write `result` and the top ranks (rows as in top.parquet) as the folder `out`, all or nothing.

    `rest`: figures without the queries that training data touches, stored next to `mean`.

    Raises:
        InputError: `out` holds other files than an earlier result.
        WorkError: the disk is full or the folder cannot be written.
    """
    check_output_folder(out)
    rows = [
        (task, query_id, metric, value)
        for task, queries in result.per_query.items()
        for query_id, scores in queries.items()
        for metric, value in scores.items()
    ]
    task, query_id, metric, value = zip(*rows, strict=True)
    per_query = pa.table({"task": task, "query_id": query_id, "metric": metric, "value": pa.array(value, pa.float64())})
    top_schema = pa.schema(
        [
            ("task", pa.string()),
            ("query_id", pa.string()),
            ("rank", pa.int32()),
            ("doc_id", pa.string()),
            ("score", pa.float32()),
        ]
    )
    with atomic_folder(out) as folder:
        # Absolute: pyarrow takes a relative name with a colon for an address.
        pq.write_table(per_query, folder.absolute() / PER_QUERY_FILE, compression="zstd")
        pq.write_table(pa.Table.from_pylist(top, schema=top_schema), folder.absolute() / TOP_FILE, compression="zstd")
        summary = {"model": result.model, "suite": result.suite, "tasks": result.tasks, "mean": result.mean}
        summary |= {"mean_without_touched_queries": dict(rest)} if rest else {}
        write_json(folder / METRICS_FILE, {**summary, "settings": result.settings})


def check_output_folder(out: Path) -> None:
    """Refuse to replace a folder that is not an earlier result.

    Raises:
        InputError: `out` is a file, or a folder with other files in it.
    """
    if not out.exists():
        return
    others = {path.name for path in out.iterdir()} - FILES if out.is_dir() else {out.name}
    if others:
        raise InputError(f"{out} holds other files than a result ({sorted(others)[0]}); choose another --out")


def load_result(folder: Path) -> Result:
    """Read back what `save_result` wrote.

    Raises:
        InputError: no result there, one that is damaged, or one whose scores are not those that the ledger recorded.
    """
    if not (folder / METRICS_FILE).is_file():
        raise InputError(
            f"{folder} is not an evaluation result: it has no {METRICS_FILE}; make one with gemma4vec eval"
        )
    try:
        summary = load_own_json(folder / METRICS_FILE)
        columns = pq.read_table(
            folder.absolute() / PER_QUERY_FILE, columns=["task", "query_id", "metric", "value"]
        ).to_pydict()
        per_query: dict[str, dict[str, dict[str, float]]] = {}
        for task, query_id, metric, value in zip(*columns.values(), strict=True):
            per_query.setdefault(task, {}).setdefault(query_id, {})[metric] = float(value)
        result = Result(str(summary["model"]), str(summary["suite"]), per_query, dict(summary.get("settings") or {}))
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the result in {folder} is damaged ({reason}); evaluate again") from error
    if not per_query:
        raise InputError(f"the result in {folder} has no queries; evaluate again")
    if len({frozenset(scores) for queries in per_query.values() for scores in queries.values()}) > 1:
        raise InputError(f"the result in {folder} is damaged (queries with different metrics); evaluate again")
    check_recorded(folder, summary, result.digest, result.mean)
    return result


def load_matching_result(
    folder: Path, contents: str, model_fingerprint: str | None = None, weights: str | None = None
) -> Result | None:
    """Load the result in `folder` if it is on these contents (a suite's fingerprint) and, if given, of this model.

    Args:
        weights: hash of the model's weights now (`model.bases.weights`); a result that knows other ones does not match.

    Returns:
        None if there is no such result.

    Raises:
        InputError: the result is damaged.
    """
    if not (folder / METRICS_FILE).is_file():
        return None
    result = load_result(folder)
    settings = result.settings
    same = result.contents == contents
    same = same and (weights is None or settings.get("model_weights") in (None, weights))
    return result if same and model_fingerprint in (None, settings.get("model_fingerprint")) else None


def load_top(folder: Path, task: str | None = None) -> dict[str, list[tuple[str, float]]]:
    """Load the top ranks of each query as (document id, score), best first; empty if the result has none.

    `task` chooses one of several tasks, whose queries may have the same ids; without it the first one is used.
    """
    if not (folder / TOP_FILE).is_file():
        return {}
    top: dict[str, list[tuple[str, float]]] = {}
    rows = (
        pq.read_table(folder.absolute() / TOP_FILE)
        .sort_by([("query_id", "ascending"), ("rank", "ascending")])
        .to_pylist()
    )
    chosen = task if task is not None else next((row.get("task") for row in rows), None)
    for row in rows:
        if row.get("task") in (chosen, None):
            top.setdefault(row["query_id"], []).append((row["doc_id"], row["score"]))
    return top
