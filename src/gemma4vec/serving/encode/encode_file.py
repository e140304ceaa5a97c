"""Encode a file of texts into a folder of vectors: the plan, the shards, and who does which.

A shard is the unit of work. Any number of processes on any number of machines may work in one folder, at once or one
after the other; a killed one costs the shards that it had. Files are the same bytes whoever made them, on one kind of
machine with one number of threads.
"""

import gc
import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec import __version__
from gemma4vec.errors import InputError
from gemma4vec.files import check_writable, disk_errors, refuse_overwriting
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.machine.versions import installed_version
from gemma4vec.model.inference.truncated_embedder import check_trained_dimension
from gemma4vec.serving.encode.bulk_embedder import BulkEmbedder, Opener
from gemma4vec.serving.encode.input_files import InputFiles, open_input
from gemma4vec.serving.encode.input_rows import Fields
from gemma4vec.serving.encode.lance_table import build_table, check_lancedb, is_built
from gemma4vec.serving.encode.leases import Leases
from gemma4vec.serving.encode.plan import PLAN, Plan, check_same, make_plan, read_plan, write_plan
from gemma4vec.serving.encode.processes import work_in_processes
from gemma4vec.serving.encode.shard_files import (
    DTYPES,
    FORMATS,
    ShardNote,
    find_damage,
    is_done,
    note_path,
    read_note,
)
from gemma4vec.serving.encode.work import LEASES, Job, work

logger = logging.getLogger(__name__)

SHARD_ROWS = 8_192
LEASE_SECONDS = 60.0
INPUT_TYPES = ("document", "query")
COMPUTES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow")  # packages on which bytes depend


