"""Checks before the first job of a plan: every base and every source, as the runs themselves check them."""

import logging
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from gemma4vec.errors import InputError
from gemma4vec.pipeline.plan.jobs import Job, Outline
from gemma4vec.pipeline.plan.plan_state import Record
from gemma4vec.pipeline.plan.work import MAKERS
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import START, Nce
from gemma4vec.training.prepare_run import check_inputs

logger = logging.getLogger(__name__)


def check_jobs(outline: Outline, records: Mapping[str, Record]) -> None:
    """Find the base and read the rows of every recipe whose job has not begun.

    Raises:
        InputError: a base, a source or a recipe cannot be used; the line begins with the step.
    """
    check_kinds(outline)
    for job in distinct_trainings(outline):
        if job.key not in records:
            logger.info(f"checking {job.step}")
            try:
                check_inputs(checkable_recipe(job))
            except InputError as error:
                raise InputError(f"steps.{job.step}: {error}") from error


def check_kinds(outline: Outline) -> None:
    """Refuse kinds of steps that this installation has no code for.

    Raises:
        InputError: the line names the step.
    """
    for job in outline.jobs.values():
        module, _ = MAKERS[job.kind]
        if find_spec(module) is None:
            raise InputError(f"steps.{job.step}: this installation of gemma4vec cannot do a {job.kind} step")


def distinct_trainings(outline: Outline) -> Iterator[Job]:
    """The first training of each step: the others differ in weights of sources, or in the scheme."""
    seen = set()
    for job in outline.jobs.values():
        if job.trains and (job.step, job.kind) not in seen:
            seen.add((job.step, job.kind))
            yield job


def checkable_recipe(job: Job) -> schema.Recipe:
    """The recipe of a training without what cannot be seen before the plan has run.

    That is a term whose teacher is its start, the model of an earlier step, which does not exist yet. An estimate
    measures no teacher either (`training.estimate.shallow.stage_task`).
    """
    recipe = job.recipe
    assert recipe is not None  # of a training
    if not job.needs or recipe.model.start is not None:
        return recipe
    stages = []
    for stage in recipe.stages:
        if isinstance(stage.task, schema.Contrast):
            terms = tuple(term for term in stage.task.terms if getattr(term, "teacher", None) != START)
            stage = stage.model_copy(update={"task": stage.task.model_copy(update={"terms": terms or (Nce(),)})})
        stages.append(stage)
    return recipe.model_copy(update={"stages": tuple(stages)})
