"""Suites of held-out training rows, of two kinds: local rank tests and validation loss.

A local rank test ranks a row's positive among the row's negatives; rows without negatives are left out. Validation loss
is InfoNCE over blocks of consecutive rows; its temperature and block size are stored.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from gemma4vec.data.rows.rows import Row, content_hash, read_rows
from gemma4vec.data.suites.kinds import Kind, Role
from gemma4vec.data.suites.suite import COMMON_OPTIONS
from gemma4vec.data.suites.texts import SuiteTexts
from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.reading.names import as_name

TEMPERATURE = 0.05
BLOCK = 64


@dataclass
class RowSuite:
    """Held-out rows.

    Attributes:
        ids: the position of each row in the file, from 1.
        temperature, block: settings of the loss; the other positives of its block and its own negatives are the
            negatives of a row.
        kind, role, source, counts, metric: as in `RetrievalSuite`.
    """

    name: str
    kind: Kind
    ids: list[str]
    rows: list[Row]
    role: Role | None = None
    source: dict[str, Any] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    metric: str | None = None
    temperature: float = TEMPERATURE
    block: int = BLOCK

    options: ClassVar[frozenset[str]] = COMMON_OPTIONS | {"kind", "max_rows", "temperature", "block"}

    @property
    def members(self) -> "list[RowSuite]":
        """The tasks: only this one."""
        return [self]

    def details(self) -> dict[str, Any]:
        """Nothing beyond what every suite has."""
        return {}

    def texts(self) -> SuiteTexts:
        """Queries and positives; negatives may be in training data."""
        numbered = list(zip(self.ids, self.rows, strict=True))
        return SuiteTexts(
            self.name,
            self.fingerprint,
            [(key, row.query) for key, row in numbered],
            [(key, document) for key, row in numbered for document in row.pos],
            {key: {key} for key in self.ids},
        )

    def size(self) -> str:
        """Number of rows, in words."""
        return f"{len(self.ids):,} rows"

    def how_to_shrink(self) -> str:
        """How a person evaluates a part of it."""
        return "max_rows in a list of suites"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of kind and rows in their order, and of the settings of a loss."""
        loss = [repr(self.temperature), str(self.block)] if self.kind == "loss" else []
        return sha256_text(self.kind, content_hash(self.rows), *loss)


def load_row_suite(
    path: Path,
    kind: Kind,
    role: Role | None = None,
    *,
    temperature: float = TEMPERATURE,
    block: int = BLOCK,
    max_rows: int | None = None,
) -> RowSuite:
    """Read a JSONL file of rows as a suite of one of the two kinds; keep the first `max_rows` rows.

    Raises:
        InputError: as `read_rows`; or no row has a negative, a loss has fewer than two rows, or temperature or block
            are out of range.
    """
    if not temperature > 0.0 or block < 2:
        raise InputError(f"{path}: temperature {temperature} and block {block}: must be above 0, and at least 2 rows")
    read = read_rows(path)
    numbered = [(str(number), row) for number, row in enumerate(read.rows, start=1)]
    kept = [(key, row) for key, row in numbered if row.neg] if kind == "local-rank" else numbered
    left_out = len(numbered) - len(kept)
    if not kept:
        raise InputError(f"{path}: no row has a negative; add `neg` for a local rank test, or evaluate loss:{path}")
    kept = kept[:max_rows]
    if kind == "loss" and len(kept) < 2:
        raise InputError(f"{path}: only one row, so there are no in-batch negatives; at least two rows are needed")
    counts = {**read.counts, "rows": len(kept), "rows_without_negatives": left_out}
    name = as_name(path.name.removesuffix(".gz").removesuffix(".zst").removesuffix(".jsonl"))
    return RowSuite(
        name=f"{name}-{kind}",
        kind=kind,
        ids=[key for key, _ in kept],
        rows=[row for _, row in kept],
        role=role,
        counts=counts,
        temperature=temperature,
        block=block,
    )
