"""Prefetching: a thread makes the next items of an iterator while the current one is used.

The training loop prefetches batches, `Embedder` prefetches windows of texts. One thread is enough, because the
tokenizer and torch release Python's lock while they work. Items and their order do not depend on prefetching.
"""

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

# Batches in advance. One would do if all of them took equally long to make.
DEPTH = 3
_POLL_SECONDS = 0.1


class Prefetcher(Generic[T]):
    """Makes items of an iterator before they are asked for. It is an iterator itself; `take` returns the next item.

    Attributes:
        waited: seconds that `take` has waited for items until now.
    """

    def __init__(self, items: Iterator[T], wanted: Callable[[], int | None] = lambda: None, depth: int = DEPTH):
        """Start the thread.

        Args:
            items: the iterator; only this object may read from it.
            wanted: number of items that will be taken in all, if known by now; no more are made.
            depth: highest number of items in advance, including the one that is being made.
        """
        self.waited = 0.0
        self._items = items
        self._wanted = wanted
        self._ready: SimpleQueue[tuple[T] | BaseException] = SimpleQueue()
        self._free_places = threading.Semaphore(depth)
        self._closed = threading.Event()
        self._exhausted = False
        self._thread = threading.Thread(target=self._read, name="prefetching", daemon=True)
        self._thread.start()

    def __iter__(self) -> "Prefetcher[T]":
        return self

    def __next__(self) -> T:
        return self.take()

    def take(self) -> T:
        """Return the next item, and wait for it if necessary.

        Raises:
            StopIteration: there are no more items. Any other error raised while the item was made is raised unchanged.
        """
        if self._exhausted:
            raise StopIteration
        started = time.perf_counter()
        while True:
            try:
                made = self._ready.get(timeout=_POLL_SECONDS)
                break
            except Empty:
                # Without an error the thread ends only after `wanted` items.
                if not self._thread.is_alive() and self._ready.empty():
                    raise RuntimeError("an item was taken after the last wanted one") from None
        self.waited += time.perf_counter() - started
        if isinstance(made, BaseException):
            self._exhausted = isinstance(made, StopIteration)
            raise made
        self._free_places.release()
        return made[0]

    def close(self) -> None:
        """Stop, and wait for the item that is being made."""
        self._closed.set()
        self._thread.join()

    def _read(self) -> None:
        number = 0
        while not self._closed.is_set():
            wanted = self._wanted()
            if wanted is not None and number >= wanted:
                return
            if not self._free_places.acquire(timeout=_POLL_SECONDS):
                continue
            if self._closed.is_set():
                return
            try:
                self._ready.put((next(self._items),))
            except BaseException as error:
                self._ready.put(error)
                return
            number += 1
