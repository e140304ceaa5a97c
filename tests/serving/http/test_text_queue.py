"""The queue: what is admitted, what a batch holds, who goes first, what is dropped."""

import threading

import pytest
from stub_model import StubTokens

from gemma4vec.serving.http.text_queue import Job, TextQueue


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def job(*lengths: int, deadline: float = 100.0, name: str = "t") -> Job:
    return Job([StubTokens(" ".join([name] * length)) for length in lengths], deadline, lambda job: None)


def queue(batch: int = 10, most: int = 1000) -> TextQueue:
    return TextQueue(batch, most, Clock())


def lengths(found: TextQueue) -> list[int]:
    batch = found.take()
    assert batch is not None
    return [entry.tokens.length for entry in batch]


def test_a_batch_is_full_sorted_and_has_the_oldest_text() -> None:
    found = queue()
    for length in (3, 6, 5, 1, 9):
        assert found.admit(job(length))
    assert lengths(found) == [6, 3, 1]  # 5 does not fit beside 3 and 6, 1 does
    assert lengths(found) == [5]
    assert lengths(found) == [9]


def test_a_text_longer_than_a_batch_is_a_batch_of_its_own() -> None:
    found = queue()
    for length in (2, 25, 2):
        found.admit(job(length))
    assert [lengths(found), lengths(found)] == [[2, 2], [25]]
    assert found.waiting == 0


def test_few_texts_go_first_and_bulk_has_a_quarter() -> None:
    found = queue(batch=10)
    found.admit(job(*[10] * 20))
    for _ in range(20):
        found.admit(job(10, name="few"))
    order = []
    for _ in range(16):
        batch = found.take()
        assert batch is not None
        order.append("b" if batch[0].job.is_bulk else "f")
    assert "".join(order) == "fbfffbfffbfffbff"  # the first of bulk comes as soon as its share is below a quarter
    # Alone, each class has everything.
    for _ in range(20):
        assert lengths(found) == [10]


def test_from_half_a_queue_on_both_classes_fill_a_batch() -> None:
    found = queue(batch=10, most=40)
    found.admit(job(4))
    found.admit(job(3, 3, 3, 3, 7))
    assert found.waiting == 23
    assert lengths(found) == [4, 3, 3]  # 23 of 40 wait
    assert lengths(found) == [3, 3]
    assert lengths(found) == [7] and found.waiting == 0


def test_in_a_short_queue_a_single_query_is_a_batch_of_its_own() -> None:
    found = queue(batch=10, most=47)
    found.admit(job(4))
    found.admit(job(3, 3, 3, 3, 7))
    assert lengths(found) == [4]  # 23 of 47 wait


def test_a_text_that_does_not_fit_into_what_is_left_keeps_its_place() -> None:
    found = queue(batch=10, most=40)
    found.admit(job(4))
    found.admit(job(25, 7, 1, 1, 1))
    assert [lengths(found) for _ in range(3)] == [[4, 1, 1, 1], [25], [7]]


def goodput(seconds_a_batch: float) -> tuple[float, float]:
    """Share of the full rate that is answered at five times the load, and the mean tokens of a batch.

    Requests of one and of eight texts of 200 tokens come evenly for a minute. A batch takes some seconds however small
    it is, and a second for 1,000 tokens.
    """
    clock = Clock()
    found = TextQueue(2000, 10_000, clock)
    batch_seconds = seconds_a_batch + 2000 / 1000
    rate, now, coming, done, batches = 2000 / batch_seconds, 0.0, 0.0, 0, 0
    kinds = iter(range(10**9))
    while now < 60.0:
        clock.now = now
        while coming <= now:
            texts = 8 if next(kinds) % 2 else 1
            found.admit(job(*[200] * texts, deadline=1e9))
            coming += 900 / (5 * rate)  # a mean request has 900 tokens
        if not found.waiting:
            now = coming
            continue
        batch = lengths(found)
        done, batches = done + sum(batch), batches + 1
        now += seconds_a_batch + sum(batch) / 1000
    return done / now / rate, done / batches


def test_goodput_under_overload_is_that_of_full_batches() -> None:
    share, tokens = goodput(seconds_a_batch=0.2)
    assert share >= 0.97 and tokens >= 1900


def test_admission_counts_tokens_of_single_and_batch_requests_alike() -> None:
    found = queue(most=20)
    assert found.admit(job(500))  # nothing waits: whatever its size
    assert not found.admit(job(1))
    assert not found.admit(job(1, 1, 1, 1, 1))
    assert lengths(found) == [500]
    assert found.admit(job(20)) and not found.admit(job(1))
    assert found.waiting == 20


def test_a_reservation_counts_until_it_is_released() -> None:
    found = queue(most=20)
    assert found.reserve(15) and not found.reserve(6) and not found.admit(job(6))
    found.release(15)
    assert found.admit(job(6)) and found.waiting == 6


def test_canceled_and_expired_texts_are_not_computed() -> None:
    found = queue()
    left, late, kept = job(4), job(3, deadline=5.0), job(2)
    for one in (left, late, kept):
        found.admit(one)
    found.cancel(left)
    assert found.waiting == 5
    found.clock.now = 5.0  # type: ignore[attr-defined]
    assert lengths(found) == [2]
    assert found.waiting == 0 and found.expired == 1 and late.dead and not kept.dead


def test_a_job_is_dropped_between_two_of_its_batches() -> None:
    found = queue()
    long = job(*[10] * 6, deadline=5.0)
    found.admit(long)
    assert lengths(found) == [10] and found.tokens(bulk=True) == 50
    found.cancel(long)
    found.cancel(long)  # a second time changes nothing
    assert found.tokens(bulk=True) == 0
    found.close()
    assert found.take() is None


def test_closing_lets_what_waits_be_taken() -> None:
    found = queue()
    found.admit(job(3))
    found.close()
    assert not found.admit(job(1))
    assert lengths(found) == [3] and found.take() is None


def test_taking_waits_for_texts() -> None:
    found = queue()
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(found.take()))
    thread.start()
    found.admit(job(1))
    thread.join(60)
    assert len(taken) == 1


@pytest.mark.parametrize("count", [1, 4, 5])
def test_who_is_bulk(count: int) -> None:
    assert job(*[1] * count).is_bulk == (count > 4)
