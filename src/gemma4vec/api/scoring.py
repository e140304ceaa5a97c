"""Scores from Python: `evaluate`.

Shapes: Q queries (or pairs, or rows, whatever the suite's kind scores).
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

import numpy as np

from gemma4vec.api.display import Showing, Shown, progress_shown
from gemma4vec.api.model import Model, ModelLike, open_embedder
from gemma4vec.api.runs import Run
from gemma4vec.data.suites.group import AnySuite
from gemma4vec.data.suites.kinds import Role
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.find_results import TRAINED, free_folder
from gemma4vec.evaluation.results import result as stored
from gemma4vec.evaluation.results.marks import model_marks, result_marks
from gemma4vec.evaluation.results.result import OpenedAs
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.contamination_mark import mark_sentence
from gemma4vec.evaluation.scoring.evaluate import evaluate as score
from gemma4vec.evaluation.scoring.guards import check_allowed, find_owner
from gemma4vec.evaluation.scoring.metrics import DEFAULT_METRICS
from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite
from gemma4vec.evaluation.scoring.open_any_suite import open_any_suite, opened_as
from gemma4vec.evaluation.scoring.ranking import Ranker
from gemma4vec.files import home
from gemma4vec.ledger.records import find_enclosing_run
from gemma4vec.ledger.run_folder import RunFolder, named_run, slug
from gemma4vec.machine.terminal import bars_by_stage
from gemma4vec.model.inference.truncated_embedder import TruncatedEmbedder
from gemma4vec.reading.names import check_name
from gemma4vec.statistics.bootstrap import Interval
from gemma4vec.text.text_embedder import TextEmbedder

if TYPE_CHECKING:
    import pandas as pd

BM25 = "bm25"
Suite = AnySuite | MtebSuite
logger = logging.getLogger(__name__)


class Result(Showing):
    """Scores of one model on one suite; `evaluate` returns one, and it is on disk.

    Attributes:
        result: the same for the rest of the package.
        folder: with metrics.json, per_query.parquet and top.parquet.
    """

    def __init__(self, result: stored.Result, folder: Path):
        self.result, self.folder = result, folder

    @property
    def model(self) -> str:
        """The model's name."""
        return self.result.model

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.result.suite

    @property
    def metric(self) -> str:
        """The suite's main metric, such as "ndcg@10"."""
        return self.result.metric

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric: the mean over tasks of the means over queries."""
        return self.result.mean

    @property
    def mean(self) -> float:
        """The suite's own metric (`metric`)."""
        return self.result.mean[self.metric]

    @property
    def tasks(self) -> dict[str, dict[str, float]]:
        """Every metric by task; a plain suite is one task."""
        return self.result.tasks

    def interval(self, metric: str | None = None, *, seed: int = 0) -> Interval:
        """95% bootstrap interval over queries: `mean`, `low`, `high`.

        Args:
            metric: None is the suite's own.
            seed: of the bootstrap.

        Raises:
            InputError: the result does not have this metric.
        """
        return self.result.interval(metric, seed=seed)

    @property
    def per_query(self) -> "pd.DataFrame | dict[str, np.ndarray]":
        """Every query's values: columns `task`, `query_id` and one for each metric, Q rows in the order of the ids.

        A pandas DataFrame where pandas is installed, otherwise a dict of arrays of length Q.
        """
        keys = self.result.keys
        values = [self.result.per_query[task][query] for task, query in keys]
        columns = {
            "task": np.array([task for task, _ in keys], dtype=object),
            "query_id": np.array([query for _, query in keys], dtype=object),
            **{name: np.array([one[name] for one in values], dtype=np.float64) for name in values[0]},
        }
        try:
            import pandas as pd
        except ImportError:
            return columns
        return pd.DataFrame(columns)

    @property
    def contamination(self) -> str | None:
        """What is known of the training data and this suite, in one sentence; None where it is clean or unknown."""
        return mark_sentence(self.result)

    @property
    def marks(self) -> list[str]:
        """What the score must not be shown without: a degenerate ranking, a further look's reason, repeated queries."""
        return result_marks(self.result)

    @property
    def settings(self) -> dict[str, Any]:
        """What the scores depend on: model, suite, depth, versions, time, run, the ledger's look."""
        return self.result.settings

    def _shown(self) -> Shown:
        names = [self.metric, *(name for name in self.metrics if name != self.metric)][:4]
        rows = [_row(self.result, names)]
        bm25 = self._bm25()
        if bm25 is not None:
            rows.append(_row(bm25, names))
        items = f"{len(self.result.keys):,} {'queries' if self.result.kind == 'retrieval' else 'items'}"
        lines = [line for line in (self.contamination, *self.marks) if line]
        lines += [f"{BM25}: {mark}" for mark in (model_marks(bm25) if bm25 is not None else ())]
        columns = ["model", names[0], "95% interval", *names[1:]]
        return Shown(f"{self.suite}: {items}", columns, rows, [*lines, f"folder: {self.folder}"])

    def _bm25(self) -> stored.Result | None:
        """BM25's result on the same contents, next to this one or below the outputs' folder; None if unknown."""
        if self.result.kind != "retrieval" or self.model == BM25:
            return None
        run = find_enclosing_run(self.folder)
        for evals in [*([run.path / "evals"] if run else []), home() / "evals"]:
            folder = evals / BM25 / self.suite
            if not (folder / stored.METRICS_FILE).is_file():
                continue
            found = stored.load_result(folder)
            if found.settings["suite"]["fingerprint"] == self.settings["suite"]["fingerprint"]:
                return found
        return None


