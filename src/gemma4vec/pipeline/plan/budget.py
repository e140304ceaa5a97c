"""The time of a plan: what each training gets of what is left."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from gemma4vec.pipeline.plan.jobs import Job
from gemma4vec.pipeline.plan.plan_state import Record

LEAST_SHARE = 0.1  # of a job's part of the whole: so much it trains even where the time is used up


def training_minutes(
    total: float, spent: float, job: Job, others: Sequence[Job], records: Mapping[str, Record], evaluation: float
) -> float:
    """Minutes of training for a job: its share of the time that is left when all other work is paid for.

    What earlier steps did not use is so passed on to later ones, and what they used too much is taken from these.

    Args:
        total: the plan's budget in minutes.
        spent: minutes so far, of everything.
        job: the next one to train.
        others: the jobs after it.
        records: of the jobs so far; they say what work besides training costs.
        evaluation: minutes of one evaluation on the dev suites, for kinds of jobs without a record.
    """
    ahead = [job, *others]
    besides = sum(_besides_training(one, records, evaluation) for one in ahead)
    shares = sum(one.share for one in ahead)
    all_shares = shares + sum(record.share for record in records.values())
    least = LEAST_SHARE * total * job.share / all_shares
    return max(least, (total - spent - besides) * job.share / shares)


def _besides_training(job: Job, records: Mapping[str, Record], evaluation: float) -> float:
    """Minutes that a job takes besides training: loading, saving, evaluation; as jobs of its kind took so far."""
    alike = [record for record in records.values() if record.status == "done" and record.kind == job.kind]
    alike = [record for record in alike if (record.minutes is not None) == job.trains] or alike
    known = [max(0.0, record.seconds / 60.0 - (record.minutes or 0.0)) for record in alike]
    return fmean(known) if known else evaluation
