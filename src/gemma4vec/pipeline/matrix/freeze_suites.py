"""The suites of a matrix, and the training data that some of them come with."""

from functools import cache
from pathlib import Path

from gemma4vec.data.loading.load_rows import TrainingData, load_sources
from gemma4vec.pipeline.matrix.plan import Plan
from gemma4vec.pipeline.matrix.state import MatrixFolder
from gemma4vec.pipeline.suites import freeze_samples


def freeze_suites(plan: Plan, folder: MatrixFolder) -> tuple[list[Path], list[Path]]:
    """Create the dev and final suites that do not exist yet; return the folders of all.

    Raises:
        InputError: as `freeze_samples`.
    """

    @cache
    def source() -> TrainingData:
        control = next(iter(plan.controls.values()))
        recipe = plan.recipe(plan.grid(control)[0])
        stage = next(stage for stage in recipe.stages if stage.task.kind == "contrast")
        return load_sources(stage.data, stage.mixture)

    return freeze_samples(folder.path, plan.matrix.dev, plan.matrix.final, source)