@dataclass(frozen=True)
class EncodeSettings:
    """How a file is encoded.

    Attributes:
        input_type: document or query; decides about the prompt.
        fields: names of the input's fields.
        shard_rows: rows of a shard.
        file_format: parquet, npy or lance.
        dtype: numbers of the stored vectors, f32 or f16.
        dimension: number of leading dimensions, one of those trained; None: all.
        max_bad_share: largest share of rows that may be rejected, 0 to 1.
        lease_seconds: time after which a lease that nobody touches is taken over.
    """

    input_type: str = "document"
    fields: Fields = field(default_factory=Fields)
    shard_rows: int = SHARD_ROWS
    file_format: str = "parquet"
    dtype: str = "f32"
    dimension: int | None = None
    max_bad_share: float = 0.0
    lease_seconds: float = LEASE_SECONDS

    def check(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            InputError: names the option.
        """
        for option, value, known in (
            ("--input-type", self.input_type, INPUT_TYPES),
            ("--format", self.file_format, FORMATS),
            ("--dtype", self.dtype, tuple(DTYPES)),
        ):
            if value not in known:
                raise InputError(f"{option} {value}: use {' or '.join(known)}")
        if self.shard_rows < 1 or not 0 <= self.max_bad_share <= 1 or not self.lease_seconds > 0:
            raise InputError(
                "--shard-rows must be 1 or more, --max-bad-share from 0 to 1, --lease-seconds above 0; correct them"
            )
        if self.file_format == "lance":
            check_lancedb()


@dataclass(frozen=True)
class Encoding:
    """What a command did.

    Attributes:
        out: the folder.
        notes: the shards that this command encoded.
        shards: number of shards of the plan.
        done: number of shards that are done now, whoever did them.
        plan: the plan.
        seconds: the command's time, without opening the model and reading the input once.
    """

    out: Path
    notes: list[ShardNote]
    shards: int
    done: int
    plan: Plan
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """As JSON values; rows and tokens are those that this command encoded."""
        sums = {name: sum(getattr(note, name) for note in self.notes) for name in ("encoded", "rejected", "tokens")}
        return {
            "out": str(self.out),
            "rows": self.plan.rows,
            "shards": self.shards,
            "shards_done": self.done,
            "shards_encoded": len(self.notes),
            **sums,
            "truncated": sum(note.truncated for note in self.notes),
            "input_type": self.plan.identity["encoding"]["input_type"],
            "dimension": self.plan.dimension,
            "seconds": self.seconds,
            "tokens_per_second": sums["tokens"] / self.seconds if self.notes and self.seconds > 0 else None,
        }


def parse_part(text: str) -> tuple[int, int]:
    """`I/N`, from 1 to N.

    Raises:
        InputError: it is nothing like that.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise InputError(f"--shard {text[:40]}: write I/N, where I is from 1 to N, such as 3/8")
    return part, parts


def encode_file(
    opener: Opener,
    source: Path,
    out: Path,
    settings: EncodeSettings,
    *,
    part: tuple[int, int] = (1, 1),
    workers: int = 1,
) -> Encoding:
    """Encode the rows of `source` into `out`, or go on with an encoding of the same plan.

    Args:
        opener: opens the model; worker processes get copies of it.
        source: the input; see `input_files.open_input`.
        out: a new folder, or one of the same plan.
        settings: what the files depend on.
        part: `(I, N)`: only the shards I, I + N, I + 2N, ..., counted from 1.
        workers: number of processes on this machine.

    Raises:
        InputError: bad settings or input, another plan in the folder, or rows that cannot be encoded.
        WorkError: a vector is broken, the disk is full, or all workers were killed.
    """
    settings.check()
    files = open_input(source, settings.fields, queries=settings.input_type == "query")
    check_out(out, files)
    check_writable(out)
    stamp, digest = files.stamp(), files.sha256()
    embedder = opener(None, 0)
    plan = _plan(files, digest, out, settings, embedder)
    job = Job(out, plan, files, stamp, settings.lease_seconds)
    shards = list(range(part[0] - 1, len(plan.places), part[1]))
    _remove_damaged(job, shards)
    todo = [shard for shard in shards if not is_done(out, shard)]
    before = sum(plan.rows_of(shard) for shard in shards if is_done(out, shard))
    total = sum(map(plan.rows_of, shards))
    check_writable(out, sum(map(plan.rows_of, todo)) * plan.dimension * (4 if plan.dtype == "f32" else 2))
    if before:
        logger.info(f"{len(shards) - len(todo):,} of {len(shards):,} shards are done already")
    started = time.perf_counter()
    with ProgressBar("encoding", "rows") as bar:
        bar(before, total)

        def report(done: int) -> None:
            bar(min(before + done, total), total)

        if workers > 1 and len(todo) > 1:
            del embedder
            gc.collect()  # the workers have models of their own
            made = work_in_processes(job, opener, todo, min(workers, len(todo)), report)
        else:
            made = work(job, embedder, todo, report)
    seconds = time.perf_counter() - started
    if plan.file_format == "lance":
        _build_table(job)
    done = sum(is_done(out, shard) for shard in range(len(plan.places)))
    return Encoding(out, [read_note(out, shard) for shard in made], len(plan.places), done, plan, seconds)


def check_out(out: Path, files: InputFiles) -> None:
    """Refuse an output that is a file, has other contents, or is the input's folder.

    Raises:
        InputError: it is.
    """
    refuse_overwriting([out], files.files)
    if out.is_dir():
        for file in files.files:
            if file.resolve().is_relative_to(out.resolve()):
                raise InputError(f"{out} holds the input; name another folder for the output")
        if not (out / PLAN).is_file() and any(not one.name.startswith(".") for one in out.iterdir()):
            raise InputError(f"{out} holds other files and no plan of an encoding; name a new folder")
    elif out.exists():
        raise InputError(f"{out} is a file; name a folder for the output")


def _plan(files: InputFiles, digest: str, out: Path, settings: EncodeSettings, embedder: BulkEmbedder) -> Plan:
    """The plan of the folder, which must be this one; a new folder gets it."""
    fields, queries = files.fields, settings.input_type == "query"
    identity = {
        "input": {
            "sha256": digest,
            "kind": files.kind,
            "id": "row" if fields.row_ids else fields.id,
            "text": fields.text,
            "title": None if queries else fields.title,
        },
        "encoding": {
            "input_type": settings.input_type,
            "prompt": embedder.prompt(queries),
            "dimension": check_trained_dimension(
                settings.dimension, embedder.dimension, embedder.lengths, embedder.name
            ),
            "dtype": settings.dtype,
            "format": settings.file_format,
            "shard_rows": settings.shard_rows,
        },
        "model": embedder.identity(),
        "versions": {"gemma4vec": __version__, **{name: installed_version(name) for name in COMPUTES}},
    }
    found = read_plan(out)
    if found is not None:
        check_same(found, identity, out)
        return found
    made = make_plan(files, identity, settings.max_bad_share)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    return write_plan(out, made)


def _remove_damaged(job: Job, shards: list[int]) -> None:
    """Remove the notes of finished shards whose files are not as they were written: these are made again."""
    for shard in shards:
        reason = find_damage(job.out, job.plan, shard) if is_done(job.out, shard) else None
        if reason is not None:
            logger.warning(f"shard {shard} is made again: {reason}")
            with disk_errors(job.out):
                note_path(job.out, shard).unlink(missing_ok=True)


def _build_table(job: Job) -> None:
    """Build the Lance table if all shards are done; one process does it."""
    leases = Leases(job.out / LEASES, job.lease_seconds)
    while all(is_done(job.out, shard) for shard in range(len(job.plan.places))) and not is_built(job.out):
        with leases.claim("table") as owned:
            if owned and not is_built(job.out):
                build_table(job.out, job.plan)
        if not owned:
            time.sleep(min(1.0, job.lease_seconds / 10))
