"""The interface of every vector store: what a database must do. Checks, ties and recall are shared: `search_store.py`,
`recall_gate.py`.

Shapes: N queries, D dimension, C candidates of a query.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gemma4vec.serving.store.filters import Filter
from gemma4vec.serving.store.rows import Row
from gemma4vec.serving.store.store_meta import Parameters, StoreMeta

Progress = Callable[[int, int], None]  # rows done, rows in all
INDEX_CHOICES = ("auto", "exact")  # every store has these; "auto" tries `preferred`


@dataclass(frozen=True)
class Candidates:
    """Rows that a store found for one query, in its own order.

    Attributes:
        ids: C ids.
        vectors_CD: their vectors at full precision, float32[C, D].
        complete: whether these are all rows that match.
    """

    ids: list[str]
    vectors_CD: NDArray[np.float32]
    complete: bool


class VectorStore(Protocol):
    """Rows with vectors in one place. One process adds at a time; any number of them search."""

    @property
    def location(self) -> str:
        """Where it is, for people; without a password."""

    @property
    def meta(self) -> StoreMeta:
        """Its description."""

    @property
    def indexes(self) -> tuple[str, ...]:
        """Kinds of index that it can build, besides "auto" and "exact"."""

    def add(self, rows: pa.RecordBatch) -> None:
        """Add checked rows; a row whose id is stored replaces it. When it returns, a killed process loses nothing.

        The same rows may be added any number of times, also after a kill in the middle: the content is the same.
        """

    def contents(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the content hash of those ids that are stored, also before a build."""

    def count(self) -> int:
        """Return the number of rows, also of those added since the last build."""

    def build(self, index: str, progress: Progress) -> str:
        """Make all rows searchable and index them with "exact" or one of `indexes`; return what was built.

        Without rows "exact" is built.
        """

    def preferred(self) -> tuple[str, ...]:
        """Return the kinds of index that suit its size, for "auto": tried in turn until one reaches the target."""

    def ladder(self) -> list[Parameters]:
        """Return search parameters from cheap to costly, for the index that was built; none for "exact"."""

    def candidates(
        self,
        queries_ND: NDArray[np.float32],
        count: int,
        where: Filter | None,
        parameters: Parameters | None,
    ) -> list[Candidates]:
        """Return the `count` best matching rows of each query by inner product; all of them if fewer match.

        With `parameters` by the index, with None exactly.
        """

    def scan(self, rows: int = 8192) -> Iterator[pa.RecordBatch]:
        """Yield `id` and `vector` of all searchable rows, at most `rows` at once, in any order."""

    def rows(self, ids: Sequence[str]) -> list[Row]:
        """Return stored rows in the order of `ids`."""

    def describe(self, meta: StoreMeta) -> None:
        """Replace the description."""

    def close(self) -> None:
        """Release files and connections."""

    def drop(self) -> None:
        """Remove the store and all its rows."""
