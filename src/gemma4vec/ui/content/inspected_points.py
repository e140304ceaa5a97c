"""The map of an inspection (`gemma4vec inspect --map`): documents and queries, colored by what is known of them.

Numbers of points: a query has its place among the suite's queries, N of them; a document has N plus its place. What a
sealed query scored is on no map.

Legend: n points, N queries.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.inspection.inspection_files import CLUSTERS, load_extra
from gemma4vec.inspection.predicates import parse_predicate
from gemma4vec.inspection.topics.map import DOCUMENT, MAP_POINTS, read_map
from gemma4vec.ui.content.map_points import OTHER, scale_to_unit
from gemma4vec.ui.content.query_list import difference
from gemma4vec.ui.content.stored_inspections import Columns, StoredInspection

COLORS = {
    "kind": "documents, queries, sealed queries",
    "outcome": "found or failed",
    "topic": "topic of the query",
    "rule": "in the slice or not",
    "difference": "better or worse than the other model",
}
TOPICS = 5  # with a color of their own
DOCUMENTS, SEALED = "documents", "sealed queries"
_KEPT = 4

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class InspectedMap:
    """One map.

    Attributes:
        places: float32[n, 2], from 0 to 1. number: of each point. kind: as `topics.map` has it.
        cluster: topic of a query; 255 where it has none.
        kept: share of the nearest neighbors that the map keeps; `neighbors`: how many of them. method: by which.
    """

    places: NDArray[np.float32]
    number: Ints
    kind: Ints
    cluster: Ints
    kept: float | None
    neighbors: int
    method: str


class InspectedMaps:
    """The maps that were looked at last. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Path, int], InspectedMap] = OrderedDict()

    def open(self, found: StoredInspection) -> InspectedMap | None:
        """The map of an inspection; None if it was made without one.

        Raises:
            InputError: it is damaged.
        """
        file = found.folder / MAP_POINTS
        try:
            stamp = (file, file.stat().st_mtime_ns)
        except OSError:
            return None
        with self._lock:
            if stamp not in self._kept:
                self._kept[stamp] = _read(file, int(found.about["queries"]))
            self._kept.move_to_end(stamp)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[stamp]


def _read(file: Path, queries: int) -> InspectedMap:
    try:
        header, columns = read_map(file)
        count = int(header["points"])
        kind, row = columns["kind"].astype(np.int64), columns["row"].astype(np.int64)
        places = np.stack([columns["x"], columns["y"]], axis=1)
        if len(places) != count or not np.isfinite(places).all() or (row[kind != DOCUMENT] >= queries).any():
            raise ValueError("points are missing")
        number = np.where(kind == DOCUMENT, row + queries, row)
        kept = float(header["kept_neighbors"])
        found = scale_to_unit(places), number, kind, columns["cluster"].astype(np.int64), kept
        return InspectedMap(*found, int(header["neighbors"]), str(header["method"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{file} is damaged ({reason}); inspect again with --map") from error


def color_points(
    found: StoredInspection, shown: InspectedMap, columns: Columns, color: str, rule: str, open_rows: Collection[int]
) -> tuple[list[str], Ints]:
    """(names of groups, the group of each point, [n]).

    Args:
        found, shown, columns: an inspection, its map, its queries.
        color: a key of `COLORS`. rule: of the slice to color by.
        open_rows: queries that may be shown; the others are sealed, here or in another suite that has them.

    Raises:
        InputError: an unknown color, a rule that cannot be read, or nothing to color by.
    """
    names = _by_query(found, shown, columns, color, rule, open_rows)
    is_query = shown.kind != DOCUMENT
    labels = np.full(len(shown.kind), DOCUMENTS, dtype=object)
    labels[is_query] = [names[int(number)] for number in shown.number[is_query]]
    seen = set(labels.tolist())
    order = [one for one in (DOCUMENTS, *sorted(set(names))) if one in seen and one not in (SEALED, OTHER)]
    order += [one for one in (SEALED, OTHER) if one in seen]
    places = {name: place for place, name in enumerate(order)}
    return order, np.array([places[one] for one in labels.tolist()], dtype=np.int64)


def _by_query(
    found: StoredInspection, shown: InspectedMap, columns: Columns, color: str, rule: str, open_rows: Collection[int]
) -> list[str]:
    """The group of each of the suite's queries."""
    count = len(columns["half"])
    known = set(open_rows)
    sealed = [row not in known for row in range(count)]
    if color == "kind":
        return [SEALED if one else "queries" for one in sealed]
    if color == "topic":
        return _topics(found, shown, count)
    if color == "rule":
        mask = parse_predicate(rule).mask(columns)
        return ["in the slice" if one else "not in it" for one in mask.tolist()]
    if color == "outcome":
        ranks = columns["gold_rank"]
        open_names = ["failed" if rank is None or rank > 10 else "found" for rank in ranks]
    elif color == "difference":
        if found.about["against"] is None:
            raise InputError("this inspection has no other model to differ from")
        gaps = [difference(columns, found.metric, row) or 0.0 for row in range(count)]
        open_names = ["worse" if gap < 0 else "better" if gap > 0 else "equal" for gap in gaps]
    else:
        raise InputError(f"there is no color '{color[:20]}'; choose one of {', '.join(COLORS)}")
    return [SEALED if one else name for one, name in zip(sealed, open_names, strict=True)]


def _topics(found: StoredInspection, shown: InspectedMap, count: int) -> list[str]:
    """The largest topics by name; where a query has one is no score, so sealed ones have theirs."""
    stored = load_extra(found.folder, CLUSTERS)
    try:
        names = {int(one["cluster"]): f"{one['cluster']}: {one['words']}" for one in stored["clusters"][:TOPICS]}
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{found.folder / CLUSTERS} is damaged; inspect again with --clusters") from error
    of_query = [OTHER] * count
    is_query = shown.kind != DOCUMENT
    for number, cluster in zip(shown.number[is_query].tolist(), shown.cluster[is_query].tolist(), strict=True):
        of_query[number] = names.get(cluster, OTHER)
    return of_query


def queries_among(shown: InspectedMap, chosen_n: NDArray[np.bool_]) -> list[int]:
    """Queries among the chosen points, sealed ones too, in the suite's order."""
    return sorted(shown.number[chosen_n & (shown.kind != DOCUMENT)].tolist())


def colors_of(found: StoredInspection, rule: str) -> dict[str, str]:
    """The colors that this inspection has."""
    lacking: set[Any] = set() if found.about["against"] is not None else {"difference"}
    lacking |= set() if (found.folder / CLUSTERS).is_file() else {"topic"}
    lacking |= set() if rule else {"rule"}
    return {name: words for name, words in COLORS.items() if name not in lacking}
