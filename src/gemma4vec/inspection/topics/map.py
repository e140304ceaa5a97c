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
from gemma4vec.inspection.geometry.plane import NEIGHBORS, kept_neighbors, principal_plane

MAP_POINTS = "map.bin"
DOCUMENTS = 50_000
TSNE, PCA = "t-SNE", "PCA"
DOCUMENT, DISCOVERY_QUERY, SEALED_QUERY = 0, 1, 2
NOT_KNOWN = 255  # of cluster and failed: a document, or a sealed query
COLUMNS = {"x": "<f4", "y": "<f4", "row": "<u4", "kind": "u1", "cluster": "u1", "failed": "u1"}
Floats = npt.NDArray[np.floating]


def lay_out_points(vectors_nD: Floats, method: str | None = None, seed: int = 0) -> tuple[npt.NDArray[np.float32], str]:
    """Places of vectors in two dimensions, float32[n, 2], and the method: t-SNE with openTSNE, or PCA."""
    vectors = np.asarray(vectors_nD, dtype=np.float32)
    tsne = _open_tsne() if method != PCA and len(vectors) > 3 * NEIGHBORS else None
    if tsne is None:
        return principal_plane(vectors, seed=seed), PCA
    perplexity = min(30.0, (len(vectors) - 1) / 3.0)
    made = tsne(metric="cosine", perplexity=perplexity, random_state=seed, initialization="pca").fit(vectors)
    return np.asarray(made, dtype=np.float32), TSNE


def share_kept(vectors_nD: Floats, places_n2: Floats, seed: int = 0) -> float:
    """`plane.kept_neighbors`; 1 where there are no more points than neighbors."""
    kept = kept_neighbors(np.asarray(vectors_nD, dtype=np.float32), np.asarray(places_n2), seed=seed)
    return 1.0 if kept is None else kept


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
    kept = share_kept(vectors, places, seed)
    by_axes = kept if method == PCA else share_kept(vectors, principal_plane(vectors, seed=seed), seed)
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
        "kept_neighbors": kept,
        "kept_by_axes": by_axes,
        "neighbors": NEIGHBORS,
        "documents": m,
        "queries": n,
        "kinds": kinds,
        "not_known": NOT_KNOWN,
        "groups": map_groups(places, columns),
    }
    return MapPoints(places, columns, about, seed)


def map_groups(places_n2: Floats, columns: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    """The map as a table: documents, then the queries of each topic (`cluster`, None without one).

    `open` and `failed` count queries of the open half; `x` and `y` are the group's mean place.
    """
    is_query, cluster = columns["kind"] != DOCUMENT, columns["cluster"]
    groups: list[tuple[str, int | None, npt.NDArray[np.bool_]]] = [("documents", None, ~is_query)]
    groups += [
        ("queries", int(one) if one != NOT_KNOWN else None, is_query & (cluster == one))
        for one in np.unique(cluster[is_query])
    ]
    found = []
    for name, number, mask in groups:
        opened = mask & (columns["kind"] == DISCOVERY_QUERY)
        found.append(
            {
                "group": name,
                "cluster": number,
                "points": int(mask.sum()),
                "open": int(opened.sum()),
                "failed": int((columns["failed"][opened] == 1).sum()),
                "x": float(places_n2[mask, 0].mean()) if mask.any() else None,
                "y": float(places_n2[mask, 1].mean()) if mask.any() else None,
            }
        )
    return found


def _open_tsne() -> Any:
    """openTSNE's class; None where the extra `map` is not installed."""
    try:
        from openTSNE import TSNE
    except ImportError:
        return None
    return TSNE
