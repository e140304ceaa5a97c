"""Prefetched items are the same ones, no more are made than wanted, and errors are raised where the item is taken."""

import threading
import time
from collections.abc import Iterator

import pytest

from gemma4vec.errors import InputError
from gemma4vec.machine.prefetch import Prefetcher


def counting(made: list[int], upto: int = 1_000) -> Iterator[int]:
    for number in range(upto):
        made.append(number)
        yield number


def test_the_same_batches_in_the_same_order() -> None:
    ahead = Prefetcher(counting([]))
    assert [ahead.take() for _ in range(50)] == list(range(50))
    ahead.close()


def test_no_more_are_made_than_wanted_or_than_fit() -> None:
    made: list[int] = []
    ahead = Prefetcher(counting(made), lambda: 5)
    assert [ahead.take() for _ in range(5)] == list(range(5))
    ahead.close()
    assert made == list(range(5))
    unlimited: list[int] = []
    ahead = Prefetcher(counting(unlimited), depth=2)
    ahead.take()
    time.sleep(0.3)
    ahead.close()
    assert len(unlimited) == 3  # one taken, two in advance


def test_a_batch_is_made_while_the_one_before_is_used() -> None:
    started = threading.Event()

    def batches() -> Iterator[int]:
        yield 0
        started.set()
        yield 1

    ahead = Prefetcher(batches())
    ahead.take()
    assert started.wait(5.0)  # nobody has asked for the second one
    ahead.close()


def test_waiting_is_counted() -> None:
    def slow() -> Iterator[int]:
        time.sleep(0.2)
        yield 0

    ahead = Prefetcher(slow())
    ahead.take()
    ahead.close()
    assert 0.15 < ahead.waited < 5.0


def test_errors_are_raised_where_the_batch_is_taken() -> None:
    def failing() -> Iterator[int]:
        yield 0
        raise InputError("row 2 is bad")

    ahead = Prefetcher(failing())
    assert ahead.take() == 0
    with pytest.raises(InputError, match="row 2 is bad"):
        ahead.take()
    ahead.close()


def test_more_than_wanted_is_an_error_and_not_an_endless_wait() -> None:
    ahead = Prefetcher(counting([]), lambda: 1)
    ahead.take()
    with pytest.raises(RuntimeError, match="after the last wanted one"):
        ahead.take()
    ahead.close()


def test_it_is_an_iterator_that_ends_with_its_items() -> None:
    ahead = Prefetcher(counting([], 20))
    assert list(ahead) == list(range(20))
    with pytest.raises(StopIteration):
        next(ahead)
    ahead.close()


def test_depth_one_makes_the_next_item_only_when_the_current_one_was_taken() -> None:
    made: list[int] = []
    ahead = Prefetcher(counting(made), depth=1)
    for number in range(3):
        time.sleep(0.2)
        assert made == list(range(number + 1))
        assert ahead.take() == number
    ahead.close()


def test_closing_waits_for_the_item_that_is_being_made() -> None:
    started, finished = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        started.set()
        time.sleep(0.2)
        finished.set()
        yield 0

    ahead = Prefetcher(slow())
    assert started.wait(5.0)
    ahead.close()
    assert finished.is_set()
