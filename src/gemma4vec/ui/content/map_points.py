"""A map of an index: its vectors as points of a plane, grouped by where its documents come from.

The browser gets one file: `G4VM`, the length of a JSON header and the header, then float32 x[M] and y[M] from 0 to 1,
uint32 row[M] and uint8 group[M], all little-endian. Points come in random order, so that a part of them is a sample.
"""

import json
import re
import struct
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.inspection.geometry.plane import NEIGHBORS, kept_neighbors, principal_plane
from gemma4vec.serving.search.documents import IndexedDocument
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.search.storage import VECTORS
from gemma4vec.ui.content.search_worker import Source

MAGIC = b"G4VM"
GROUPS = 7  # with a color of their own; the rest are "other"
OTHER = "other"
MOST_GROUPED = 200_000  # documents that are read for their groups
MOST_CORNERS = 80  # of a lasso
_KEPT = 2
_PREFIX = re.compile(r"[^/:#]+")


@dataclass(frozen=True)
class MapPoints:
    """One map.

    Attributes:
        kept: share of the ten nearest neighbors that the plane keeps; None for few documents.
        groups: (name, number of documents), largest first.
        rows_of: rows of each group, in the index's order.
        places: of each document, float32[M, 2] from 0 to 1.
    """

    count: int
    kept: float | None
    groups: list[tuple[str, int]]
    rows_of: list[NDArray[np.int64]]
    data: bytes
    places: NDArray[np.float32]

    @property
    def neighbors(self) -> int:
        """Of how many neighbors `kept` speaks."""
        return NEIGHBORS


class Maps:
    """The maps that were looked at last. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, int], tuple[MapPoints, SearchIndex]] = OrderedDict()

    def open(self, source: Source) -> tuple[MapPoints, SearchIndex]:
        """The map of an index, made when it is first asked for.

        Raises:
            InputError: the index is damaged.
        """
        index = SearchIndex.open(source.folder)
        stamp = (source.folder, (source.folder / VECTORS).stat().st_mtime_ns)
        with self._lock:
            if stamp not in self._kept:
                self._kept[stamp] = make_map(index), index
            self._kept.move_to_end(stamp)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[stamp]


def make_map(index: SearchIndex) -> MapPoints:
    """Compute a map."""
    plane_M2 = principal_plane(index.vectors_MD)
    names, group_M = group_documents(index.documents) if index.count <= MOST_GROUPED else (["all"], _zeros(index.count))
    counts = np.bincount(group_M, minlength=len(names))
    order_M = np.random.default_rng(0).permutation(index.count)
    scaled_M2 = scale_to_unit(plane_M2)
    data = pack_points(names, scaled_M2[order_M], order_M, group_M[order_M])
    groups = list(zip(names, counts.tolist(), strict=True))
    rows_of = [np.flatnonzero(group_M == number) for number in range(len(names))]
    kept = kept_neighbors(index.vectors_MD, plane_M2)
    return MapPoints(index.count, kept, groups, rows_of, data, scaled_M2)


def scale_to_unit(plane_M2: NDArray[np.float32]) -> NDArray[np.float32]:
    """Places from 0 to 1 on both axes."""
    if not len(plane_M2):
        return plane_M2
    low_2, high_2 = plane_M2.min(axis=0), plane_M2.max(axis=0)
    return np.asarray((plane_M2 - low_2) / np.maximum(high_2 - low_2, 1e-9), dtype=np.float32)


def pack_points(
    names: Sequence[str], places_M2: NDArray[np.float32], row_M: NDArray[Any], group_M: NDArray[Any]
) -> bytes:
    """The file of a map, of points in random order."""
    header = json.dumps({"count": len(places_M2), "groups": list(names)}).encode()
    header += b" " * (-(len(header)) % 4)
    columns = [places_M2[:, 0].astype("<f4"), places_M2[:, 1].astype("<f4"), row_M.astype("<u4"), group_M.astype("u1")]
    return b"".join((MAGIC, struct.pack("<I", len(header)), header, *(one.tobytes() for one in columns)))


def parse_lasso(given: str) -> list[tuple[float, float]]:
    """The corners of a polygon in an address, `x,y,x,y,...`, as places from 0 to 1; none for an empty one.

    Raises:
        InputError: no numbers, fewer than three corners or too many.
    """
    if not given:
        return []
    parts = given.split(",")
    try:
        if not 6 <= len(parts) <= 2 * MOST_CORNERS or len(parts) % 2:
            raise ValueError(f"{len(parts)} numbers")
        numbers = [float(part) for part in parts if len(part) < 20]
        if len(numbers) != len(parts) or not all(-100.0 < one < 100.0 for one in numbers):
            raise ValueError("far away")
    except ValueError as error:
        raise InputError(f"the lasso is no polygon of 3 to {MOST_CORNERS} corners (x,y,...); draw it again") from error
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def group_documents(documents: Sequence[IndexedDocument]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the groups, largest first, and the group of each document: the first part of its path or id."""
    prefixes = [_group(one) for one in documents]
    common = [name for name, count in Counter(prefixes).most_common(GROUPS) if count > 1]
    places = {name: place for place, name in enumerate(common)}
    group_M = np.array([places.get(name, len(common)) for name in prefixes], dtype=np.int64)
    return [*common, *([OTHER] if (group_M == len(common)).any() else [])] or [OTHER], group_M


def _group(document: IndexedDocument) -> str:
    found = _PREFIX.match(document.path or document.id)
    return found[0][:60] if found else OTHER


def _zeros(count: int) -> NDArray[np.int64]:
    return np.zeros(count, dtype=np.int64)
