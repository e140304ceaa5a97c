"""Searching several indexes with one query: models are loaded when they are first asked, in one thread of its own.

Eight searches may wait; more are refused, so that a held key does not fill the memory. Models of listed runs alone are
opened, and the last few of them stay loaded.
"""

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.report.charts.series import series_letter
from gemma4vec.retrieval.bm25 import BM25Index
from gemma4vec.retrieval.tokenize import choose_tokenizer
from gemma4vec.serving.search.display import excerpt, is_python
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.serving.search.storage import META, IndexMeta
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

MOST_WAITING = 8
MOST_LISTS = 6
MOST_HITS = 50
LONGEST_QUERY = 4000  # characters
MOST_BM25 = 100_000  # documents
LINES = 8  # of a hit's text
_KEPT = 3  # models, and BM25 indexes
_SAMPLE = 1000
BM25 = "bm25"

Result = TypeVar("Result")
OpenModel = Callable[[Path], TextEmbedder]


class BusyError(Gemma4VecError):
    """Too many searches wait already."""

    status = 429


@dataclass(frozen=True)
class Source:
    """An index of a run.

    Attributes:
        key: its name in addresses.
        model: the run's name. label: the same with as much more as tells it from the other indexes.
    """

    key: str
    run_id: str
    name: str
    run: Path
    folder: Path
    count: int
    model: str
    label: str = ""


@dataclass
class HitList:
    """What one model found.

    Attributes:
        name: as people call it. about: the run's id and its index. letter: of its column. BM25 has neither.
        seconds: of encoding and search, without loading. loading: seconds of loading, if this search had to.
        hits: rank, score, id, text, more (lines left out), code (is it Python?), others (list -> rank there).
        problem: why there is nothing; empty otherwise.
    """

    name: str
    about: str = ""
    letter: str = ""
    seconds: float = 0.0
    loading: float = 0.0
    hits: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""


def list_sources(runs: Iterable[Mapping[str, Any]]) -> list[Source]:
    """The indexes of runs that have a model, in the order of the runs."""
    found = []
    for run in runs:
        path = Path(run["path"])
        for meta in sorted(path.glob(f"index/*/{META}")) if (path / "model").is_dir() else ():
            try:
                about = IndexMeta.read(meta.parent)
            except (OSError, ValueError, TypeError, KeyError):
                continue  # a damaged index is not offered
            name, run_id = meta.parent.name, str(run["run_id"])
            model = str(run["name"] or run_id)
            found.append(Source(f"{run_id}/{name}", run_id, name, path, meta.parent, about.count, model))
    return [replace(one, label=_label(one, found)) for one in found]


def _label(source: Source, among: Sequence[Source]) -> str:
    """The run's name; with the end of its id where others have it too, and the index where the run has several."""
    runs = {one.run_id for one in among if one.model == source.model}
    indexes = [one for one in among if one.run_id == source.run_id]
    label = source.model if len(runs) == 1 else f"{source.model} {source.run_id[-4:]}"
    return label if len(indexes) == 1 else f"{label}, {source.name}"


def find_sources(sources: Sequence[Source], keys: Sequence[str]) -> list[Source]:
    """The sources with these keys, each once.

    Raises:
        InputError: no run has an index with one of them.
    """
    known = {one.key: one for one in sources}
    for key in keys:
        if key not in known:
            raise InputError(f"no run has an index '{key[:100]}'; the page Search lists them")
    return [known[key] for key in dict.fromkeys(keys)]


def open_model(run: Path) -> TextEmbedder:
    """The model of a run; this imports torch."""
    from gemma4vec.model.inference.embedder import Embedder

    return Embedder.load(run)


