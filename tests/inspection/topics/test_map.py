"""Places in two dimensions against scikit-learn's neighbors and PCA by SVD."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from gemma4vec.inspection.topics.map import (
    MapPoints,
    kept_neighbors,
    lay_out_points,
    principal_plane,
    read_map,
    write_points,
)

GENERATOR = np.random.default_rng(0)
VECTORS = GENERATOR.normal(size=(120, 8)) * np.array([5, 4, 1, 1, 1, 1, 1, 1])
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)


def test_the_main_plane_is_that_of_the_svd() -> None:
    found = principal_plane(UNIT)
    centered = UNIT - UNIT.mean(axis=0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    for axis in range(2):
        expected = centered @ axes[axis]
        sign = np.sign(expected @ found[:, axis])
        np.testing.assert_allclose(found[:, axis], sign * expected, atol=1e-5)


def test_kept_neighbors_are_scikit_learns() -> None:
    places = principal_plane(UNIT)
    near = NearestNeighbors(n_neighbors=11).fit(UNIT).kneighbors(UNIT, return_distance=False)[:, 1:]
    shown = NearestNeighbors(n_neighbors=11).fit(places).kneighbors(places, return_distance=False)[:, 1:]
    expected = np.mean(
        [len(set(one) & set(other)) / 10 for one, other in zip(near.tolist(), shown.tolist(), strict=True)]
    )
    assert kept_neighbors(UNIT, places) == pytest.approx(expected)
    flat = UNIT[:, :2] / np.linalg.norm(UNIT[:, :2], axis=1, keepdims=True)
    assert kept_neighbors(flat, flat) == 1.0
    assert kept_neighbors(UNIT[:1], places[:1]) == 1.0


def test_without_the_extra_the_map_is_pca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma4vec.inspection.topics.map._open_tsne", lambda: None)
    places, method = lay_out_points(UNIT)
    assert method == "PCA" and places.shape == (120, 2)


def test_tsne_keeps_more_neighbors() -> None:
    pytest.importorskip("openTSNE")
    places, method = lay_out_points(UNIT)
    assert method == "t-SNE" and kept_neighbors(UNIT, places) > kept_neighbors(UNIT, principal_plane(UNIT))


def test_points_come_back_in_a_random_order(tmp_path: Path) -> None:
    places = principal_plane(UNIT)
    columns = {"row": np.arange(120), "kind": np.ones(120), "cluster": np.full(120, 255), "failed": np.zeros(120)}
    header = write_points(tmp_path, MapPoints(places, columns, {"method": "PCA"}, 3))
    stored, found = read_map(tmp_path / "map.bin")
    assert stored == header and header["points"] == 120 and sorted(found["row"].tolist()) == list(range(120))
    np.testing.assert_array_equal(found["x"], places[found["row"], 0])
    assert found["row"].tolist() != list(range(120)) and found["cluster"].dtype == np.uint8
