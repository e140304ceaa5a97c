"""Compute the next item of an iterator in a thread while the current one is used.

(`training.engine.prefetch` prepares several batches in advance and measures waiting times.)
"""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch_one(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield the same items in the same order. An error while computing an item is raised in its place, unchanged.

    Closing the generator waits for the item in progress.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="reading ahead") as reader:
        coming = reader.submit(_next, items)
        while found := coming.result():
            coming = reader.submit(_next, items)
            yield found[0]


def _next(items: Iterator[T]) -> tuple[T] | None:
    """The next item in a tuple; None: there is none."""
    for item in items:
        return (item,)
    return None
