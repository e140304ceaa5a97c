"""The files of an index folder, and checks that they are complete.

vectors.npy       float32[M, D], unit rows, memory-mapped
documents.jsonl   id, text, title, path, line
offsets.npy       int64[M + 1], start of each document's line
meta.json         the model and the documents of the vectors
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import write_json
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.retrieval.unit_rows import find_unit_rows
from gemma4vec.serving.search.documents import DocumentStore, IndexedDocument

VECTORS = "vectors.npy"
META = "meta.json"
FORMAT = 1


@dataclass(frozen=True)
class IndexMeta:
    """The description of an index. `corpus` is the hash of its documents, `source` the hash of their origin."""

    model: str
    fingerprint: str
    dimension: int
    count: int
    corpus: str
    source: str | None = None
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write `meta.json`."""
        write_json(folder / META, asdict(self))

    @staticmethod
    def read(folder: Path) -> "IndexMeta":
        """Read `meta.json`.

        Raises:
            OSError, ValueError, TypeError, KeyError: missing, or not a `meta.json` of this format.
        """
        value = load_own_json(folder / META)
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']}, this version reads {FORMAT}")
        meta = IndexMeta(**value)
        texts = (meta.model, meta.fingerprint, meta.corpus, meta.source or "")
        if not all(isinstance(one, str) for one in texts) or not all(
            type(one) is int and one >= 0 for one in (meta.dimension, meta.count)
        ):
            raise ValueError(f"{META} has values of other types")
        return meta


def read_index(folder: Path) -> tuple[IndexMeta, NDArray[np.float32], DocumentStore]:
    """Read description, memory-mapped vectors [M, D] and documents of an index.

    Raises:
        InputError: not an index, or a damaged index.
    """
    remedy = f"delete {folder} and rebuild it"
    if not (folder / META).is_file():
        raise InputError(f"{folder} is not a search index (no {META}); build one with `gemma4vec search RUN --all`")
    try:
        meta = IndexMeta.read(folder)
        vectors_MD = _map_vectors(folder / VECTORS, meta)
        documents = DocumentStore(folder)
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise InputError(f"the search index {folder} is damaged ({error}); {remedy}") from error
    if len(documents) != meta.count:
        raise InputError(
            f"the search index {folder} is damaged ({len(documents)} documents, {META} says {meta.count}); {remedy}"
        )
    return meta, vectors_MD, documents


def make_vectors_header(meta: IndexMeta) -> bytes:
    """Return the first bytes of `vectors.npy`. Comparing them is safer than parsing a damaged file."""
    stream = io.BytesIO()
    shape = (meta.count, meta.dimension)
    npy.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _map_vectors(path: Path, meta: IndexMeta) -> NDArray[np.float32]:
    """Map the rows of `vectors.npy` [M, D] into memory; ValueError if header or size do not match `meta`."""
    header = make_vectors_header(meta)
    with path.open("rb") as stream:
        same = stream.read(len(header)) == header
    size = path.stat().st_size
    if not same or size != len(header) + 4 * meta.count * meta.dimension:
        raise ValueError(f"{VECTORS} does not hold {meta.count} vectors of dimension {meta.dimension}")
    return np.memmap(path, dtype="<f4", mode="r", offset=len(header), shape=(meta.count, meta.dimension))


def check_unit_rows(vectors_MD: NDArray[np.float32], documents: Sequence[IndexedDocument]) -> None:
    """Check that all rows are finite and of unit length.

    Raises:
        WorkError: some are not; the message has their number and the first document.
    """
    bad = np.flatnonzero(~find_unit_rows(vectors_MD))
    if len(bad):
        first = int(bad[0])
        raise WorkError(
            f"{len(bad)} of {len(vectors_MD)} document vectors are not finite or not of unit length (first: "
            f"{documents[first].id!r}, length {np.linalg.norm(vectors_MD[first]):.3g}); the model or its dtype is "
            f"broken, check it with `gemma4vec doctor`"
        )
