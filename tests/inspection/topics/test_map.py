"""Places in two dimensions, and their file."""

from pathlib import Path

import numpy as np
import pytest

from gemma4vec.inspection.geometry.plane import principal_plane
from gemma4vec.inspection.topics.map import MapPoints, lay_out_points, map_suite, read_map, share_kept, write_points

GENERATOR = np.random.default_rng(0)
VECTORS = GENERATOR.normal(size=(120, 8)) * np.array([5, 4, 1, 1, 1, 1, 1, 1])
UNIT = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float32)


def mapped() -> dict[str, object]:
    """The header of a map of 80 documents and 40 queries."""
    half = np.arange(40) % 2 == 0
    found = map_suite(UNIT[:80], np.arange(80), UNIT[80:], half, np.zeros(40, dtype=np.int64), ~half)
    return dict(found.about)


def test_without_the_extra_the_map_is_pca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma4vec.inspection.topics.map._open_tsne", lambda: None)
    places, method = lay_out_points(UNIT)
    assert method == "PCA" and np.array_equal(places, principal_plane(UNIT))
    about = mapped()
    assert about["kept_by_axes"] == about["kept_neighbors"] == share_kept(UNIT, places)
    assert share_kept(UNIT[:5], places[:5]) == 1.0


def test_tsne_keeps_more_neighbors() -> None:
    pytest.importorskip("openTSNE", reason="the extra `map` is not installed (openTSNE)")
    places, method = lay_out_points(UNIT)
    assert method == "t-SNE" and np.isfinite(places).all()
    assert np.array_equal(lay_out_points(UNIT)[0], places)  # the seed decides
    about = mapped()
    assert about["method"] == "t-SNE" and about["kept_neighbors"] == share_kept(UNIT, places)
    assert about["kept_by_axes"] == share_kept(UNIT, principal_plane(UNIT)) < share_kept(UNIT, places)


@pytest.mark.parametrize("vectors", [np.tile(UNIT[:1], (60, 1)), np.repeat(UNIT[:4], 20, axis=0), UNIT[:31]])
def test_tsne_of_equal_and_few_vectors(vectors: np.ndarray) -> None:
    pytest.importorskip("openTSNE", reason="the extra `map` is not installed (openTSNE)")
    places, _ = lay_out_points(vectors)
    assert places.shape == (len(vectors), 2) and np.isfinite(places).all()


def test_points_come_back_in_a_random_order(tmp_path: Path) -> None:
    places = principal_plane(UNIT)
    columns = {"row": np.arange(120), "kind": np.ones(120), "cluster": np.full(120, 255), "failed": np.zeros(120)}
    header = write_points(tmp_path, MapPoints(places, columns, {"method": "PCA"}, 3))
    stored, found = read_map(tmp_path / "map.bin")
    assert stored == header and header["points"] == 120 and sorted(found["row"].tolist()) == list(range(120))
    np.testing.assert_array_equal(found["x"], places[found["row"], 0])
    assert found["row"].tolist() != list(range(120)) and found["cluster"].dtype == np.uint8
