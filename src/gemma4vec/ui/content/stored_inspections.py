"""The inspections below a home: listed, looked up by a key, their tables read again only when they have changed."""

import contextlib
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gemma4vec.data.ngrams.language import UNDETERMINED
from gemma4vec.errors import InputError
from gemma4vec.files import sha256_text
from gemma4vec.inspection.exposures import Verdict, remedy_key, verdicts
from gemma4vec.inspection.inspection_files import DOCUMENTS, JUDGED, QUERIES, SLICES, load_columns, load_inspection
from gemma4vec.inspection.saved.saved_slices import saved_slices
from gemma4vec.inspection.slices import SPENT
from gemma4vec.ledger.journal import JOURNAL

_KEPT = 4
_LANGUAGE = re.compile("[a-z]{2,3}")
_KEPT_SELECTIONS = 16
_PATTERNS = (f"inspect/*/*/{SLICES}", f"*/inspect/*/{SLICES}")

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class StoredInspection:
    """One inspection.

    Attributes:
        key: its name in addresses.
        about, slices: contents of its JSON files.
        damaged: why it cannot be read; empty if it can.
        saved: slices that people saved. Like `opened`, only where one inspection was asked for.
        opened: slice -> what the sealed half said of it.
    """

    key: str
    folder: Path
    about: dict[str, Any]
    slices: list[dict[str, Any]]
    damaged: str = ""
    saved: list[dict[str, Any]] = field(default_factory=list)
    opened: dict[str, Verdict] = field(default_factory=dict)

    @property
    def every_slice(self) -> list[dict[str, Any]]:
        """Proposed ones, then saved ones."""
        return [*self.slices, *self.saved]

    @property
    def metric(self) -> str:
        """The metric of its slices."""
        return str(self.about["metric"])


