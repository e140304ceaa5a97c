"""What `/v1/search` searches: an index folder or a vector store, opened by one function."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.serving.store.filters import Filter


class FoundDocument(Protocol):
    """A hit."""

    def as_dict(self) -> dict[str, Any]:
        """Rank, score and the document's fields, as JSON values."""


class Searcher(Protocol):
    """Documents that can be searched by vectors."""

    def search(
        self, queries_ND: NDArray[np.float32], k: int, where: "Filter | None" = None, /
    ) -> Sequence[Sequence[FoundDocument]]:
        """The `k` best documents of each query that match, best first."""


class OpenIndex:
    """A searcher with what `/info` says of it."""

    def __init__(self, searcher: Searcher, about: dict[str, Any]):
        self.searcher, self.about = searcher, about


def check_index(location: str) -> None:
    """Refuse what is no index before the model is loaded.

    Raises:
        InputError: no such folder, or neither an index nor a store.
        WorkError: a database that cannot be reached.
    """
    from gemma4vec.serving.search.storage import META, read_index
    from gemma4vec.serving.store.open_store import open_store, parse_location
    from gemma4vec.serving.store.own_files import STORE

    found = parse_location(location)
    folder = Path(found.address)
    if found.kind == "files" and not folder.is_dir():
        raise InputError(
            f"--index {location} is not a folder; give one that `gemma4vec search` or `gemma4vec index` has built"
        )
    if found.kind == "files" and ((folder / META).is_file() or not (folder / STORE).is_file()):
        read_index(folder)
    else:
        open_store(location).close()


def open_searcher(location: str, fingerprint: str, dimension: int) -> OpenIndex:
    """Open the index or the store of a model.

    Raises:
        InputError: neither an index nor a store, a damaged one, or one of another model.
        WorkError: a database that cannot be reached.
    """
    from gemma4vec.serving.search.index import SearchIndex
    from gemma4vec.serving.search.store_index import open_index_at

    index = open_index_at(location, fingerprint)
    meta = index.meta if isinstance(index, SearchIndex) else index.store.meta
    if meta.dimension != dimension:
        raise InputError(f"--index {location} has {meta.dimension} dimensions, the model {dimension}; rebuild it")
    about: dict[str, Any] = {"documents": index.count, "dimension": meta.dimension}
    if isinstance(index, SearchIndex):
        about["corpus"] = index.meta.corpus
    else:
        gate = index.store.meta.gate
        about |= {"location": index.store.location, "index": index.store.meta.index}
        about["recall"] = None if gate is None else {**vars(gate), "passed": gate.passed}
    return OpenIndex(index, about)
