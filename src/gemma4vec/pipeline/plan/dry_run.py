"""What a plan would cost: parameters, memory, minutes and disk of each step, without loading weights."""

from collections.abc import Mapping
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.pipeline.plan.check import check_kinds, checkable_recipe, distinct_trainings
from gemma4vec.pipeline.plan.jobs import Job, Kind, Outline
from gemma4vec.pipeline.plan.plan_state import Record
from gemma4vec.training.estimate.dry_run import Estimate, checkpoint_bytes, estimate, model_bytes

GB = 1e9
# A soup and a quantization hold the model that they write and the one that they read, to score it.
_COPIES = 2


def estimate_plan(outline: Outline, records: Mapping[str, Record]) -> dict[str, Any]:
    """Estimate every job, as JSON values; memory and disk in GB (1e9 bytes), time in minutes.

    Minutes are of training alone. With a budget they are the plan's shares of it, of which evaluation takes a part;
    what the recipes' own budgets would take is next to them.

    Raises:
        InputError: whatever a run would refuse before it loads weights; the line begins with the step.
    """
    check_kinds(outline)
    estimates = {(job.step, job.kind): _estimate(job) for job in distinct_trainings(outline)}
    budget, shares = outline.plan.budget, sum(job.share for job in outline.jobs.values())
    rows: list[dict[str, Any]] = []
    for job in outline.jobs.values():
        found = estimates.get((job.step, job.kind)) if job.trains else None
        model = found or _source_estimate(outline, job, estimates)
        own = [stage.parameters for stage in found.stages] if found else []
        size = model_bytes(model.parameters) / GB
        minutes = None if found is None else sum(stage.seconds for stage in found.stages) / 60.0
        rows.append(
            {
                "key": job.key,
                "kind": job.kind,
                "from": [key for reference in job.needs for key in outline.models(reference)],
                "status": records[job.key].status if job.key in records else "waiting",
                "parameters": sum(model.parameters.total.values()),
                "trainable": max(sum(one.trainable.values()) for one in own) if own else 0,
                "peak_memory_gb": found.peak_bytes / GB if found else _COPIES * size,
                "recipe_minutes": minutes,
                "minutes": minutes if budget is None or found is None else budget.minutes * job.share / shares,
                "disk_gb": size + (checkpoint_bytes(own, found.recipe.stages) / GB if found else 0.0),
            }
        )
    return {
        "plan": outline.plan.name,
        "budget": budget.minutes if budget else None,
        "jobs": rows,
        "minutes": sum(row["minutes"] or 0.0 for row in rows),
        "peak_memory_gb": max(row["peak_memory_gb"] for row in rows),
        "disk_gb": sum(row["disk_gb"] for row in rows),
        "dev": [sample.suite for sample in outline.plan.suites.dev],
        "final": [sample.suite for sample in outline.plan.suites.final],
        "results": outline.results,
    }


def _estimate(job: Job) -> Estimate:
    try:
        return estimate(checkable_recipe(job))
    except InputError as error:
        raise InputError(f"steps.{job.step}: {error}") from error


def _source_estimate(outline: Outline, job: Job, estimates: Mapping[tuple[str, Kind], Estimate]) -> Estimate:
    """The estimate of the training that made the model which a job averages or quantizes."""
    while not job.trains:
        job = outline.jobs[outline.models(job.needs[0])[0]]
    return estimates[(job.step, job.kind)]
