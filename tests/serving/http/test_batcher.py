"""The model thread: a failing text fails its own request alone."""

import pytest
from stub_model import StubModel, StubTokens, vector_of

from gemma4vec.serving.http.batcher import Batcher
from gemma4vec.serving.http.server_metrics import Metrics, render
from gemma4vec.serving.http.text_queue import Job, TextQueue


def run(model: StubModel, jobs: list[list[str]], batch: int = 1000) -> tuple[list[Job], Batcher]:
    queue = TextQueue(batch, 10_000)
    finished: list[Job] = []
    made = [Job([StubTokens(text) for text in texts], float("inf"), finished.append) for texts in jobs]
    for job in made:
        assert queue.admit(job)
    broken: list[int] = []
    batcher = Batcher(model, queue, Metrics(), on_broken=lambda: broken.append(1))
    batcher.broken = broken  # type: ignore[attr-defined]
    queue.close()
    batcher.run()
    assert sorted(map(id, finished)) == sorted(map(id, made))
    return made, batcher


@pytest.mark.parametrize("bad", ["poison", "nan"])
def test_the_culprit_alone_fails(bad: str, caplog: pytest.LogCaptureFixture) -> None:
    model = StubModel()
    texts = [[f"text {i}"] for i in range(20)]
    texts[13] = ["fine", f"a {bad} text", "fine too"]
    jobs, batcher = run(model, texts)
    assert [job.failed for job in jobs] == [1 if i == 13 else None for i in range(20)]
    for job, own in zip(jobs, texts, strict=True):
        if job.failed is None:
            assert job.vectors_ND is not None and (job.vectors_ND[0] == vector_of(own[0])).all()
    assert len(model.batches) < 15  # halves, not one by one
    assert "gemma4vec_failed_texts_total 1\n" in render([batcher.metrics.values()])
    assert not batcher.broken  # type: ignore[attr-defined]
    assert bad not in caplog.text  # no text in the log


def test_two_culprits_in_one_request_fail_it_once() -> None:
    jobs, _ = run(StubModel(), [["poison 1", "poison 2", "fine"], ["other"]])
    assert jobs[0].failed in (0, 1) and jobs[1].failed is None and jobs[1].vectors_ND is not None


def test_a_model_that_always_fails_is_broken() -> None:
    _, batcher = run(StubModel(), [[f"poison {i}"] for i in range(8)], batch=2)
    assert batcher.broken == [1]  # type: ignore[attr-defined]


def test_a_vector_that_is_not_of_unit_length_is_not_sent() -> None:
    model = StubModel()
    model.encode = lambda tokens: 2 * StubModel.encode(model, tokens)  # type: ignore[method-assign]
    jobs, _ = run(model, [["a"], ["b"]])
    assert [job.failed for job in jobs] == [0, 0]
