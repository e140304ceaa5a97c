"""What a run needs before it loads weights: a bad name, bad rows or a bad stop rule are refused at once."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.data.quality.check_run import read_overlapping_records
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.bases.resolve import ResolvedBase, resolve_base
from gemma4vec.model.bases.sentence_transformers_folder import describe_ignored_layers
from gemma4vec.model.tokenize.tokenizer import TextTokenizer
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.monitoring.stop_rule import LoadedStopRule, load_stop_rules
from gemma4vec.training.preflight import check_base, check_stages
from gemma4vec.training.tasks.make_task import load_stage_data

logger = logging.getLogger(__name__)

# Surrounds a step of the preparation, given its name: to measure its time, or to announce it.
Step = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class CheckedInputs:
    """What a run reads: its base and rows, checked against the recipe.

    Attributes:
        base: the base.
        tokenizer: the base's, with special tokens as the readout needs them.
        data: rows of each stage.
    """

    base: ResolvedBase
    tokenizer: TextTokenizer
    data: list[TrainingData]


@dataclass(frozen=True)
class PreparedRun:
    """A run that can be trained (`training.run.Trainer`).

    Attributes:
        data: rows of each stage; empty if the run is only opened again.
        stop_rules: the stop rule of each stage.
        tokenizer: the base's; None: it is loaded with the weights.
    """

    run: RunFolder
    recipe: Recipe
    base: ResolvedBase
    data: list[TrainingData]
    stop_rules: list[LoadedStopRule | None]
    tokenizer: TextTokenizer | None = None


def check_inputs(recipe: Recipe, *, step: Step = lambda name: nullcontext()) -> CheckedInputs:
    """Find the base, read the rows of all stages, and check both against the recipe. Writes nothing but caches.

    Of several processes the first one does what downloads or writes; the others read its results.

    Args:
        recipe: the recipe.
        step: surrounds the steps "base model" and "training data".

    Raises:
        InputError: the base, the data or the recipe cannot be used; one line that names the recipe's key.
    """
    world = World()
    with step("base model"):
        with world.first_before_others():
            base = resolve_base(recipe.model.base)
        if ignored := describe_ignored_layers(base.path):
            logger.info(ignored)
        outline = check_base(recipe, base.path)
    with step("training data"):
        with world.first_before_others():
            # Of all stages: rows that do not fit the last one are refused now, not after training the first ones.
            data = [load_stage_data(stage) for stage in recipe.stages]
        check_stages(recipe, base.path, data, outline)
    return CheckedInputs(base, outline.tokenizer, data)


def prepare_run(
    run: RunFolder,
    recipe: Recipe,
    *,
    stop_rules: bool = True,
    step: Step = lambda name: nullcontext(),
    checked: CheckedInputs | None = None,
) -> PreparedRun:
    """Check base and rows, record the rows in the run's folder, and evaluate stop rules' references.

    Args:
        run: the run's folder; its manifest gets the sources of the data.
        stop_rules: whether the recipe's own stop rules apply; if not, the caller decides when to stop.
        step: surrounds the steps "base model" and "training data".
        checked: result of `check_inputs`, if it was called before the run's folder was made.

    Raises:
        InputError: the base, the data, the recipe or a stop rule cannot be used; one line that names the recipe's key.
    """
    world, stages = World(), range(len(recipe.stages))
    inputs = checked or check_inputs(recipe, step=step)
    with world.first_before_others():
        for number in stages:
            load_data(run, recipe, number, inputs.data[number])
    rules: list[LoadedStopRule | None] = [None for _ in stages]
    if stop_rules:
        with world.first_before_others():
            rules = load_stop_rules(run, recipe, [one.dev_suite for one in inputs.data])
    return PreparedRun(run, recipe, inputs.base, inputs.data, rules, inputs.tokenizer)


def reopen_run(run: RunFolder, recipe: Recipe) -> PreparedRun:
    """A trained run whose model is loaded again, to evaluate or save it: no data, no stop rules."""
    return PreparedRun(run, recipe, resolve_base(recipe.model.base), [], [None for _ in recipe.stages])


def load_data(run: RunFolder, recipe: Recipe, number: int, loaded: TrainingData | None = None) -> TrainingData:
    """Load the rows of stage `number`, and record their sources and known contamination in the manifest.

    Args:
        run: gets the record.
        recipe: the run's.
        number: of the stage, from 0.
        loaded: the stage's rows, if they were loaded already.

    Raises:
        InputError: as `data.loading.load_rows.load_sources`.
    """
    stage = recipe.stages[number]
    loaded = loaded or load_stage_data(stage)
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
