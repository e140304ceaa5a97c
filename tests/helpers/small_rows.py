"""Small synthetic rows for stores: vectors of low rank, some of them equal, with scalar fields of every type."""

import numpy as np
import pyarrow as pa

from gemma4vec.serving.store.filters import FieldType
from gemma4vec.serving.store.open_store import open_or_create
from gemma4vec.serving.store.qdrant import QdrantStore
from gemma4vec.serving.store.rows import Row, make_rows
from gemma4vec.serving.store.store_meta import StoreMeta
from gemma4vec.serving.store.vector_store import VectorStore

DIMENSION = 64
FIELDS: dict[str, FieldType] = {"language": "text", "year": "int", "Weight": "float", "checked": "bool"}
META = StoreMeta("small", "f" * 64, DIMENSION, dict(FIELDS))


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def vectors(count: int, seed: int = 0, dimension: int = DIMENSION, rank: int = 12) -> np.ndarray:
    """`[count, dimension]` unit vectors that mostly lie in `rank` directions, the same for every seed."""
    axes = np.random.default_rng(99).standard_normal((rank, dimension))
    generator = np.random.default_rng(seed)
    return unit(generator.standard_normal((count, rank)) @ axes + 0.2 * generator.standard_normal((count, dimension)))


def small_rows(count: int = 300, dimension: int = DIMENSION) -> pa.RecordBatch:
    """Rows `d0000`...; rows 40 to 69 have one vector, every seventh row has no fields."""
    found = vectors(count, dimension=dimension)
    found[40:70] = found[min(40, count - 1)]
    rows = [
        Row(
            f"d{i * 7 % count:04d}",
            f"title {i}" if i % 2 else None,
            f"text {i} ' -- \" ; DROP TABLE",
            f"{i:016x}",
            {}
            if i % 7 == 0
            else {
                "language": ["de", "en", "o'r\"", "fr"][i % 4],
                "year": 2000 + i % 25,
                "Weight": i / 8 - 3,
                "checked": i % 3 == 0,
            },
        )
        for i in range(count)
    ]
    return make_rows(rows, found, FIELDS)


def open_place(place: str) -> VectorStore:
    """Open or make the store at a location; `local-qdrant:FOLDER` is the client's local mode, which only tests use."""
    if not place.startswith("local-qdrant:"):
        return open_or_create(place, META)
    from qdrant_client import QdrantClient

    client = QdrantClient(path=place.removeprefix("local-qdrant:"))
    make = QdrantStore.open if client.collection_exists("rows") else None
    return make(client, "rows", "qdrant:local") if make else QdrantStore.create(client, "rows", META, "qdrant:local")
