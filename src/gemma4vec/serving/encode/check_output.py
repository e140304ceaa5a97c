"""Verify an output folder: every shard is there, its sums and counts are right, its vectors have length one.

Shapes: N rows, D dimensions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.retrieval.unit_rows import find_unit_rows
from gemma4vec.serving.encode.lance_table import find_table_damage, is_built
from gemma4vec.serving.encode.plan import Plan, read_plan
from gemma4vec.serving.encode.shard_files import find_damage, is_done, note_path, read_note, read_shard
from gemma4vec.text.text_embedder import TextProgress

LISTED = 100  # shards that a report names


@dataclass(frozen=True)
class Damage:
    """A shard that is wrong, why, and the file to remove so that it is made again; `shard` is None for a table."""

    shard: int | None
    reason: str
    remove: str


@dataclass(frozen=True)
class OutputCheck:
    """What an output folder holds.

    Attributes:
        rows, encoded, rejected, tokens, truncated: sums over the shards that are whole.
        shards: number of shards of the plan.
        missing: shards that are not done.
        damaged: what is wrong.
        repeated_ids: number of ids that rows of several shards have; they are stored as they are.
    """

    rows: int
    encoded: int
    rejected: int
    tokens: int
    truncated: int
    shards: int
    missing: list[int]
    damaged: list[Damage]
    repeated_ids: int

    @property
    def good(self) -> bool:
        """Whether everything is there and right."""
        return not self.missing and not self.damaged

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"good": self.good, **asdict(self), "missing": self.missing[:LISTED]}

    def line(self, out: Path) -> str:
        """What is wrong and what to do."""
        if self.damaged:
            first = self.damaged[0]
            more = f" ({len(self.damaged)} damaged)" if len(self.damaged) > 1 else ""
            return f"{first.reason}{more}; remove {first.remove} and run the same encoding again, which remakes it"
        return (
            f"{out}: {len(self.missing):,} of {self.shards:,} shards are missing, first {self.missing[0]}; run the "
            "same encoding again, which goes on"
        )


def check_output(out: Path, progress: TextProgress | None = None) -> OutputCheck:
    """Read and check all that a folder holds; 8 bytes a row are held to find repeated ids.

    Raises:
        InputError: it has no plan.
    """
    plan = read_plan(out)
    if plan is None:
        raise InputError(f"{out} has no plan of a bulk encoding; name the output folder")
    sums = dict.fromkeys(("rows", "encoded", "rejected", "tokens", "truncated"), 0)
    missing: list[int] = []
    damaged: list[Damage] = []
    keys: list[np.ndarray[Any, np.dtype[np.uint64]]] = []
    total = len(plan.places)
    for shard in range(total):
        if not is_done(out, shard):
            missing.append(shard)
        elif (reason := find_damage(out, plan, shard) or _find_wrong_rows(out, plan, shard, keys)) is not None:
            damaged.append(Damage(shard, f"shard {shard}: {reason}", str(note_path(out, shard))))
        else:
            note = read_note(out, shard)
            sums = {name: count + getattr(note, name) for name, count in sums.items()}
        if progress:
            progress(shard + 1, total)
    if plan.file_format == "lance" and not missing:
        reason = find_table_damage(out, plan) if is_built(out) else f"{out / 'lance'} is missing"
        if reason is not None:
            damaged.append(Damage(None, reason, str(out / "lance")))
    return OutputCheck(**sums, shards=total, missing=missing, damaged=damaged, repeated_ids=_count_repeated(keys))


def _find_wrong_rows(out: Path, plan: Plan, shard: int, keys: list[Any]) -> str | None:
    """What is wrong with the ids and vectors of a shard whose files are as they were written."""
    try:
        ids, vectors_ND = read_shard(out, plan, shard)
        count = read_note(out, shard).encoded
    except InputError as error:
        return str(error)
    if vectors_ND.shape != (count, plan.dimension) or len(ids) != count:
        return f"{len(ids)} ids and vectors of shape {list(vectors_ND.shape)}, not {count} of {plan.dimension}"
    bad = np.flatnonzero(~find_unit_rows(vectors_ND.astype(np.float32)))
    if len(bad):
        return f"{len(bad)} of {count} vectors are not of length one, first id {ids[int(bad[0])]!r}"
    hashes = [hashlib.blake2b(key.encode(), digest_size=8).digest() for key in ids]
    keys.append(np.frombuffer(b"".join(hashes), dtype=np.uint64))
    return None


def _count_repeated(keys: Sequence[Any]) -> int:
    if not keys:
        return 0
    every = np.concatenate(keys)
    return len(every) - len(np.unique(every))