class StoredInspections:
    """The inspections below `home`. Safe for several threads."""

    def __init__(self, home: Path):
        self._home = home
        self._lock = threading.Lock()
        self._columns: OrderedDict[tuple[Path, int], Columns] = OrderedDict()
        self._selected: OrderedDict[tuple[Path, int, Hashable], list[int]] = OrderedDict()

    def all(self) -> list[StoredInspection]:
        """Every inspection, newest first; damaged ones last."""
        found = [self._read(folder) for folder in self._folders()]
        return sorted(found, key=lambda one: str(one.about.get("created") or ""), reverse=True)

    def find(self, key: str) -> StoredInspection:
        """One inspection.

        Raises:
            InputError: there is none with this key, or it is damaged.
        """
        for folder in self._folders():
            if self._key(folder) == key:
                found = self._read(folder)
                if found.damaged:
                    raise InputError(found.damaged)
                return _with_ledger(found)
        raise InputError("there is no such inspection; the page Failures lists them")

    def columns(self, one: StoredInspection) -> Columns:
        """`queries.parquet` by columns; a value that is no number (NaN) is None, as one that nobody measured.

        Raises:
            InputError: missing or damaged.
        """
        with contextlib.suppress(OSError):
            stamp = (one.folder, (one.folder / QUERIES).stat().st_mtime_ns)
            with self._lock:
                if stamp not in self._columns:
                    self._columns[stamp] = _without_nan(load_columns(one.folder))
                self._columns.move_to_end(stamp)
                while len(self._columns) > _KEPT:
                    self._columns.popitem(last=False)
                return self._columns[stamp]
        return _without_nan(load_columns(one.folder))

    def selected(self, one: StoredInspection, wanted: Hashable, select: Callable[[], list[int]]) -> list[int]:
        """What `select` finds for filters, found once while the inspection's table and the ledger stay the same.

        Raises: what `select` raises.
        """
        try:
            stamp = (one.folder, (one.folder / QUERIES).stat().st_mtime_ns, (wanted, _journal(self._home)))
        except OSError:
            return select()
        with self._lock:
            if stamp in self._selected:
                self._selected.move_to_end(stamp)
                return self._selected[stamp]
        rows = select()
        with self._lock:
            self._selected[stamp] = rows
            while len(self._selected) > _KEPT_SELECTIONS:
                self._selected.popitem(last=False)
        return rows

    def documents(self, one: StoredInspection, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Rows of `documents.parquet` by id; none where the file cannot be read."""
        return {row["doc_id"]: row for row in _rows(one.folder / DOCUMENTS, "doc_id", keys)}

    def judged(self, one: StoredInspection, query_id: str) -> list[dict[str, Any]]:
        """Rows of `judged.parquet` of one query, found ones first; none where the file cannot be read."""
        rows = _rows(one.folder / JUDGED, "query_id", [query_id])
        return sorted(rows, key=lambda row: (row["rank"] is None, row["rank"] or 0, row["doc_id"]))

    def _folders(self) -> Iterator[Path]:
        for pattern in _PATTERNS:
            yield from (file.parent for file in sorted(self._home.glob(pattern)))

    def _key(self, folder: Path) -> str:
        return sha256_text(folder.relative_to(self._home).as_posix())[:12]

    def _read(self, folder: Path) -> StoredInspection:
        try:
            about, slices = load_inspection(folder)
        except InputError as error:
            return StoredInspection(self._key(folder), folder, {}, [], str(error))
        return StoredInspection(self._key(folder), folder, about, slices)


def same_contents(fingerprint: object, stored: Iterable[StoredInspection]) -> list[StoredInspection]:
    """The inspections of a suite's contents, by its fingerprint."""
    return [one for one in stored if not one.damaged and one.about["suite"]["fingerprint"] == fingerprint]


def named_about(about: Mapping[str, Any], name_of: Callable[[str], str]) -> dict[str, Any]:
    """The contents of `inspection.json` with the names of models as people say them."""
    sides = {
        side: None if about[side] is None else {**about[side], "name": name_of(about[side]["name"])}
        for side in ("model", "against")
    }
    means = {name_of(name): value for name, value in (about.get("discovery_means") or {}).items()}
    ids = [one["name"] for side in ("model", "against") if (one := about[side]) is not None]

    def said(sentence: str) -> str:
        for name in ids:
            sentence = sentence.replace(name, name_of(name))
        return sentence

    advice = [{**one, "what": said(one["what"]), "figure": said(one["figure"])} for one in about["advice"]]
    notes = [said(note) for note in about.get("notes") or ()]
    return {**about, **sides, "discovery_means": means, "advice": advice, "notes": notes}


def language_of(columns: Columns, row: int) -> str | None:
    """A query's language as an ISO 639 code; None where nobody knows it."""
    found = columns["language"][row] if "language" in columns else None
    return found if isinstance(found, str) and found != UNDETERMINED and _LANGUAGE.fullmatch(found) else None


def _without_nan(columns: Columns) -> Columns:
    return {
        name: [None if isinstance(one, float) and math.isnan(one) else one for one in values]
        for name, values in columns.items()
    }


def _journal(home: Path) -> tuple[int, int] | None:
    """What changes with the ledger, which knows what is sealed in other suites."""
    try:
        found = (home / JOURNAL).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _with_ledger(found: StoredInspection) -> StoredInspection:
    """The inspection with what the ledger knows by now: saved slices, and which were opened."""
    contents = found.about["suite"]["fingerprint"]
    known, saved = verdicts(contents), saved_slices(found.about)

    def now(one: dict[str, Any]) -> dict[str, Any]:
        spent = SPENT if remedy_key(one["rule"], contents) in known else one["status"]
        return {**one, "status": known[one["id"]].word if one["id"] in known else spent}

    own = {one["id"] for one in [*found.slices, *saved]}
    return replace(
        found,
        slices=[now(one) for one in found.slices],
        saved=[now(one) for one in saved],
        opened={key: verdict for key, verdict in known.items() if key in own},
    )


def _rows(file: Path, column: str, values: Sequence[str]) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = pq.read_table(
            file.absolute(), filters=[(column, "in", list(values))] if values else None
        ).to_pylist()
    except (OSError, pa.ArrowException):
        return []
    return found if values else []
