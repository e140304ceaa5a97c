"""The queue of texts between the event loop and the model: admission, priorities, batches.

Requests of few texts go before bulk. While both wait, bulk gets a quarter of the tokens. A batch is full at a number of
tokens; the oldest text of its class is always in it, so a text that is longer than a batch is a batch of its own.

A batch of few texts is small, so that a single query is answered soon. But small batches compute fewer tokens a second.
So from half a queue on, what one class leaves of a batch is filled by the other: the wait is then in the queue.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gemma4vec.model.packing.packed_batch import Tokens

FEW_TEXTS = 4  # a request of at most this many texts goes before bulk
_BULK_SHARE = 4  # one in four tokens is bulk's, while both wait
_LONG = 0.5  # share of the queue's tokens from which on batches are filled by both classes
_MOST_SKIPPED = 64  # texts that do not fit into a batch are passed over at most this often


@dataclass(eq=False)
class Job:
    """The texts of one request.

    Attributes:
        tokens: the tokenized texts.
        deadline: when the request is given up, in seconds of the queue's clock.
        finish: called with the job when its last vector is there, or when one text has failed.
        vectors_ND: vectors as they are computed; None before the first one.
        left: number of texts without a vector.
        failed: index of a text for which the model computes no vector.
        dead: nobody waits for it any more.
        waiting: tokens that no batch has taken.
    """

    tokens: "Sequence[Tokens]"
    deadline: float
    finish: Callable[["Job"], None]
    vectors_ND: NDArray[np.float32] | None = None
    failed: int | None = None
    dead: bool = False
    left: int = field(init=False)
    waiting: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.tokens)
        self.waiting = sum(text.length for text in self.tokens)

    @property
    def is_bulk(self) -> bool:
        """Whether others go first."""
        return len(self.tokens) > FEW_TEXTS

    def put(self, index: int, vector_D: NDArray[np.float32]) -> None:
        """Store the vector of one text; the last one finishes the job."""
        if self.vectors_ND is None:
            self.vectors_ND = np.empty((len(self.tokens), len(vector_D)), dtype=np.float32)
        self.vectors_ND[index] = vector_D
        self.left -= 1
        if not self.left and not self.dead:
            self.finish(self)


class Entry(NamedTuple):
    """One text of a job, by its row."""

    job: Job
    row: int

    @property
    def tokens(self) -> "Tokens":
        """The tokenized text."""
        return self.job.tokens[self.row]


class TextQueue:
    """Texts that wait for the model. Every method may be called from any thread.

    Args:
        batch_tokens: tokens of a batch.
        most_tokens: tokens that may wait. A request that comes when nothing waits is admitted whatever its size.
        clock: seconds; tests give their own.
    """

    def __init__(self, batch_tokens: int, most_tokens: int, clock: Callable[[], float] = time.monotonic):
        self.batch_tokens, self.most_tokens, self.clock = batch_tokens, most_tokens, clock
        self.expired = 0
        self._few: deque[Entry] = deque()
        self._bulk: deque[Entry] = deque()
        self._tokens = {False: 0, True: 0}
        self._reserved = 0
        self._taken = {False: 0, True: 0}
        self._closed = False
        self._changed = threading.Condition()

    def tokens(self, bulk: bool) -> int:
        """Number of tokens that wait in one class."""
        return self._tokens[bulk]

    @property
    def waiting(self) -> int:
        """Number of tokens that wait or are reserved."""
        return self._tokens[False] + self._tokens[True] + self._reserved

    def reserve(self, tokens: int) -> bool:
        """Reserve room for a request that is about to be tokenized, by an estimate; False if the queue is full."""
        with self._changed:
            if self._refuses(tokens):
                return False
            self._reserved += tokens
            return True

    def release(self, tokens: int) -> None:
        """Return what `reserve` took."""
        with self._changed:
            self._reserved -= tokens

    def admit(self, job: Job) -> bool:
        """Add the texts of a job; False if the queue is full."""
        with self._changed:
            if self._refuses(job.waiting) or self._closed:
                return False
            self._tokens[job.is_bulk] += job.waiting
            (self._bulk if job.is_bulk else self._few).extend(Entry(job, index) for index in range(len(job.tokens)))
            self._changed.notify_all()
            return True

    def cancel(self, job: Job) -> None:
        """Give a job up: its texts are never computed, and its tokens no longer count."""
        with self._changed:
            self._kill(job)

    def close(self) -> None:
        """Let `take` return None once nothing waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> list[Entry] | None:
        """Wait for texts and return the next batch, longest first; None after `close`."""
        with self._changed:
            while True:
                for entries in (self._few, self._bulk):
                    self._drop_dead(entries)
                if (self._few or self._bulk) and (batch := self._batch(self._choose())):
                    return sorted(batch, key=lambda entry: -entry.tokens.length)
                if self._few or self._bulk:
                    continue
                if self._closed:
                    return None
                self._changed.wait()

    def _refuses(self, tokens: int) -> bool:
        waiting = self.waiting
        return waiting > 0 and waiting + tokens > self.most_tokens

    def _choose(self) -> bool:
        """Whether the next batch is bulk."""
        if not (self._few and self._bulk):
            self._taken = {False: 0, True: 0}
            return bool(self._bulk)
        return self._taken[True] * _BULK_SHARE < sum(self._taken.values())

    def _batch(self, bulk: bool) -> list[Entry]:
        long = self.waiting >= _LONG * self.most_tokens
        batch = self._texts(bulk, self.batch_tokens)
        room = self.batch_tokens - sum(entry.tokens.length for entry in batch)
        if batch and long and room > 0:
            batch += self._texts(not bulk, room, must=False)
        return batch

    def _texts(self, bulk: bool, room: int, must: bool = True) -> list[Entry]:
        """Texts of one class that fit into `room` tokens, oldest first; with `must` the oldest, however long it is."""
        entries = self._bulk if bulk else self._few
        batch: list[Entry] = []
        skipped: list[Entry] = []
        while entries and len(skipped) < _MOST_SKIPPED:
            entry = entries.popleft()
            if self._is_over(entry.job):
                continue
            length = entry.tokens.length
            if (batch or not must) and length > room:
                skipped.append(entry)
                continue
            batch.append(entry)
            room -= length
            entry.job.waiting -= length
            self._tokens[bulk] -= length
            self._taken[bulk] += length
            if room <= 0:
                break
        entries.extendleft(reversed(skipped))
        return batch

    def _drop_dead(self, entries: deque[Entry]) -> None:
        while entries and self._is_over(entries[0].job):
            entries.popleft()

    def _is_over(self, job: Job) -> bool:
        """Whether a job is dead, or is now, since its time is over."""
        if not job.dead and job.deadline <= self.clock():
            self.expired += job.left
            self._kill(job)
        return job.dead

    def _kill(self, job: Job) -> None:
        if not job.dead:
            job.dead = True
            self._tokens[job.is_bulk] -= job.waiting
            job.waiting = 0