def _row(result: stored.Result, names: Sequence[str]) -> list[object]:
    interval, mean = result.interval(names[0]), result.mean
    span = f"{interval.low:.4f} to {interval.high:.4f}" if interval.high > interval.low else "none"
    return [result.model, mean[names[0]], span, *(mean.get(name) for name in names[1:])]


class Settings(TypedDict, total=False):
    """The keyword arguments of `evaluate`, which explains them."""

    out: str | Path | None
    metrics: Sequence[str]
    role: Role | None
    mirror: str | Path | None
    dtype: str | None
    max_tokens: int | None
    cached: bool
    look_again: str
    progress: bool


@overload
def evaluate(model: ModelLike, suite: str | Path, **settings: Unpack[Settings]) -> Result: ...


@overload
def evaluate(
    model: ModelLike, suite: list[str | Path] | tuple[str | Path, ...], **settings: Unpack[Settings]
) -> list[Result]: ...


def evaluate(
    model: ModelLike,
    suite: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    metrics: Sequence[str] = (),
    role: Role | None = None,
    mirror: str | Path | None = None,
    dtype: str | None = None,
    max_tokens: int | None = None,
    cached: bool = True,
    look_again: str = "",
    progress: bool = True,
) -> Result | list[Result]:
    """Score a model on suites of any kind. The same as `gemma4vec eval`, with the same rules.

    A final suite is opened for frozen recipes only, and once a run. The run's training data is checked against the
    suite first. The ledger records the look, and the result is stored where `gemma4vec compare` and `report` find it.

    Args:
        model: what `load` takes or returns, or "bm25".
        suite: a folder in BEIR's layout, a name such as "nanobeir", sentence pairs (.tsv), rows (.jsonl), a YAML of
            several; or a list of these. Nothing is scored unless every one of them may be.
        out: results go to `out/<suite>`; None is the run's folder, or `$GEMMA4VEC_HOME/evals` for other models.
        metrics: more of retrieval than the usual ones, such as "recall@10".
        role: "dev" or "final", for suites that do not say so themselves.
        mirror: folder with copies of the hub's data sets as OWNER/NAME.
        dtype: as in `load`, where `model` is not loaded yet.
        max_tokens: the same.
        cached: take vectors that are known from disk, and store new ones.
        look_again: why a final suite is opened once more; stored with the scores.
        progress: show log lines and the progress of long work on standard error.

    Returns:
        A result with `mean`, `metrics`, `interval()` and `per_query`; a list of them for a list of suites.

    Raises:
        InputError: no such model or suite; a final suite that may not be opened; a locked one; one that does not fit
            into memory.
        WorkError: vectors that are not finite or not of unit length; a disk that is full.

    Example:
        >>> import gemma4vec as g4v
        >>> bm25 = g4v.evaluate("bm25", suite, progress=False)
        >>> 0.0 <= bm25.interval().low <= bm25.mean <= bm25.interval().high <= 1.0
        True
    """
    specs = [suite] if isinstance(suite, str | Path) else list(suite)
    with progress_shown(progress):
        names = [str(spec) for spec in specs]
        suites = open_suites(names, role, None if mirror is None else Path(mirror))
        found = score_model(
            open_scorer(model, dtype, max_tokens, cached=cached),
            suites,
            run=run_of_model(model),
            is_run=isinstance(model, Run) or (not isinstance(model, Model) and named_run(model, home()) is not None),
            out=None if out is None else Path(out),
            metrics=metrics,
            look_again=look_again,
            opened=[opened_as(name, mirror=mirror) for name in names],
        )
    return found[0] if isinstance(suite, str | Path) else found


