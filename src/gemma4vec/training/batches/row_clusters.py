"""The clusters of a stage's rows: made once, or for each window of steps, and kept in the run's folder.

`RUN/clusters/<stage>/batch-00000000.npz` has the rows of a window that begins with that batch, and their clusters. An
event `clusters` has its hash and what it was made from, so that a run that goes on has the same batches.

Shapes: R rows, n rows of a window.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.batching.kmeans import cluster_vectors
from gemma4vec.data.batching.mixture import MixedRows, as_mixture, quotas
from gemma4vec.data.batching.near_rows import ClusterWindow, reached_rows
from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.errors import InputError
from gemma4vec.files import NPY_ERRORS, atomic_write, sha256_file, sha256_text
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe import schema
from gemma4vec.recipe.batch import SELF
from gemma4vec.text.text_embedder import TextEmbedder
from gemma4vec.training.batches.near_texts import Neighbors, find_neighbors
from gemma4vec.training.batches.row_vectors import write_row_vectors
from gemma4vec.training.engine.made_from import MADE_FROM
from gemma4vec.training.engine.process_memory import release_memory

logger = logging.getLogger(__name__)

EVENT = "clusters"
# `count: auto`: groups of a cluster, and the most clusters (TAS-B has 2,000, Hofstätter et al. 2021, arXiv:2104.06967).
_GROUPS_EACH, _MOST = 8, 2048


@dataclass(frozen=True, eq=False)
class StageClusters:
    """Makes the clusters of a stage, or reads those that the run made before.

    Attributes:
        number: of the stage.
        stage: the recipe's.
        rows: its rows, with their texts.
        run: gets files and events.
        seed: of the rows' order.
        identity: hash of everything else that the clusters are made from: rows, models.
        open_model: opens the model whose vectors are clustered; for `self` the model as it is now.
    """

    number: int
    stage: schema.Stage
    rows: MixedRows
    run: RunFolder
    seed: int
    identity: str
    open_model: Callable[[], TextEmbedder]

    @property
    def settings(self) -> schema.Clusters:
        """The recipe's."""
        assert self.stage.batch.clusters is not None
        return self.stage.batch.clusters

    @property
    def key(self) -> str:
        """Place in the recipe, for messages."""
        return f"stages.{self.number}.batch.clusters"

    def begins(self, step: int) -> int:
        """The step from which the clusters of step `step` hold."""
        return 0 if self.settings.refresh is None else step - step % self.settings.refresh

    def window(self, step: int, steps: int | None) -> ClusterWindow:
        """The clusters for step `step`, the next one of the run.

        Args:
            step: optimizer steps done in the stage.
            steps: of the stage's budget; None: not known yet.

        Raises:
            InputError: the run's own clusters are needed and are damaged, or the model cannot cluster these rows.
        """
        begin, accumulate = self.begins(step), self.stage.batch.accumulate
        first = begin * accumulate
        known = self._last_event(first)
        if known is not None and (step > 0 or known["identity"] == self._identity(known["stop"])):
            window = self._read(known, may_fail=step == begin)
            if window is not None:
                return window
        elif step > begin:
            raise InputError(
                f"{self.run.path} has no clusters for step {step} of stage {self.number}; its events.jsonl is damaged: "
                "put it back, or start a new run"
            )
        ends = [one for one in (steps, begin + self.settings.refresh if self.settings.refresh else None) if one]
        return self._make(step, first, min(ends) * accumulate if ends else None)

    def _last_event(self, first: int) -> Mapping[str, Any] | None:
        found = [e for e in self.run.events(EVENT) if e["stage"] == self.number and e["batch"] == first]
        return found[-1] if found else None

    def _identity(self, stop: int | None) -> str:
        # A model is known by its contents; its path is another one when the run goes on from another folder.
        settings = self.stage.batch.model_dump_json(exclude={"clusters": {"by"}})
        return sha256_text(self.identity, settings, str(self.seed), str(stop))

    def _file(self, first: int) -> Path:
        return self.run.path / "clusters" / f"{self.number}-{self.stage.name}" / f"batch-{first:08d}.npz"

    def _read(self, known: Mapping[str, Any], may_fail: bool) -> ClusterWindow | None:
        """The clusters of an event; None if they are damaged and can be made again.

        Raises:
            InputError: they are damaged, and the model that made them is another one now.
        """
        file, first = self._file(known["batch"]), known["batch"]
        try:
            if sha256_file(file) != known["sha256"]:
                raise ValueError("its contents differ from what was written")
            with np.load(file, allow_pickle=False) as arrays:
                return self._window(first, known["stop"], arrays["rows"], arrays["clusters"])
        except (OSError, KeyError, BadZipFile, *NPY_ERRORS) as error:
            if may_fail:
                return None
            reason = " ".join(str(error).split())[:120]
            raise InputError(
                f"{file} is damaged or missing ({reason}); put it back, or start a new run: without it the rows would "
                "come in another order"
            ) from error

    def _window(
        self, first: int, stop: int | None, numbers_n: NDArray[np.int64], labels_n: NDArray[np.int32]
    ) -> ClusterWindow:
        labels_R = np.full(len(self.rows), -1, dtype=np.int32)
        labels_R[numbers_n] = labels_n
        return ClusterWindow(first, stop, labels_R, self.stage.batch.group_rows)

    def _make(self, step: int, first: int, stop: int | None) -> ClusterWindow:
        started = time.perf_counter()
        size = self.stage.batch.rows
        numbers_n = reached_rows(self.rows, size=size, seed=self.seed, first=first, stop=stop)
        model = self.open_model()
        file, vectors = self._file(first), self._file(first).with_name("vectors.npy")
        by = f"{self.key}.by"
        try:
            vectors_nD = write_row_vectors(model, self.rows, numbers_n, self.settings.text, vectors, by)
            who = model.name if self.settings.by != SELF else f"the model at step {step}"
            del model
            release_memory()
            labels_n = self._cluster(vectors_nD, numbers_n, first)
            window = self._window(first, stop, numbers_n, labels_n)
            seen = find_neighbors(self.rows, window, vectors_nD, numbers_n, self.stage.batch, self.seed)
            del vectors_nD
        finally:
            vectors.unlink(missing_ok=True)
        with atomic_write(file, "wb") as stream:
            np.savez(stream, rows=numbers_n, clusters=labels_n)
        sizes = np.bincount(labels_n, minlength=1)
        facts = {
            "rows": len(numbers_n),
            "clusters": len(sizes),
            "smallest": int(sizes.min()),
            "largest": int(sizes.max()),
        }
        seconds = time.perf_counter() - started
        self.run.event(
            EVENT,
            stage=self.number,
            step=step,
            batch=first,
            stop=stop,
            by=self.settings.by,
            **facts,
            **seen.as_json(),
            seconds=seconds,
            sha256=sha256_file(file),
            identity=self._identity(stop),
        )
        self._tell(facts, seen, who, seconds)
        return window

    def _cluster(self, vectors_nD: NDArray[np.float16], numbers_n: NDArray[np.int64], first: int) -> NDArray[np.int32]:
        """Clusters of the window's rows, those of one source before those of the next."""
        smallest = self.stage.batch.group_rows
        ends = [len(self.rows)] if self.settings.across_sources else self.rows.starts[1:]
        cuts = [0, *np.searchsorted(numbers_n, ends).tolist()]
        counts = [end - begin for begin, end in pairwise(cuts)]
        wanted = cluster_counts(self.settings.count, counts, smallest)
        labels_n, known = np.empty(len(numbers_n), dtype=np.int32), 0
        for place, (begin, end) in enumerate(pairwise(cuts)):
            seed = np.random.SeedSequence([self.seed, first, place]).generate_state(1)[0]
            own = cluster_vectors(vectors_nD[begin:end], wanted[place], smallest=smallest, seed=int(seed))
            labels_n[begin:end] = own + known
            known += int(own.max(initial=-1)) + 1
        return labels_n

    def _tell(self, facts: Mapping[str, int], seen: Neighbors, who: str, seconds: float) -> None:
        logger.info(
            f"clusters: {facts['rows']:,} rows in {facts['clusters']:,} clusters of {facts['smallest']:,} to "
            f"{facts['largest']:,} rows, by {who}, in {seconds:.0f} s; {seen.sentence()}"
        )
        for advice in seen.advice(self.stage):
            logger.warning(f"{self.key}: {advice}")


