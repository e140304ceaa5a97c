"""What a run needs before it loads weights: a bad name, bad rows or a bad stop rule are refused at once."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from gemma4vec.data.loading.load_rows import TrainingData, load_sources
from gemma4vec.data.quality.check_run import read_overlapping_records
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.bases.resolve import ResolvedBase, resolve_base
from gemma4vec.model.bases.sentence_transformers_folder import describe_ignored_layers
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.monitoring.stop_rule import LoadedStopRule, load_stop_rules
from gemma4vec.training.preflight import refuse_early

logger = logging.getLogger(__name__)

# Surrounds a step of the preparation, given its name: to measure its time, or to announce it.
Step = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class PreparedRun:
    """A run that can be trained (`training.run.Trainer`).

    Attributes:
        data: rows of each stage; empty if the run is only opened again.
        stop_rules: the stop rule of each stage.
    """

    run: RunFolder
    recipe: Recipe
    base: ResolvedBase
    data: list[TrainingData]
    stop_rules: list[LoadedStopRule | None]


def prepare_run(
    run: RunFolder, recipe: Recipe, *, stop_rules: bool = True, step: Step = lambda name: nullcontext()
) -> PreparedRun:
    """Find the base, read the rows of all stages, check both against the recipe, and evaluate stop rules' references.

    Of several processes the first one does what downloads or writes; the others read its results.

    Args:
        run: the run's folder; its manifest gets the sources of the data.
        stop_rules: whether the recipe's own stop rules apply; if not, the caller decides when to stop.
        step: surrounds the steps "base model" and "training data".

    Raises:
        InputError: the base, the data, the recipe or a stop rule cannot be used; one line that names the recipe's key.
    """
    world, stages = World(), range(len(recipe.stages))
    with world.first_before_others():
        with step("base model"):
            base = resolve_base(recipe.model.base)
            if ignored := describe_ignored_layers(base.path):
                logger.info(ignored)
        with step("training data"):
            # Of all stages: rows that do not fit the last one are refused now, not after training the first ones.
            data = [load_data(run, recipe, number) for number in stages]
    refuse_early(recipe, base.path, data)
    rules: list[LoadedStopRule | None] = [None for _ in stages]
    if stop_rules:
        with world.first_before_others():
            rules = load_stop_rules(run, recipe, [one.dev_suite for one in data])
    return PreparedRun(run, recipe, base, data, rules)


def reopen_run(run: RunFolder, recipe: Recipe) -> PreparedRun:
    """A trained run whose model is loaded again, to evaluate or save it: no data, no stop rules."""
    return PreparedRun(run, recipe, resolve_base(recipe.model.base), [], [None for _ in recipe.stages])


def load_data(run: RunFolder, recipe: Recipe, number: int) -> TrainingData:
    """Load the rows of stage `number`, and record their sources and known contamination in the manifest.

    Raises:
        InputError: as `data.loading.load_rows.load_sources`.
    """
    stage = recipe.stages[number]
    loaded = load_sources(stage.data, stage.mixture)
    manifest = run.manifest
    contamination = {suite: dict(found) for suite, found in (manifest.get("contamination") or {}).items()}
    for record in read_overlapping_records([str(facts["content_hash"]) for facts in loaded.sources.values()]):
        contamination.setdefault(record.suite, {})[record.source] = record.summary()
        logger.warning(
            f"warning: {record.source} overlaps the suite {record.suite}: {len(record.touched_queries):,} of "
            f"{record.queries:,} queries are touched; scores on it will carry a mark"
        )
    run.update_manifest(
        data=dict(manifest.get("data", {})) | {f"{number}-{stage.name}": loaded.sources},
        contamination=contamination,
    )
    return loaded
