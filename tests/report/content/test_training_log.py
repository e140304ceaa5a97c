"""What the events of a training say."""

import math

import pytest

from gemma4vec.report.content.training_log import read_training


def steps(losses):
    return [
        {"event": "step", "step": i + 1, "loss": loss, "tokens": 100 * (i + 1), "seconds": 2.0 * (i + 1)}
        for i, loss in enumerate(losses)
    ]


def test_the_smoothed_loss_of_a_line_is_the_line_but_for_the_end():
    smooth = read_training(steps([float(i) for i in range(200)])).smoothed_loss
    assert [y for _, y in smooth[:195]] == pytest.approx(list(range(195)))
    assert [x for x, _ in smooth] == [100 * (i + 1) for i in range(200)]
    assert smooth[-1][1] == pytest.approx((199 + 198 + 197 + 196 + 195 + 194) / 6)


def test_losses_that_are_not_finite_are_counted_and_left_out():
    log = read_training(steps([1.0, None, math.nan, 3.0]))
    assert log.skipped_losses == 2
    assert [x for x, _ in log.smoothed_loss] == [100, 400]


def test_stages_go_on_where_the_one_before_ended():
    events = [{**event, "stage": stage} for stage in (0, 1) for event in steps([1.0, 1.0, 1.0])]
    events += [{"event": "evaluation", "stage": stage, "step": 2, "suite": "dev", "ndcg@10": 0.5} for stage in (1, 0)]
    log = read_training(events)
    assert [step.step for step in log.steps] == [1, 2, 3, 4, 5, 6]
    assert [step.tokens for step in log.steps] == [100, 200, 300, 400, 500, 600]
    assert log.steps[-1].seconds == 12.0
    assert [(row.step, row.tokens) for row in log.evaluations] == [(2, 200), (5, 500)]


def test_costs_come_from_the_steps_and_the_end():
    log = read_training(steps([1.0] * 30))
    assert dict(log.costs()) == {
        "training time": "1.0 min",
        "steps": "30",
        "tokens trained": "3,000",
        "throughput, overall": "50 tokens/s",
    }
    finished = {"event": "finished", "seconds": 9.0, "tokens": 9, "peak_memory_bytes": 2**31}
    costs = dict(read_training([*steps([1.0] * 30), finished]).costs())
    assert (
        costs["training time"] == "1.0 min"
        and costs["tokens trained"] == "3,000"
        and costs["peak memory"] == "2.00 GiB"
    )


def test_an_evaluation_stands_at_the_tokens_of_its_step():
    events = [{"event": "evaluation", "step": step, "suite": "dev", "ndcg@10": 0.5} for step in (0, 2, 3)]
    assert [row.tokens for row in read_training([*steps([1.0, 1.0, 1.0]), *events]).evaluations] == [0, 200, 300]
