"""What `/v1/search` searches: opened by one function, whatever holds the vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError


class FoundDocument(Protocol):
    """A hit."""

    def as_dict(self) -> dict[str, Any]:
        """Rank, score and the document's fields, as JSON values."""


class Searcher(Protocol):
    """Documents that can be searched by vectors."""

    def search(self, queries_ND: NDArray[np.float32], k: int, /) -> Sequence[Sequence[FoundDocument]]:
        """The `k` best documents of each query, best first."""


class OpenIndex:
    """A searcher with what `/info` says of it."""

    def __init__(self, searcher: Searcher, about: dict[str, Any]):
        self.searcher, self.about = searcher, about


def check_index(folder: Path) -> None:
    """Refuse what is no index before the model is loaded.

    Raises:
        InputError: no such folder, or not an index.
    """
    from gemma4vec.serving.search.storage import read_index

    if not folder.is_dir():
        raise InputError(
            f"--index {folder} is not a folder; give one that `gemma4vec search` has built, RUN/index/NAME"
        )
    read_index(folder)


def open_searcher(folder: Path, fingerprint: str, dimension: int) -> OpenIndex:
    """Open the index of a model.

    Raises:
        InputError: not an index, a damaged one, or one of another model.
    """
    from gemma4vec.serving.search.index import SearchIndex

    index = SearchIndex.open(folder, fingerprint)
    if index.meta.dimension != dimension:
        raise InputError(f"--index {folder} has {index.meta.dimension} dimensions, the model {dimension}; rebuild it")
    about = {"documents": index.meta.count, "dimension": index.meta.dimension, "corpus": index.meta.corpus}
    return OpenIndex(index, about)
