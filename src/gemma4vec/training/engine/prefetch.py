"""Batches are read, tokenised and laid out in a thread of their own while the model computes the one before.

A thread is enough: the tokenizer and torch let go of Python's lock while they work. The batches are the same ones in
the same order, whoever makes them.
"""

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, Full, Queue
from typing import Any

# Batches that are ready at most. One would do, were they all equally long to make.
DEPTH = 2
_PATIENCE = 0.1


class Prefetcher:
    """Takes batches from an iterator before they are asked for.

    Attributes:
        waited: seconds that `take` has waited for batches so far.
    """

    def __init__(self, batches: Iterator[Any], wanted: Callable[[], int | None] = lambda: None, depth: int = DEPTH):
        """Start reading.

        Args:
            batches: what is read; nobody else may take from it.
            wanted: how many batches there will ever be asked for, as far as is known now; no more are read.
            depth: how many may be ready at a time.
        """
        self.waited = 0.0
        self._batches = batches
        self._wanted = wanted
        self._ready: Queue[tuple[Any, BaseException | None]] = Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reading ahead", daemon=True)
        self._thread.start()

    def take(self) -> Any:
        """The next batch. What went wrong while it was made is raised here."""
        started = time.perf_counter()
        while True:
            try:
                batch, error = self._ready.get(timeout=_PATIENCE)
                break
            except Empty:
                # Only a wrong `wanted` ends the thread without an error.
                if not self._thread.is_alive() and self._ready.empty():
                    raise RuntimeError("a batch was asked for that was never wanted") from None
        self.waited += time.perf_counter() - started
        if error is not None:
            raise error
        return batch

    def close(self) -> None:
        """Stop reading, and wait for the batch that is being made."""
        self._closed.set()
        self._thread.join()

    def _read(self) -> None:
        number = 0
        while not self._closed.is_set():
            wanted = self._wanted()
            if wanted is not None and number >= wanted:
                return
            try:
                made: tuple[Any, BaseException | None] = (next(self._batches), None)
            except BaseException as error:
                made = (None, error)
            number += 1
            while not self._closed.is_set():
                try:
                    self._ready.put(made, timeout=_PATIENCE)
                    break
                except Full:
                    continue
            if made[1] is not None:
                return
