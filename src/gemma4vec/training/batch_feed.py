"""The batches of a stage in their order, made ahead of the steps, and by new clusters where they are due.

Clusters are made between two steps, in the loop's own thread, since they may read the model that is trained.
"""

from dataclasses import replace
from typing import Any

from gemma4vec.data.batching.near_rows import ClusterWindow
from gemma4vec.machine.prefetch import Prefetcher
from gemma4vec.training.engine.checkpoint import Progress
from gemma4vec.training.engine.step_budget import StepBudget
from gemma4vec.training.engine.task import MemoryPlan
from gemma4vec.training.stage import Stage
from gemma4vec.training.tasks.contrastive import ContrastTask


class BatchFeed:
    """Makes batches in a thread, from where a stage is. A stage without clusters has one thread from first to last.

    Args:
        stage: that is trained.
        plan: how its batches are laid out.
        progress: where it is.
        budget: when it ends.
    """

    def __init__(self, stage: Stage, plan: MemoryPlan, progress: Progress, budget: StepBudget):
        self._stage, self._plan, self._budget = stage, plan, budget
        self._ahead: Prefetcher[Any] | None = None
        self._waited = 0.0
        self._until: int | None = None  # the step before which the thread ends
        if stage.clusters is None:
            self._open(progress, None)

    @property
    def waited(self) -> float:
        """Seconds that `take` has waited until now."""
        return self._waited + (self._ahead.waited if self._ahead is not None else 0.0)

    def renew(self, progress: Progress) -> bool:
        """Cluster the rows of the next steps where that is due; of several processes the first does, for all.

        Returns:
            False if a signal came before the clusters were whole, in every process: then there are no batches.

        Raises:
            InputError: as `training.batches.row_clusters.StageClusters.window`.
        """
        stage, clusters = self._stage, self._stage.clusters
        if clusters is None or (self._ahead is not None and progress.step != self._until):
            return True
        self.close()
        window = stage.world.from_first(
            lambda: stage.signals.unless_stopped(lambda: clusters.window(progress.step, self._budget.total))
        )
        if window is None:
            return False
        refresh = clusters.settings.refresh
        self._until = None if refresh is None else clusters.begins(progress.step) + refresh
        self._open(progress, window)
        return True

    def take(self) -> Any:
        """The next batch."""
        assert self._ahead is not None
        return self._ahead.take()

    def close(self) -> None:
        """Stop the thread."""
        if self._ahead is not None:
            self._ahead.close()
            self._waited += self._ahead.waited
            self._ahead = None

    def _open(self, progress: Progress, window: ClusterWindow | None) -> None:
        task = self._stage.task
        if window is not None:
            assert isinstance(task, ContrastTask)  # the recipe allows clusters for no other
            task = replace(task, clusters=window)
        first, until = progress.batch, self._until
        accumulate = self._stage.settings.batch.accumulate

        def wanted() -> int | None:
            ends = [end for end in (self._budget.total, until) if end is not None]
            return min(ends) * accumulate - first if ends else None

        self._ahead = Prefetcher(task.batches(first, self._plan), wanted)
