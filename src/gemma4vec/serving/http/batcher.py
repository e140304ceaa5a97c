"""The model thread: takes batches from the queue, computes vectors, hands them to their requests.

A batch that fails is halved until the text that fails is alone; only its request fails. Vectors that are not finite or
not of unit length are such a failure, so that they are never sent.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from gemma4vec.retrieval.unit_rows import find_unit_rows
from gemma4vec.serving.http.server_metrics import Metrics
from gemma4vec.serving.http.text_queue import Entry, TextQueue

if TYPE_CHECKING:
    from gemma4vec.model.packing.packed_batch import Tokens

logger = logging.getLogger(__name__)

_MOST_FAILURES = 3  # batches in a row in which every text fails: the model is broken, not a text


class NoVectorError(Exception):
    """The model returned numbers that are no unit vector."""


class EncodesTokens(Protocol):
    """What the batcher needs of a model."""

    def encode(self, tokens: "Sequence[Tokens]", /) -> NDArray[np.float32]:
        """Vectors `[N, D]` of tokenized texts."""


class Batcher:
    """Runs in the model thread.

    Args:
        model: computes vectors.
        queue: the texts.
        metrics: counts texts, tokens, batches and failures.
        rate: tokens a second, if known from the warm-up; it follows what is measured.
        on_broken: called when `_MOST_FAILURES` batches in a row have failed whole.
    """

    def __init__(
        self,
        model: EncodesTokens,
        queue: TextQueue,
        metrics: Metrics,
        *,
        rate: float = 1000.0,
        on_broken: Callable[[], None] = lambda: None,
    ):
        self.model, self.queue, self.metrics, self.rate, self.on_broken = model, queue, metrics, rate, on_broken
        self._failures = 0

    def run(self) -> None:
        """Compute until the queue is closed and empty."""
        while (batch := self.queue.take()) is not None:
            tokens = sum(entry.tokens.length for entry in batch)
            started = time.perf_counter()
            done = self._encode(batch)
            seconds = max(time.perf_counter() - started, 1e-9)
            self.rate += 0.1 * (tokens / seconds - self.rate)
            self.metrics.observe("gemma4vec_batch_tokens", tokens)
            self.metrics.observe("gemma4vec_batch_seconds", seconds)
            self._failures = 0 if done else self._failures + 1
            if self._failures == _MOST_FAILURES:
                logger.error("the model fails on every text; the server is no longer ready")
                self.on_broken()

    def seconds_until_free(self) -> int:
        """Whole seconds, at least 1, in which what waits is computed."""
        return max(1, round(self.queue.waiting / max(self.rate, 1.0)))

    def _encode(self, batch: Sequence[Entry]) -> int:
        """Compute a batch, or its halves if it fails; the number of texts that have a vector."""
        batch = [entry for entry in batch if not entry.job.dead]
        if not batch:
            return 1  # nothing to compute is no failure
        try:
            vectors_ND = self.model.encode([entry.tokens for entry in batch])
            if vectors_ND.shape[0] != len(batch) or not find_unit_rows(vectors_ND).all():
                raise NoVectorError
        except Exception as error:  # whatever the model raises, the other requests go on
            if len(batch) == 1:
                self._fail(batch[0], error)
                return 0
            half = len(batch) // 2
            return self._encode(batch[:half]) + self._encode(batch[half:])
        for entry, vector_D in zip(batch, vectors_ND, strict=True):
            entry.job.put(entry.row, vector_D)
        self.metrics.count("gemma4vec_texts_total", len(batch))
        self.metrics.count("gemma4vec_tokens_total", sum(entry.tokens.length for entry in batch))
        return len(batch)

    def _fail(self, entry: Entry, error: Exception) -> None:
        # The message of an exception can hold a text, so only its type is logged.
        logger.warning(f"a text of {entry.tokens.length} tokens has no vector ({type(error).__name__})")
        self.metrics.count("gemma4vec_failed_texts_total")
        entry.job.failed = entry.row
        self.queue.cancel(entry.job)
        entry.job.finish(entry.job)
