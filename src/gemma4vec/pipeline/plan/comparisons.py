"""Which models of a plan are compared with which, and which ones the table of lengths has."""

from collections.abc import Mapping
from dataclasses import dataclass

from gemma4vec.pipeline.plan.jobs import Job, Outline
from gemma4vec.pipeline.plan.plan_state import Record

UNTRAINED = "untrained"


@dataclass(frozen=True)
class Compared:
    """A comparison: `key` minus `against`.

    Attributes:
        key: of a job.
        against: keys of jobs, whose scores are averaged; empty: the untrained base.
        words: what the other side is.
    """

    key: str
    against: tuple[str, ...]
    words: str

    @property
    def name(self) -> str:
        """`A minus B`."""
        return f"{self.key} minus {self.words}"


def list_comparisons(outline: Outline, records: Mapping[str, Record]) -> list[Compared]:
    """Every model with what it was made from; a soup also with its ingredients' mean; training for a grid with none.

    The best ingredient of a soup is the one with the best mean dev score.
    """
    done = {key: record for key, record in records.items() if record.status == "done"}
    return [one for key, job in outline.jobs.items() if key in done for one in _of_job(outline, job, done)]


def _of_job(outline: Outline, job: Job, done: Mapping[str, Record]) -> list[Compared]:
    if not job.makes_model:
        return []
    parents = [key for key in outline.parents(job, done) if key in done]
    if not parents:
        return [Compared(job.key, (), UNTRAINED)]
    if job.kind == "soup":
        best = max(parents, key=lambda key: done[key].dev or 0.0)
        mean = Compared(job.key, tuple(parents), f"the mean of its {len(parents)} ingredients")
        return [Compared(job.key, (best,), f"its best ingredient, {best}"), mean]
    found = [Compared(job.key, (parents[0],), parents[0])]
    if job.kind == "quantize" and job.trains:
        others = [f"{job.step}/{job.scheme}", f"{job.step}/{job.scheme}-control"]
        found += [Compared(job.key, (other,), other) for other in others if other in done]
    return found


def list_with_lengths(outline: Outline) -> list[str]:
    """Keys of the models in the table of lengths and schemes: quantized ones and their sources.

    Without a step that quantizes: the results of the plan.
    """
    quantized = [job for job in outline.jobs.values() if job.kind == "quantize"]
    sources = {key for job in quantized for reference in job.needs for key in outline.models(reference)}
    wanted = {*sources, *(job.key for job in quantized)} or set(outline.results)
    return [key for key in outline.jobs if key in wanted]
