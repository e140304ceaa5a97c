"""mteb's predictions read back: every item's score, and the means that mteb itself computes."""

import numpy as np
import pytest
from hashed_words import HashedWords

from gemma4vec.errors import InputError, WorkError
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.mteb_predictions import (
    classification_items,
    clustering_items,
    pair_items,
    retrieval_items,
)


def test_retrieval_is_scored_by_our_own_rules():
    qrels = {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}, "q3": {"d1": 0}}
    saved = {"q1": {"d2": 0.9, "d1": 0.8}, "q2": {"q2": 0.99, "d2": 0.5}}
    items = retrieval_items(saved, qrels, ["ndcg@10", "mrr@10"])
    assert items["q1"] == {"ndcg@10": pytest.approx(1 / np.log2(3)), "mrr@10": 0.5}
    assert set(items) == {"q1", "q2"} and items["q2"]["mrr@10"] == 0.5
    excluded = retrieval_items(saved, qrels, ["mrr@10"], exclude_identical_ids=True)
    assert excluded["q2"]["mrr@10"] == 1.0


def test_classification_is_the_share_of_experiments_that_were_right():
    items = classification_items([[0, 1, 1], [0, 0, 1]], [0, 1, 1])
    assert [one["accuracy"] for one in items.values()] == [1.0, 0.5, 1.0]
    with pytest.raises(WorkError, match="cross-validation"):
        classification_items([[0, 1]], [0, 1, 1])


def test_pairs_and_clusterings():
    assert pair_items({"cosine_scores": [0.5]}, [1])["1"] == {"similarity": 0.5, "gold": 1.0}
    with pytest.raises(WorkError, match="2 similarities for 1 pairs"):
        pair_items({"cosine_scores": [0.5, 0.1]}, [1])
    assert clustering_items({"v_measures": {"Level 0": [0.2, 0.4]}})["Level 0 2"] == {"v_measure": 0.4}
    assert clustering_items({"v_measure": 0.3}) == {"all": {"v_measure": 0.3}}


MOCKS = ["Retrieval", "STS", "Classification", "PairClassification"]


@pytest.mark.parametrize("kind", MOCKS)
def test_our_means_are_mtebs(kind, tmp_path):
    pytest.importorskip("mteb")
    from mteb.mocks import mock_tasks

    from gemma4vec.evaluation.scoring.mteb_suite import make_mteb_suite

    suite = make_mteb_suite(getattr(mock_tasks, f"Mock{kind}Task")())
    result = evaluate(HashedWords(), suite, tmp_path / "out")
    theirs = next(iter(result.settings["quality" if kind != "Retrieval" else "ranking"]["mteb"].items()))
    stored = result.settings["quality" if kind != "Retrieval" else "ranking"]["mteb"]
    main = next(value for name, value in stored.items() if name != "version")
    assert theirs[0] == "version"
    assert result.mean[result.metric] == pytest.approx(main, abs=1e-4)
    assert load_result(tmp_path / "out").mean == result.mean
    assert result.settings["suite"]["source"]["mteb"] == suite.task.metadata.name


def test_an_unknown_task_is_one_line():
    pytest.importorskip("mteb")
    from gemma4vec.evaluation.scoring.mteb_suite import open_mteb

    with pytest.raises(InputError, match="mteb has no task 'NanoSciFactRetrieva'"):
        open_mteb("NanoSciFactRetrieva")
    with pytest.raises(InputError, match="no split 'x'; it has train"):
        open_mteb("NanoSciFactRetrieval@x")