def open_suites(specs: Sequence[str], role: Role | None = None, mirror: Path | None = None) -> list[Suite]:
    """Suites by what a person types.

    Raises:
        InputError: no such suite, or two of one name.
    """
    if role not in (None, "dev", "final"):
        raise InputError(f"role {role}: use dev or final")
    suites = [open_any_suite(spec, role, mirror) for spec in specs]
    names = [one.name for one in suites]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two suites are named '{name}'; rename one folder or set 'name' in its suite.yaml")
    return suites


def open_scorer(
    model: ModelLike, dtype: str | None = None, max_tokens: int | None = None, *, cached: bool = True
) -> TextEmbedder | Ranker:
    """The model ready to rank or to encode, with its vectors from disk where they are known."""
    if not isinstance(model, Run | Model) and str(model) == BM25:
        if max_tokens is not None:
            raise InputError("bm25 reads whole texts; leave out max_tokens")
        return Bm25Model()
    from gemma4vec.model.inference.cached_embedder import CachedEmbedder

    if isinstance(model, Model):
        if dtype is not None or max_tokens is not None:
            raise InputError(f"{model.name} is loaded already; give dtype and max_tokens to load")
        embedder = CachedEmbedder(model.embedder) if cached else model.embedder
        return embedder if model.truncate_dim is None else TruncatedEmbedder(embedder, model.truncate_dim)
    opened = open_embedder(model, dtype=dtype, max_tokens=max_tokens)
    return CachedEmbedder(opened) if cached else opened


def run_of_model(model: ModelLike) -> RunFolder | None:
    """The run that a model comes from, also where its model folder is named instead of the run."""
    if isinstance(model, Run):
        return model.run_folder
    if isinstance(model, Model):
        return find_enclosing_run(model.folder) if model.folder is not None else None
    found = named_run(model, home())
    return found or (find_enclosing_run(Path(model)) if Path(model).is_dir() else None)


def score_model(
    model: TextEmbedder | Ranker,
    suites: Sequence[Suite],
    *,
    run: RunFolder | None,
    is_run: bool,
    out: Path | None,
    metrics: Sequence[str],
    look_again: str,
    opened: Sequence[OpenedAs],
) -> list[Result]:
    """Score on every suite, once it is known that all of them may be: the last one is reached after hours.

    Args:
        run: that the model comes from.
        is_run: whether the run itself was named, so that its folder takes the results.
        out: results go to `out/<suite>`.
        opened: the words by which each suite was opened.
    """
    check_allowed(model, suites, owner=find_owner(model, run=run), look_again=look_again)
    results = []
    for suite, how in zip(suites, opened, strict=True):
        check_name(suite.name, "suite")
        folder = out / suite.name if out is not None else _result_folder(model, suite.name, run if is_run else None)
        with bars_by_stage(suite.name) as report:
            found = score(
                model,
                suite,
                folder,
                metrics=[*DEFAULT_METRICS, *metrics],
                progress=report,
                run=run,
                look_again=look_again,
                opened=how,
            )
        results.append(Result(found, folder))
    return results


def _result_folder(model: TextEmbedder | Ranker, suite: str, run: RunFolder | None) -> Path:
    """RUN/evals/trained/<suite> or HOME/evals/<model>/<suite>.

    A result of a differently set model (dtype, limits, weights) is never replaced under the same name.
    """
    if run is not None:
        return free_folder(run.path / "evals" / TRAINED, suite, model, replaces_other_weights=True)
    return free_folder(home() / "evals" / slug(model.name), suite, model)