class SearchWorker:
    """One thread that searches; `opening` opens the model of a run's folder."""

    def __init__(self, opening: OpenModel = open_model):
        self._opening = opening
        self._jobs: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue(MOST_WAITING)
        self._models: OrderedDict[Path, TextEmbedder] = OrderedDict()
        self._indexes: OrderedDict[Path, BM25Index] = OrderedDict()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.busy = False

    def submit(self, query: str, sources: Sequence[Source], k: int, *, bm25: bool) -> "Future[list[HitList]]":
        """Search in the worker's thread.

        Args:
            query: text. sources: indexes, each with its own model.
            k: hits of each. bm25: also search the first index's documents by BM25.

        Raises:
            InputError: an empty or too long query, no index, too many of them, an odd `k`.
            BusyError: too many searches wait.
        """
        if not query.strip() or len(query) > LONGEST_QUERY:
            raise InputError(f"give a query of 1 to {LONGEST_QUERY:,} characters")
        if not 1 <= len(sources) <= MOST_LISTS or not 1 <= k <= MOST_HITS:
            raise InputError(f"choose 1 to {MOST_LISTS} indexes and 1 to {MOST_HITS} hits")
        return self.run(lambda: self._search(query, sources, k, bm25))

    def run(self, work: Callable[[], Result]) -> "Future[Result]":
        """Do other work with models in the worker's thread, after what waits already.

        Raises:
            BusyError: too many searches wait.
        """
        future: Future[Result] = Future()
        try:
            self._jobs.put_nowait((future, work))
        except queue.Full:
            raise BusyError(f"{MOST_WAITING} searches wait already; try again in a moment") from None
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gemma4vec-ui-search", daemon=True)
                self._thread.start()
        return future

    def _run(self) -> None:
        while True:
            future, work = self._jobs.get()
            self.busy = True
            try:
                if future.set_running_or_notify_cancel():
                    future.set_result(work())
            except BaseException as error:  # whatever it is, who waits for the answer reports it
                future.set_exception(error)
            finally:
                self.busy = False

    def _search(self, query: str, sources: Sequence[Source], k: int, bm25: bool) -> list[HitList]:
        lists = [self._of_model(query, source, k, series_letter(place)) for place, source in enumerate(sources)]
        if bm25:
            lists.append(self._of_bm25(query, sources[0], k))
        for one in lists:
            ranks = {
                f"{other.letter} {other.name}".strip(): {hit["id"]: hit["rank"] for hit in other.hits}
                for other in lists
                if other is not one
            }
            for hit in one.hits:
                hit["others"] = {name: found[hit["id"]] for name, found in ranks.items() if hit["id"] in found}
        return lists

    def _of_model(self, query: str, source: Source, k: int, letter: str) -> HitList:
        found = HitList(source.label or source.model, f"{source.run_id}, index {source.name}", letter)
        try:
            started = time.perf_counter()
            embedder, is_new = self.model(source.run)
            index = SearchIndex.open(source.folder, embedder.fingerprint)
            found.loading = time.perf_counter() - started if is_new else 0.0
            started = time.perf_counter()
            # What is no text (lone surrogates) no tokenizer accepts.
            vector_1D = embedder.encode_query([query.encode("utf-8", "replace").decode("utf-8")])
            hits = index.search(vector_1D, k)[0]
            found.seconds = time.perf_counter() - started
            found.hits = [_hit(hit.rank, hit.score, hit.document) for hit in hits]
        except (Gemma4VecError, OSError) as error:
            found.problem = " ".join(str(error).split())
        except MemoryError:
            self._models.clear()
            found.problem = "the model is too large for the free memory; close other programs, or use gemma4vec search"
        return found

    def _of_bm25(self, query: str, source: Source, k: int) -> HitList:
        found = HitList("BM25")
        if source.count > MOST_BM25:
            found.problem = f"BM25 is left out: {source.count:,} documents, and at most {MOST_BM25:,} are indexed here"
            return found
        try:
            documents = SearchIndex.open(source.folder).documents
            started = time.perf_counter()
            index, is_new = self._indexed(source.folder, documents)
            found.loading = time.perf_counter() - started if is_new else 0.0
            started = time.perf_counter()
            top = index.search([query], min(k, len(documents)))
            found.seconds = time.perf_counter() - started
            found.hits = [
                _hit(place, float(score), documents[int(row)])
                for place, (row, score) in enumerate(zip(top.indices[0], top.scores[0], strict=True), 1)
                if row >= 0
            ]
        except (Gemma4VecError, OSError) as error:
            found.problem = " ".join(str(error).split())
        return found

    def model(self, run: Path) -> tuple[TextEmbedder, bool]:
        """The model of a run, and whether it was loaded for this; for work in the worker's thread."""
        known = self._models.get(run)
        if known is not None:
            self._models.move_to_end(run)
            return known, False
        while len(self._models) >= _KEPT:  # before the next one needs its memory
            self._models.popitem(last=False)
        logger.info(f"loading the model of {run.name}")
        self._models[run] = self._opening(run)
        return self._models[run], True

    def _indexed(self, folder: Path, documents: Sequence[Any]) -> tuple[BM25Index, bool]:
        known = self._indexes.get(folder)
        if known is not None:
            self._indexes.move_to_end(folder)
            return known, False
        texts = [f"{one.title} {one.text}" if one.title else one.text for one in documents]
        code = bool(documents) and is_python(documents[0])
        self._indexes[folder] = BM25Index.build(texts, choose_tokenizer(texts[:_SAMPLE], code))
        while len(self._indexes) > _KEPT:
            self._indexes.popitem(last=False)
        return self._indexes[folder], True


def _hit(rank: int, score: float, document: Any) -> dict[str, Any]:
    whole = f"{document.title}\n{document.text}" if document.title else document.text
    text, more = excerpt(whole, LINES)
    about = {"rank": rank, "score": score, "id": document.id, "text": text, "more": more}
    return {**about, "code": is_python(document), "others": {}}
