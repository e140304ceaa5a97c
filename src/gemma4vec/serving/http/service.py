"""The parts of a running server, and whether it accepts requests."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gemma4vec import __version__
from gemma4vec.files import write_json
from gemma4vec.reading.json_values import JsonError, load_own_json
from gemma4vec.serving.http.batcher import Batcher
from gemma4vec.serving.http.searcher import OpenIndex
from gemma4vec.serving.http.server_metrics import Labels, Metrics, render
from gemma4vec.serving.http.server_settings import ServerSettings
from gemma4vec.serving.http.text_queue import TextQueue
from gemma4vec.text.prompts import Prompted, Prompts

if TYPE_CHECKING:
    from gemma4vec.model.packing.packed_batch import Tokens
    from gemma4vec.serving.http.served_model import ReadText

logger = logging.getLogger(__name__)

_QUEUE_SECONDS = 10.0  # what may wait, at the measured rate: well below the default time limit of a request
MODEL_BROKEN = ("the model fails on every text; the server must be started again", "model_broken")
_FEWEST_BATCHES = 4  # that may wait in any case


class Model(Protocol):
    """What a server needs of a model; `served_model.ServedModel` is one."""

    name: str
    dimensions: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """A hash that changes with the vectors."""

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""

    @property
    def prompts(self) -> Prompts:
        """Its prompts."""

    @property
    def max_tokens(self) -> int:
        """Limit of a text."""

    @property
    def tokens_per_forward(self) -> int:
        """Number of tokens in one forward pass that suits the device."""

    def describe(self) -> dict[str, Any]:
        """Its settings, as JSON values."""

    def read(self, texts: Sequence[Prompted], /) -> "list[ReadText]":
        """Tokenize texts."""

    def from_ids(self, ids: Sequence[Sequence[int]], /) -> list[Prompted]:
        """Token ids as texts for `read`."""

    def encode(self, tokens: "Sequence[Tokens]", /) -> NDArray[np.float32]:
        """Unit vectors `[N, D]`."""

    def warm_up(self, batch_tokens: int, /, *, compile_layers: bool) -> float:
        """Run texts of every size; returns tokens a second."""


class Service:
    """A server's parts: none before `start`, except for settings and metrics.

    Attributes:
        waiting: a future of each request that waits for vectors.

    Args:
        settings: what was asked for.
        worker: number of this process among several, with the folder in which they share their metrics.
    """

    model: Model
    queue: TextQueue
    batcher: Batcher

    def __init__(self, settings: ServerSettings, worker: tuple[int, Path] | None = None):
        self.settings = settings
        self.metrics = Metrics(**({} if worker is None else {"worker": str(worker[0])}))
        self.index: OpenIndex | None = None
        self.created = int(time.time())
        self.reader = ThreadPoolExecutor(1, "reader")
        self.searching = ThreadPoolExecutor(1, "search")
        self.waiting: set[asyncio.Future[None]] = set()
        self.started = self.draining = self.broken = False
        self._worker = worker

    def start(
        self, model: Model, index: OpenIndex | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Warm the model up and make the queue; `run` may follow, in the same thread."""
        settings = self.settings
        batch_tokens = settings.batch_tokens or model.tokens_per_forward
        rate = model.warm_up(batch_tokens, compile_layers=settings.compile)
        most = settings.queue_tokens or max(int(rate * _QUEUE_SECONDS), _FEWEST_BATCHES * batch_tokens)
        self.model, self.index = model, index
        self.queue = TextQueue(batch_tokens, most, clock)
        self.batcher = Batcher(model, self.queue, self.metrics, rate=rate, on_broken=self._break)
        self.metrics.set(
            "gemma4vec_model_info", 1, model=model.name, fingerprint=model.fingerprint, version=__version__
        )
        self.started = True

    def abandon(self) -> None:
        """Answer every request that waits with 503: no model thread computes any more. From the event loop."""
        self.broken = True
        for future in self.waiting:
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """End the threads; what waits is still computed."""
        if self.started:
            self.queue.close()
        self.reader.shutdown(wait=False)
        self.searching.shutdown(wait=False)

    def reason_not_ready(self) -> tuple[str, str] | None:
        """Message and code of the 503; None: requests are accepted."""
        if self.draining:
            return "the server is shutting down", "shutting_down"
        if self.broken:
            return MODEL_BROKEN
        if not self.started:
            return "the model is being loaded", "loading"
        return None

    def seconds_until_free(self) -> int:
        """For Retry-After."""
        return self.batcher.seconds_until_free()

    def render_metrics(self) -> str:
        """Metrics of this process and, as they were a second ago, of the other workers."""
        found: list[Mapping[tuple[str, Labels], float]] = [self._values()]
        if self._worker is not None:
            self.share_metrics()
            own, folder = self._worker
            found += [_read(file) for file in sorted(folder.glob("worker-*.json")) if file.stem != f"worker-{own}"]
        return render(found)

    def share_metrics(self) -> None:
        """Write the metrics for the other workers."""
        if self._worker is None:
            return
        number, folder = self._worker
        try:
            write_json(folder / f"worker-{number}.json", [[*key, value] for key, value in self._values().items()])
        except OSError as error:
            logger.warning(f"metrics are not shared: {error.strerror or error}")

    def _values(self) -> dict[tuple[str, Labels], float]:
        metrics = self.metrics
        metrics.set("gemma4vec_ready", float(self.reason_not_ready() is None))
        if self.started:
            for name, bulk in (("few", False), ("bulk", True)):
                metrics.set("gemma4vec_queue_tokens", self.queue.tokens(bulk), priority=name)
            metrics.set("gemma4vec_expired_texts_total", self.queue.expired)
        return metrics.values()

    def _break(self) -> None:
        self.broken = True


def _read(file: Path) -> Mapping[tuple[str, Labels], float]:
    try:
        rows = load_own_json(file)
        return {(name, tuple((key, value) for key, value in labels)): number for name, labels, number in rows}
    except (OSError, JsonError, TypeError, ValueError):
        return {}  # of a worker that is just being replaced
