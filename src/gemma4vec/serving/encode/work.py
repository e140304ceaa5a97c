"""What one process does: claim a shard that nobody works on, encode it, write it, until all of its shards are done."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.serving.encode.bulk_embedder import BulkEmbedder
from gemma4vec.serving.encode.encode_shard import encode_shard
from gemma4vec.serving.encode.input_files import InputFiles
from gemma4vec.serving.encode.leases import Leases
from gemma4vec.serving.encode.plan import Plan
from gemma4vec.serving.encode.shard_files import is_done, shard_name, write_shard

logger = logging.getLogger(__name__)

LEASES = "leases"
LONGEST_WAIT = 1.0  # seconds between two looks at what others do
Report = Callable[[int], None]  # input rows that this process has done


@dataclass(frozen=True)
class Job:
    """What the processes of a bulk encoding share.

    Attributes:
        out: the output folder.
        plan: its plan.
        files: the input.
        stamp: sizes and times of the input's files when their contents were compared with the plan.
        lease_seconds: time after which a lease that nobody touches is taken over.
    """

    out: Path
    plan: Plan
    files: InputFiles
    stamp: list[tuple[int, int]]
    lease_seconds: float

    def check_input(self) -> None:
        """Refuse an input that has changed since the job began.

        Raises:
            InputError: it has.
        """
        if self.files.stamp() != self.stamp:
            raise InputError(
                f"{self.files.files[0]} changed while it was encoded; restore it and run the same command again"
            )


def work(job: Job, embedder: BulkEmbedder, shards: Sequence[int], report: Report) -> list[int]:
    """Encode those of `shards` that are not done, and wait until others have done theirs. Return the encoded ones.

    Raises:
        InputError: the input has changed.
        WorkError: a vector is broken, or the disk is full.
    """
    leases = Leases(job.out / LEASES, job.lease_seconds)
    waiting, made, rows = list(shards), [], 0
    said = False
    while waiting:
        left = []
        for shard in waiting:
            if is_done(job.out, shard):
                continue
            with leases.claim(shard_name(shard)) as owned:
                if not owned:
                    left.append(shard)
                elif not is_done(job.out, shard):
                    _encode(job, embedder, shard, rows, report)
                    rows += job.plan.rows_of(shard)
                    report(rows)
                    made.append(shard)
        if left and len(left) == len(waiting):
            if not said:
                logger.info(f"waiting for {len(left):,} shards that other processes encode")
                said = True
            time.sleep(min(LONGEST_WAIT, job.lease_seconds / 10))
        waiting = left
    return made


def _encode(job: Job, embedder: BulkEmbedder, shard: int, before: int, report: Report) -> None:
    rows = encode_shard(job.plan, job.files, embedder, shard, lambda done, total: report(before + done))
    job.check_input()
    write_shard(job.out, job.plan, shard, rows)
