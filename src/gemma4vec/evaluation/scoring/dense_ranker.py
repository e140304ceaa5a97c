"""An embedding model as a ranker: encode, check the vectors, search exactly.

Legend: N queries, M documents, D dimensions.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import WorkError
from gemma4vec.evaluation.scoring.memory_check import IN_MEMORY, dimension_of, plan_retrieval
from gemma4vec.evaluation.scoring.ranking import Progress, Ranking, no_progress
from gemma4vec.files import cache, disk_errors
from gemma4vec.machine.memory import free_memory
from gemma4vec.retrieval import exact
from gemma4vec.retrieval.top_k import descending_id_rank
from gemma4vec.retrieval.unit_rows import are_unit_lengths
from gemma4vec.text.text_embedder import TextEmbedder, Vectors

WIDE = ("float32", "float64")


class EmbedderRanker:
    """Ranks a suite's documents by the inner product of unit vectors.

    `documents_MD`: the corpus's vectors if the caller already has them, such as from an index.
    """

    def __init__(self, model: TextEmbedder, documents_MD: Vectors | None = None) -> None:
        self.model, self.documents_MD = model, documents_MD
        self.name, self.fingerprint = model.name, model.fingerprint

    def describe(self) -> dict[str, Any]:
        """Return the model's settings."""
        return self.model.describe()

    def rank(self, suite: RetrievalSuite, depth: int, progress: Progress = no_progress) -> Ranking:
        """Rank the best `depth` documents for each query.

        Raises:
            WorkError: vectors that are not finite or not of unit length.
        """
        started = time.perf_counter()
        documents_MD = self._documents(suite, depth, progress)
        documents_done = time.perf_counter()
        queries_ND = self.model.encode_query(suite.queries, progress=partial(progress, "queries"))
        check_unit(queries_ND, suite.query_ids, f"query vectors of {self.name} on {suite.name}", self.model)
        queries_done = time.perf_counter()
        indices_NK, scores_NK = exact.search(
            queries_ND,
            documents_MD,
            min(depth, len(suite.corpus)),
            descending_id_rank=descending_id_rank(suite.corpus_ids),
            progress=partial(_report_queries, progress, len(suite.queries)),
        )
        progress("search", len(suite.queries), len(suite.queries))
        seconds = {
            "encode_documents": documents_done - started,
            "encode_queries": queries_done - documents_done,
            "search": time.perf_counter() - queries_done,
        }
        return Ranking(indices_NK, scores_NK, seconds)

    def _documents(self, suite: RetrievalSuite, depth: int, progress: Progress) -> Vectors:
        """Return the corpus's vectors, checked."""
        documents_MD = self.documents_MD
        block = self._block(suite, depth)
        if documents_MD is None and block < len(suite.corpus):
            return self._encoded_to_file(suite, block, progress)
        if documents_MD is None:
            documents_MD = self.model.encode_document(suite.corpus, progress=partial(progress, "documents"))
        if len(documents_MD) != len(suite.corpus):
            raise ValueError(f"{len(documents_MD)} document vectors for a corpus of {len(suite.corpus)}")
        check_unit(documents_MD, suite.corpus_ids, f"document vectors of {self.name} on {suite.name}", self.model)
        return documents_MD

    def _block(self, suite: RetrievalSuite, depth: int) -> int:
        """Return the number of documents to encode at a time; all of them if their vectors fit into memory."""
        queries, documents, dimension = len(suite.queries), len(suite.corpus), dimension_of(self.model)
        if dimension is None:
            return min(documents, IN_MEMORY)
        return plan_retrieval(queries, documents, dimension, depth, free_memory(), IN_MEMORY).block

    def _encoded_to_file(self, suite: RetrievalSuite, block: int, progress: Progress) -> Vectors:
        """Encode a large corpus into a mapped file, which is deleted with the array."""
        what, total = f"document vectors of {self.name} on {suite.name}", len(suite.corpus)
        cache().mkdir(parents=True, exist_ok=True)
        with disk_errors(cache()), tempfile.TemporaryFile(dir=cache()) as file:
            mapped_MD: Vectors | None = None
            for start in range(0, total, block):
                part = slice(start, min(start + block, total))
                counted = partial(_report_part, progress, start, total)
                vectors_BD = self.model.encode_document(suite.corpus[part], progress=counted)
                check_unit(vectors_BD, suite.corpus_ids[part], what, self.model)
                if mapped_MD is None:
                    # Reserve all of the disk space now: a full disk is an error here, and a crash later.
                    os.posix_fallocate(file.fileno(), 0, total * vectors_BD.shape[1] * 4)
                    mapped_MD = np.memmap(file, dtype=np.float32, mode="r+", shape=(total, vectors_BD.shape[1]))
                mapped_MD[part] = vectors_BD
        assert mapped_MD is not None
        return mapped_MD


def _report_queries(progress: Progress, queries: int, done: int, total: int) -> None:
    """Report the search's progress in queries."""
    progress("search", queries * done // total, queries)


def _report_part(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    """Report the encoder's progress within the whole corpus."""
    progress("documents", before + done, total)


def check_unit(vectors_ND: Vectors, ids: Sequence[str], what: str, model: TextEmbedder) -> None:
    """Refuse vectors that are not finite or not of unit length.

    Args:
        vectors_ND: float32[N, D].
        ids: of the vectors.
        what: name of the vectors in the message.
        model: made them.

    Raises:
        WorkError: with the number of bad vectors and the first one's id.
    """
    finite_N = np.isfinite(vectors_ND).all(axis=1)
    if not finite_N.all():
        first = ids[int(np.argmin(finite_N))]
        wide = model.describe().get("dtype") in WIDE
        raise WorkError(
            f"{int((~finite_N).sum())} of {len(ids)} {what} are not finite (first: id '{first}'); "
            f"{'' if wide else 'try --dtype fp32; if that does not help, '}the model's weights are damaged"
        )
    lengths_N = np.linalg.norm(vectors_ND, axis=1)
    unit_N = are_unit_lengths(lengths_N)
    if not unit_N.all():
        first_index = int(np.argmin(unit_N))
        raise WorkError(
            f"{int((~unit_N).sum())} of {len(ids)} {what} are not of unit length (first: id '{ids[first_index]}', "
            f"length {lengths_N[first_index]:.3g}); the model must normalize its vectors"
        )
