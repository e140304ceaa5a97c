"""What a dry run says of clusters: how many rows are encoded, how often, and for how long; never all rows."""

from typing import Any

import numpy as np
import pytest

from gemma4vec.cli.dry_run import _cluster_words
from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.loading.load_rows import SAMPLED, TrainingData
from gemma4vec.data.rows.rows import Row
from gemma4vec.recipe import schema
from gemma4vec.text.prompts import Document
from gemma4vec.training.estimate import clusters
from gemma4vec.training.estimate.clusters import estimate_clusters

ROWS = 1000


def stage(budget: dict[str, Any], **settings: Any) -> schema.Stage:
    return schema.Stage.model_validate(
        {
            "data": [{"name": "a", "path": "a.jsonl"}],
            "batch": {"rows": 8, "accumulate": 2, "group_rows": 4, "clusters": settings},
            "budget": budget,
        }
    )


def loaded(**facts: Any) -> TrainingData:
    rows = [Row(f"q{n}", [Document(f"p{n}")]) for n in range(ROWS)]
    return TrainingData(MixedRows([Part("a", rows)]), sources={"a": facts})


class Encoding:
    """A model that counts the texts that it encodes."""

    name, dimension = "encoding", 2

    def __init__(self) -> None:
        self.texts = 0

    def encode_query(self, texts: list[Any]) -> np.ndarray:
        self.texts += len(texts)
        return np.ones((len(texts), 2), dtype=np.float32)

    encode_document = encode_query


@pytest.mark.parametrize(
    ("budget", "steps", "settings", "facts", "rows", "times"),
    [
        ({"steps": 10}, 10, {"by": "self"}, {}, 160, 1),  # what the budget reaches
        ({"steps": 100}, 100, {"by": "self"}, {}, ROWS, 1),  # all rows, each once
        ({"minutes": 1.0}, 10, {"by": "self"}, {}, ROWS, 1),  # the end is not known
        ({"steps": 100}, 100, {"by": "self"}, {SAMPLED: {"files": 1}}, 1600, 1),  # more rows than the sample has
        ({"steps": 100}, 100, {"by": "self", "refresh": 25}, {}, 1600, 4),  # each once more before it is trained on
        ({"rows": 1600}, 100, {"by": "self", "refresh": 80}, {}, 1600, 2),
    ],
)
def test_rows_and_times(
    budget: dict[str, Any], steps: int, settings: dict[str, Any], facts: dict[str, Any], rows: int, times: int
) -> None:
    found = estimate_clusters(stage(budget, **settings), loaded(**facts), steps, 0.5)
    assert found is not None
    assert (found.rows, found.times, found.seconds, found.measured) == (rows, times, rows * 0.5, 0)
    assert f"{rows:,} rows" in _cluster_words(vars(found)) and "as its steps" in _cluster_words(vars(found))


def test_a_few_rows_are_encoded_by_a_finished_model(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Encoding()
    monkeypatch.setattr(clusters.Embedder, "load", staticmethod(lambda name: model))
    found = estimate_clusters(stage({"steps": 10}, by=str(tmp_path)), loaded(), 10, 0.5)
    assert found is not None and found.rows == 160 and found.seconds is not None and found.seconds < 60
    assert model.texts == 2 * (4 + 48)
    assert "from 48 rows; less where vectors are on disk" in _cluster_words(vars(found))
    monkeypatch.setattr(clusters, "_measure", lambda *_: None)
    absent = estimate_clusters(stage({"steps": 10}, by="no/such"), loaded(), 10, 0.5)
    assert absent is not None and absent.seconds is None and "not on this machine" in _cluster_words(vars(absent))


def test_a_stage_without_clusters_has_no_line() -> None:
    plain = stage({"steps": 10})
    plain = plain.model_copy(update={"batch": plain.batch.model_copy(update={"clusters": None})})
    assert estimate_clusters(plain, loaded(), 10, 0.5) is None
