"""Semantic textual similarity (STS): pairs of sentences with human judgments of their similarity.

The file format is TSV with the header `split, score, sentence1, sentence2`, without quoting, optionally gzipped.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from gemma4vec.data.rows.jsonl import explain_not_utf8, raw_lines
from gemma4vec.data.rows.rows import clean_text
from gemma4vec.data.suites.kinds import Kind, Role
from gemma4vec.data.suites.suite import COMMON_OPTIONS
from gemma4vec.data.suites.texts import SuiteTexts
from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.reading.names import as_name

COLUMNS = ("split", "score", "sentence1", "sentence2")
MIN_PAIRS = 4  # a correlation of fewer pairs means nothing


@dataclass
class StsSuite:
    """Pairs and their judgments.

    Attributes:
        ids: a unique id for each pair, from its split and line.
        first, second: the two sentences of each pair.
        gold: human similarity of each pair, on any scale.
        role, source, counts, metric: as in `RetrievalSuite`.
    """

    name: str
    ids: list[str]
    first: list[str]
    second: list[str]
    gold: list[float]
    role: Role | None = None
    source: dict[str, Any] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    metric: str | None = None
    kind: Kind = "sts"

    options: ClassVar[frozenset[str]] = COMMON_OPTIONS | {"split"}

    @property
    def members(self) -> "list[StsSuite]":
        """The tasks: only this one."""
        return [self]

    def details(self) -> dict[str, Any]:
        """Nothing beyond what every suite has."""
        return {}

    def texts(self) -> SuiteTexts:
        """Both sentences of every pair, as queries."""
        pairs = [*zip(self.ids, self.first, strict=True), *zip(self.ids, self.second, strict=True)]
        return SuiteTexts(self.name, self.fingerprint, pairs, [], {})

    def size(self) -> str:
        """Number of pairs, in words."""
        return f"{len(self.ids):,} pairs"

    def how_to_shrink(self) -> str:
        """How a person evaluates a part of it."""
        return "a shorter file"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of sentences and judgments, whatever their order."""
        pairs = sorted(zip(self.first, self.second, map(repr, self.gold), strict=True))
        return sha256_text("sts", *(part for pair in pairs for part in pair))


def load_sts(path: Path, split: str | None = None, role: Role | None = None) -> StsSuite:
    """Read one split of a TSV file; by default `test` if the file has it, else all splits together.

    Raises:
        InputError: the file or split does not exist, a line is malformed, there are fewer than four pairs, or all
            judgments are equal.
    """
    path = Path(path)
    rows = _read_rows(path)
    splits = sorted({row[0] for _, row in rows})
    chosen = split or ("test" if "test" in splits else None)
    if chosen is not None and chosen not in splits:
        raise InputError(f"{path}: no split {chosen!r}; it has {', '.join(splits)}")
    kept = [(f"{row[0]}-{line}", row) for line, row in rows if chosen is None or row[0] == chosen]
    name = as_name(path.name.removesuffix(".gz").removesuffix(".tsv"))
    return make_sts(
        name if split is None else f"{name}-{split}",
        [key for key, _ in kept],
        [(row[2], row[3]) for _, row in kept],
        [parse_score(row[1], f"{path} line {key.rpartition('-')[2]}") for key, row in kept],
        str(path),
        role,
    )


def make_sts(
    name: str,
    ids: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    gold: Sequence[float],
    where: str,
    role: Role | None = None,
) -> StsSuite:
    """Make a suite from pairs; `where` names their file in errors.

    Raises:
        InputError: there are fewer than four pairs, or all judgments are equal.
    """
    if len(pairs) < MIN_PAIRS:
        raise InputError(f"{where}: {len(pairs)} pairs; at least {MIN_PAIRS} are needed for a correlation")
    if min(gold) == max(gold):
        raise InputError(f"{where}: all {len(gold)} judgments are {gold[0]:g}; a correlation needs different ones")
    counts: Counter[str] = Counter(empty=0, overlong=0, control=0)
    first = [clean_text(one, counts) for one, _ in pairs]
    second = [clean_text(other, counts) for _, other in pairs]
    counts["pairs"] = len(pairs)
    return StsSuite(name, list(ids), first, second, list(gold), role, None, dict(counts))


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read line number (from 1) and cells of every line after the header."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; a TSV with {', '.join(COLUMNS)} is needed")
    lines: list[tuple[int, list[str]]] = []
    for number, raw in raw_lines(path):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} line {number}: {explain_not_utf8(error, raw)}") from error
        lines.append((number, text.rstrip("\r\n").split("\t")))
    if not lines or tuple(lines[0][1]) != COLUMNS:
        raise InputError(f"{path} line 1: the header must be {', '.join(COLUMNS)}, separated by tabs")
    for number, cells in lines[1:]:
        if len(cells) != len(COLUMNS):
            raise InputError(f"{path} line {number}: {len(cells)} cells; {', '.join(COLUMNS)} are needed")
    return lines[1:]


def parse_score(cell: object, where: str) -> float:
    """A human judgment from a cell of a text file or a table.

    Raises:
        InputError: not a finite number.
    """
    try:
        value = math.nan if isinstance(cell, bool) else float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: score {repr(cell)[:60]} is not a number")
    return value
