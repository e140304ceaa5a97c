"""One walk to look at: the same points and texts as the table's walk, and no way where there is none."""

import numpy as np
import pytest
from fanout_setting import VARIED, make

from gemma4vec.errors import InputError
from gemma4vec.fanout.methods import METHODS, TO_HITS
from gemma4vec.fanout.one_walk import rank_targets, walk_query
from gemma4vec.fanout.walk import changes, mean_direction, way


def test_the_walk_to_the_first_hits_is_that_of_the_table() -> None:
    setting = make(log=VARIED, feedback=2)
    method = METHODS[TO_HITS]
    assert method.texts is not None
    walks = method.texts(setting)
    for row, texts in list(enumerate(walks))[1:8:2]:  # the first two hits of the others are as near as others
        query = setting.suite.queries[row]
        found = walk_query(setting.embedder, setting.writer, setting.choices, query, None, setting.suite)
        assert [step["text"] for step in found["steps"]] == texts


def test_steps_have_angles_and_cosines_by_hand() -> None:
    setting = make()
    found = walk_query(setting.embedder, setting.writer, setting.choices, "find kabra", "lobra mibra", None)
    start_d = setting.embedder.encode_query(["find kabra"])[0]
    end_d = setting.embedder.encode_query(["lobra mibra"])[0]
    assert found["degrees"] == pytest.approx(np.degrees(np.arccos(start_d @ end_d)), abs=1e-3)
    assert found["points"] == min(20, round(found["degrees"] / 4)) == len(way(start_d, end_d, 4, 20)[0])
    last = found["steps"][-1]
    vector_d = setting.embedder.encode_query([last["text"]])[0]
    assert last["to_query"] == pytest.approx(float(vector_d @ start_d), abs=1e-6)
    assert last["to_target"] == pytest.approx(float(vector_d @ end_d), abs=1e-6)
    angles, points_Kd = way(start_d, end_d, 4, 20)
    point_d = points_Kd[np.argmin(np.abs(np.degrees(angles) - last["degrees"]))]
    assert last["to_point"] == pytest.approx(float(vector_d @ point_d), abs=1e-6) and last["rank"] is None
    texts = [step["text"] for step in found["steps"]]
    assert changes(texts) == list(range(len(texts)))


def test_targets_are_ranked_among_the_documents() -> None:
    generator = np.random.default_rng(3)
    asked, documents = (generator.normal(size=(n, 5)).astype(np.float32) for n in (4, 30))
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    for rows in ([7], [2, 9, 11]):
        found = rank_targets(asked, documents[rows], documents)
        slow = [min(sorted(-documents @ one).index((-documents @ one)[row]) for row in rows) + 1 for one in asked]
        assert found == slow
    setting = make()
    found = walk_query(setting.embedder, setting.writer, setting.choices, "find kabra", None, setting.suite)
    assert found["rank"] == 1 and all(step["rank"] >= 1 for step in found["steps"])


def test_a_query_that_is_its_own_target_has_no_way() -> None:
    setting = make()
    with pytest.raises(InputError, match="equals its target's"):
        walk_query(setting.embedder, setting.writer, setting.choices, "find kabra", "find kabra", None)


def test_the_mean_of_directions_has_unit_length() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    np.testing.assert_allclose(mean_direction(vectors), [0.5**0.5, 0.5**0.5], atol=1e-6)
