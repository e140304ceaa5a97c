"""A map of a suite in two dimensions, with the share of true neighbors that it keeps printed on it.

Two dimensions show topics, not neighbors (Chari & Pachter 2023): t-SNE kept 39% of the ten nearest of 1,276 vectors,
PCA 4%. Evidence comes from the vectors themselves.

`map.bin`: 4 bytes, the length of the header (uint32, little-endian); the header as JSON; then columns one after the
other, points in a random order, so that any beginning of them is a sample: `x`, `y` (float32), `row` (uint32, place in
the suite), `kind`, `cluster`, `failed` (uint8). `map.json` is the header.

Legend: n points, D dimensions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.files import atomic_write

MAP_POINTS = "map.bin"
DOCUMENTS = 50_000
NEIGHBORS, CHECKED = 10, 500
DOCUMENT, DISCOVERY_QUERY, SEALED_QUERY = 0, 1, 2
NOT_KNOWN = 255  # of cluster and failed: a document, or a sealed query
COLUMNS = {"x": "<f4", "y": "<f4", "row": "<u4", "kind": "u1", "cluster": "u1", "failed": "u1"}
Floats = npt.NDArray[np.floating]


def lay_out_points(vectors_nD: Floats, method: str = "auto", seed: int = 0) -> tuple[npt.NDArray[np.float32], str]:
    """Places of vectors in two dimensions, float32[n, 2], and the method: "t-SNE" with openTSNE, or "PCA"."""
    vectors = np.asarray(vectors_nD, dtype=np.float32)
    tsne = _open_tsne() if method in ("auto", "t-SNE") and len(vectors) > 3 * NEIGHBORS else None
    if tsne is None:
        return principal_plane(vectors), "PCA"
    perplexity = min(30.0, (len(vectors) - 1) / 3.0)
    made = tsne(metric="cosine", perplexity=perplexity, random_state=seed, initialization="pca").fit(vectors)
    return np.asarray(made, dtype=np.float32), "t-SNE"


def principal_plane(vectors_nD: Floats) -> npt.NDArray[np.float32]:
    """The two main axes; signs are such that the largest entry of each axis is positive."""
    centered = np.asarray(vectors_nD, dtype=np.float64)
    centered = centered - centered.mean(axis=0)
    _, axes_DD = np.linalg.eigh(centered.T @ centered)
    plane_D2 = axes_DD[:, ::-1][:, :2]
    plane_D2 = plane_D2 * np.sign(plane_D2[np.abs(plane_D2).argmax(axis=0), [0, 1]])
    return np.asarray(centered @ plane_D2, dtype=np.float32)


def kept_neighbors(vectors_nD: Floats, places_n2: Floats, *, seed: int = 0) -> float:
    """Share of the ten nearest by cosine that are among the ten nearest on the map, a mean over sampled points."""
    n = len(vectors_nD)
    k = min(NEIGHBORS, n - 1)
    if k < 1:
        return 1.0
    drawn = np.random.default_rng(seed).permutation(n)[:CHECKED]
    vectors, places = (np.asarray(one, dtype=np.float64) for one in (vectors_nD, places_n2))
    cosines = vectors[drawn] @ vectors.T
    distances = _distances(places, drawn)
    rows = np.arange(len(drawn))
    cosines[rows, drawn], distances[rows, drawn] = -np.inf, np.inf
    near = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    shown = np.argpartition(distances, k - 1, axis=1)[:, :k]
    shared = [len(set(one) & set(other)) for one, other in zip(near.tolist(), shown.tolist(), strict=True)]
    return float(np.mean(shared)) / k


@dataclass(frozen=True)
class MapPoints:
    """A map that is to be written.

    Attributes:
        places: float32[n, 2].
        columns: `row`, `kind`, `cluster`, `failed`, [n] each.
        about: further fields of the header.
        seed: of the random order.
    """

    places: npt.NDArray[np.float32]
    columns: Mapping[str, Any]
    about: Mapping[str, Any]
    seed: int


def write_points(folder: Path, found: MapPoints) -> dict[str, Any]:
    """Write `map.bin`; return its header, the contents of `map.json`."""
    order = np.random.default_rng(found.seed).permutation(len(found.places))
    arrays = {"x": found.places[:, 0], "y": found.places[:, 1], **found.columns}
    header = {**found.about, "points": len(found.places), "columns": COLUMNS}
    encoded = json.dumps(header).encode()
    with atomic_write(folder / MAP_POINTS, "wb") as stream:
        stream.write(len(encoded).to_bytes(4, "little") + encoded)
        for name, kind in COLUMNS.items():
            stream.write(np.ascontiguousarray(np.asarray(arrays[name])[order], dtype=kind).tobytes())
    return header


def read_map(file: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The header and the columns of a `map.bin`.

    Raises:
        ValueError: the file is cut off.
    """
    data = file.read_bytes()
    at = 4 + int.from_bytes(data[:4], "little")
    header: dict[str, Any] = json.loads(data[4:at])
    columns = {}
    for name, kind in header["columns"].items():
        size = header["points"] * np.dtype(kind).itemsize
        columns[name] = np.frombuffer(data[at : at + size], dtype=kind)
        at += size
    return header, columns


def map_suite(
    documents_MD: Floats,
    document_rows: npt.NDArray[np.int64],
    queries_ND: Floats,
    open_N: npt.NDArray[np.bool_],
    clusters_N: npt.NDArray[np.int64],
    failed_N: npt.NDArray[np.bool_],
    seed: int = 0,
) -> MapPoints:
    """A map of documents (a sample of many) and all queries; what a sealed query scored is not on it.

    `clusters_N` are the queries' topics, `NOT_KNOWN` where there is none.
    """
    vectors = np.concatenate([documents_MD, queries_ND]).astype(np.float32)
    places, method = lay_out_points(vectors, seed=seed)
    m, n = len(documents_MD), len(queries_ND)
    no_document = np.full(m, NOT_KNOWN)
    columns = {
        "row": np.concatenate([document_rows, np.arange(n)]),
        "kind": np.concatenate([np.full(m, DOCUMENT), np.where(open_N, DISCOVERY_QUERY, SEALED_QUERY)]),
        "cluster": np.concatenate([no_document, clusters_N]),
        "failed": np.concatenate([no_document, np.where(open_N, failed_N.astype(np.int64), NOT_KNOWN)]),
    }
    kinds = {"document": DOCUMENT, "discovery query": DISCOVERY_QUERY, "sealed query": SEALED_QUERY}
    about = {
        "method": method,
        "kept_neighbors": kept_neighbors(vectors, places, seed=seed),
        "neighbors": NEIGHBORS,
        "documents": m,
        "queries": n,
        "kinds": kinds,
        "not_known": NOT_KNOWN,
    }
    return MapPoints(places, columns, about, seed)


def _distances(places_n2: npt.NDArray[np.float64], drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Squared distances of sampled points to all, without an array of three axes."""
    squares = (places_n2**2).sum(axis=1)
    found: npt.NDArray[np.float64] = squares[drawn][:, None] + squares[None] - 2.0 * places_n2[drawn] @ places_n2.T
    return found


def _open_tsne() -> Any:
    """openTSNE's class; None where the extra `map` is not installed."""
    try:
        from openTSNE import TSNE
    except ImportError:
        return None
    return TSNE
