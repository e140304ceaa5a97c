"""Each item of an iterator is made in a thread while the one before it is used.

(The batches of a training are read several ahead, with a count of how long they were waited for:
`training.engine.prefetch`.)
"""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items in the same order; what goes wrong while one is made is raised, as it is, where it would come.

    Closing it waits for the item that is being made.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="reading ahead") as reader:
        coming = reader.submit(_next, items)
        while found := coming.result():
            coming = reader.submit(_next, items)
            yield found[0]


def _next(items: Iterator[T]) -> tuple[T] | None:
    """The next item in a tuple of its own; None: there is none."""
    for item in items:
        return (item,)
    return None
