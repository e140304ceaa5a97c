"""What a run needs before it loads weights: a bad name, bad rows or a bad stop rule are refused at once."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.data.quality.check_run import read_overlapping_records
from gemma4vec.data.quality.contamination_record import sources_from_manifest
from gemma4vec.ledger.lineage import INHERITED
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.run_recipe import started_in
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.bases.sentence_transformers_folder import describe_ignored_layers
from gemma4vec.model.bases.start import resolve_model
from gemma4vec.model.inference.load import find_model_folder
from gemma4vec.model.tokenize.tokenizer import TextTokenizer
from gemma4vec.recipe.batch import SELF
from gemma4vec.recipe.recorded.paths import missing_path
from gemma4vec.recipe.schema import Contrast, Recipe, VectorToText
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.engine.made_from import (
    ChangedInputError,
    Parts,
    changed,
    check_parts,
    file_part,
    has_begun,
    model_part,
    own_parts,
    record_parts,
)
from gemma4vec.training.monitoring.stop_rule import LoadedStopRule, load_stop_rules
from gemma4vec.training.preflight import check_base, check_stages
from gemma4vec.training.tasks.make_task import load_stage_data
from gemma4vec.training.terms.teachers import named_teachers, teachers_of

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
    for number, stage in enumerate(recipe.stages):
        if isinstance(stage.task, Contrast):  # before a base is downloaded
            named_teachers(stage.task, recipe.model.start, f"stages.{number}.task")
    with step("base model"):
        with world.first_before_others():
            base = resolve_model(recipe.model)
        if recipe.model.start is None and (ignored := describe_ignored_layers(base.path)):
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
        InputError: the base, the data, the recipe or a stop rule cannot be used, or base, rows or teachers are not
            those that the run began with; one line that names the recipe's key.
    """
    world, stages = World(), range(len(recipe.stages))
    goes_on = has_begun(run)
    _check_started_in(run, recipe, goes_on)
    inputs = checked or check_inputs(recipe, step=step)
    with world.first_before_others():
        parts = own_parts(recipe, inputs.base) | _teachers(recipe) | vector_parts(recipe)
        ordering = cluster_parts(recipe)
        if goes_on:
            check_parts(run, parts | ordering)
        for number in stages:
            load_data(run, recipe, number, inputs.data[number], goes_on=goes_on)
        if not goes_on:
            record_parts(run, parts, ordering)
            _warn_of_inherited_overlaps(run)
    rules: list[LoadedStopRule | None] = [None for _ in stages]
    if stop_rules:
        with world.first_before_others():
            rules = load_stop_rules(run, recipe, [one.dev_suite for one in inputs.data])
    return PreparedRun(run, recipe, inputs.base, inputs.data, rules, inputs.tokenizer)


def reopen_run(run: RunFolder, recipe: Recipe) -> PreparedRun:
    """A trained run whose model is loaded again, to evaluate or save it: no data, no stop rules.

    Raises:
        InputError: the base is missing, or is not that of the training any more.
    """
    base = resolve_model(recipe.model)
    check_parts(run, own_parts(recipe, base))
    return PreparedRun(run, recipe, base, [], [None for _ in recipe.stages])


def _check_started_in(run: RunFolder, recipe: Recipe, goes_on: bool) -> None:
    """Say what nobody can check of a run that an earlier release began, and where it has to go on.

    Raises:
        InputError: its paths are relative to a folder that was not recorded, and one does not exist here.
    """
    if started_in(run) is None and goes_on:
        if missing := missing_path(recipe):
            raise ChangedInputError(
                f"{missing} is not in {Path.cwd()}: the paths of {run.run_id} are relative to the folder that it was "
                "started in, which its release did not record; go there and resume it"
            )
        logger.info("an earlier release began this run: whether its base and teachers have changed cannot be checked")


def _teachers(recipe: Recipe) -> Parts:
    """Describe the teachers of all stages by their contents."""
    found: Parts = {}
    for number, stage in enumerate(recipe.stages):
        if not isinstance(stage.task, Contrast):
            continue
        task = named_teachers(stage.task, recipe.model.start)
        for key, _, settings in teachers_of(task, f"stages.{number}.task"):
            if settings.model is not None:
                found[key] = model_part(settings.model, find_model_folder(settings.model))
            elif settings.vectors is not None:
                file = Path(settings.vectors).expanduser()
                found[key] = file_part(file)
                if file.suffix == ".npy":  # its texts are in a file of their own
                    found[f"{key}.texts"] = file_part(file.with_suffix(".jsonl"))
    return found


def vector_parts(recipe: Recipe) -> Parts:
    """Describe the models whose vectors decoders learn to invert, by their contents."""
    return {
        f"stages.{number}.task.embedder": model_part(stage.task.embedder, find_model_folder(stage.task.embedder))
        for number, stage in enumerate(recipe.stages)
        if isinstance(stage.task, VectorToText)
    }


def cluster_parts(recipe: Recipe) -> Parts:
    """Describe the models whose vectors decide which rows are in a batch together, by their contents."""
    return {
        f"stages.{number}.batch.clusters.by": model_part(clusters.by, find_model_folder(clusters.by))
        for number, stage in enumerate(recipe.stages)
        if (clusters := stage.batch.clusters) is not None and clusters.by != SELF
    }


def _warn_of_inherited_overlaps(run: RunFolder) -> None:
    """Say which suites overlap the training data of what the run is made from, where it was checked."""
    for ancestor, data in (run.manifest[INHERITED]["data"]).items():
        for record in read_overlapping_records(list(sources_from_manifest({"data": data}))):
            logger.warning(
                f"warning: {record.source}, on which {ancestor} was trained, overlaps the suite {record.suite}: this "
                f"run is made from {ancestor}; scores on the suite will carry a mark"
            )


def load_data(
    run: RunFolder, recipe: Recipe, number: int, loaded: TrainingData | None = None, *, goes_on: bool = False
) -> TrainingData:
    """Load the rows of stage `number`, and record their sources and known contamination in the manifest.

    Args:
        run: gets the record.
        recipe: the run's.
        number: of the stage, from 0.
        loaded: the stage's rows, if they were loaded already.
        goes_on: whether the run has trained on rows already, which must be the same ones.

    Raises:
        InputError: as `data.loading.load_rows.load_sources`; other rows than the run began with.
    """
    stage = recipe.stages[number]
    loaded = loaded or load_stage_data(stage)
    manifest = run.manifest
    began_with = (manifest.get("data") or {}).get(f"{number}-{stage.name}") or {}
    for name, facts in loaded.sources.items():
        before, now = (began_with.get(name) or {}).get("content_hash"), str(facts["content_hash"])
        if goes_on and before and before != now:
            raise changed(f"stages.{number}.data", f"the rows of {name}", before, now)
        if facts["path"] and Path(facts["path"]).expanduser().exists():
            facts["path"] = str(Path(facts["path"]).expanduser().resolve())
    contamination = {suite: dict(found) for suite, found in (manifest.get("contamination") or {}).items()}
    for record in read_overlapping_records([str(facts["content_hash"]) for facts in loaded.sources.values()]):
        contamination.setdefault(record.suite, {})[record.source] = record.summary()
        logger.warning(
            f"warning: {record.source} overlaps the suite {record.suite}: {len(record.touched_queries):,} of "
            f"{record.queries:,} queries are touched; scores on it will carry a mark"
        )
    run.update_manifest(
        data=dict(manifest.get("data") or {}) | {f"{number}-{stage.name}": loaded.sources},
        contamination=contamination,
    )
    return loaded