def stage_clusters(
    number: int,
    stage: schema.Stage,
    loaded: TrainingData,
    run: RunFolder,
    seed: int,
    own_model: Callable[[], TextEmbedder],
) -> StageClusters | None:
    """What clusters the rows of stage `number`; None: its recipe has no clusters.

    Args:
        number: of the stage.
        stage: the recipe's.
        loaded: its rows.
        run: whose manifest says by now what it is made from.
        seed: of the rows' order.
        own_model: returns an embedder of the model as it is, for `by: self`.
    """
    settings = stage.batch.clusters
    if settings is None:
        return None
    key = f"stages.{number}.batch.clusters.by"

    def open_model() -> TextEmbedder:
        return own_model() if settings.by == SELF else open_cluster_model(settings.by, key)

    identity = data_identity(loaded.sources, run.manifest.get(MADE_FROM) or {})
    return StageClusters(number, stage, as_mixture(loaded.rows), run, seed, identity, open_model)


def open_cluster_model(name: str, key: str) -> TextEmbedder:
    """Open a finished model, whose vectors are cached on disk.

    Raises:
        InputError: there is no such model; `key` begins the line.
    """
    try:
        model = Embedder.load(name)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    if isinstance(model, Embedder):
        model.compiles_from = sys.maxsize  # compilers have global state, and the model in training uses it
    return CachedEmbedder(model)


def cluster_counts(count: int | str, rows: list[int], smallest: int) -> list[int]:
    """The number of clusters of each source, in proportion to its rows; at least one."""
    whole = max(1, min(_MOST, sum(rows) // (_GROUPS_EACH * smallest))) if isinstance(count, str) else count
    shares = [one / max(1, sum(rows)) for one in rows]
    return [max(1, one) for one in quotas(shares, whole)]


def data_identity(sources: Mapping[str, Mapping[str, Any]], made_from: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of rows (their sources' facts) and of models (the manifest's `made_from`), wherever they lie."""
    rows = {name: str(facts["content_hash"]) for name, facts in sources.items()}
    models = {key: {name: part.get(name) for name in ("weights", "settings")} for key, part in made_from.items()}
    return sha256_text(json.dumps([rows, models], sort_keys=True))
