"""Memory that an evaluation needs, counted before the first text is encoded.

Only arrays that grow with the suite are counted; the model, the texts and the libraries already occupy their memory.
Legend: N queries, M documents, D dimensions, K ranks. Sizes are in bytes.
"""

import shutil
from dataclasses import dataclass, fields
from typing import Any

from gemma4vec.data.suites.group import AnySuite, OneSuite
from gemma4vec.data.suites.held_out_rows import RowSuite
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.sts import StsSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.metrics import QUERIES_PER_BLOCK
from gemma4vec.files import cache
from gemma4vec.machine.memory import format_bytes, free_memory, require_memory
from gemma4vec.retrieval import exact

IN_MEMORY = 262_144  # documents; vectors of a larger corpus go to a file
LEAST_BLOCK = 1_024  # smallest number of documents encoded at a time
VECTORS_AT_ONCE = 3  # copies while vectors are made: kept, new, stored
RANKINGS_AT_ONCE = 3  # copies: as found, joined, filtered
PLACE = 12  # bytes of one rank: index and score
CANDIDATE = 28  # bytes of one candidate of the search
BM25_CHARACTER = 8  # bytes for each character of the corpus: BM25's index while it is built (measured: 4.6), and texts
ITEM = 8_000  # bytes of a query's scores and first ranks as Python objects (measured: 5,300)
JUDGED_PLACE = 120  # bytes of one rank while trec_eval scores it (measured: 51, and its own copy)


@dataclass(frozen=True)
class MemoryNeed:
    """Peak memory of an evaluation in bytes, by its parts.

    Attributes:
        documents: vectors of the corpus, or of one block if they go to a file; BM25's index.
        queries: vectors of the queries (for pairs and rows: of all texts).
        search: candidates and one block of scores.
        rankings: the best K of each query.
        scores: of each query, for the files.
    """

    documents: int = 0
    queries: int = 0
    search: int = 0
    rankings: int = 0
    scores: int = 0

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(vars(self).values())

    def sentence(self) -> str:
        """List the parts, largest first."""
        parts = sorted(((getattr(self, part.name), part.name) for part in fields(self)), reverse=True)
        return ", ".join(f"{name} {format_bytes(size)}" for size, name in parts if size >= self.total / 20)


@dataclass(frozen=True)
class CorpusPlan:
    """Storage of a corpus's vectors.

    Attributes:
        block: number of documents encoded at a time; the whole corpus if its vectors stay in memory.
        on_disk: size of the vectors' file in bytes; 0 if they stay in memory.
        need: memory that the evaluation needs.
    """

    block: int
    on_disk: int
    need: MemoryNeed


def plan_retrieval(
    queries: int, documents: int, dimension: int, depth: int, available: int, in_memory: int = IN_MEMORY
) -> CorpusPlan:
    """Plan where a corpus's vectors go: to a file if they are many, or need over half of the free memory; else memory.

    Args:
        queries, documents, dimension: sizes N, M, D.
        depth: number of ranks kept for each query.
        available: free memory in bytes.
        in_memory: largest number of documents whose vectors stay in memory.
    """
    vector, places = 4 * dimension, queries * min(depth, documents)
    rest = MemoryNeed(
        queries=VECTORS_AT_ONCE * vector * queries,
        search=2 * CANDIDATE * min(places, exact.CANDIDATES_PER_GROUP)
        + min(exact.BLOCK, documents) * (vector + 4 * exact.QUERIES_AT_ONCE),
        rankings=RANKINGS_AT_ONCE * PLACE * places,
        scores=_of_scores(queries, min(depth, documents)),
    )
    whole = VECTORS_AT_ONCE * vector * documents
    if documents <= in_memory and whole <= available // 2:
        return CorpusPlan(documents, 0, _with_documents(rest, whole))
    fitting = (available - rest.total) // 2 // (VECTORS_AT_ONCE * vector)
    block = min(documents, in_memory, max(LEAST_BLOCK, fitting))
    on_disk = vector * documents if block < documents else 0
    return CorpusPlan(block, on_disk, _with_documents(rest, VECTORS_AT_ONCE * vector * block))


def check_suite_memory(suite: AnySuite, model: Any, depth: int, in_memory: int = IN_MEMORY) -> None:
    """Refuse a suite whose vectors, rankings and scores do not fit; the message states needed and free memory.

    Args:
        model: an embedder, or BM25; an embedder without `dimension` is not checked.
        depth: number of documents per query that count.
        in_memory: largest number of documents whose vectors stay in memory.

    Raises:
        InputError: memory or disk is too small, in one line.
    """
    dimension, available = dimension_of(model), free_memory()
    for one in suite.members:
        if isinstance(model, Bm25Model):
            need, how = (_need_of_bm25(one, depth) if isinstance(one, RetrievalSuite) else MemoryNeed()), "by BM25"
        elif dimension is None:
            continue
        else:
            need, how = _need_of_vectors(one, dimension, depth, available, in_memory), f"in {dimension} dimensions"
        smaller = "" if dimension is None else "a smaller dimension (model.head), "
        require_memory(
            f"{one.name}: evaluating {one.size()} {how}",
            need.total,
            available,
            f"use a part of it ({one.how_to_shrink()}, docs/guides/evaluation.md), {smaller}or a machine with more",
            parts=need.sentence(),
        )


def _need_of_vectors(suite: OneSuite, dimension: int, depth: int, available: int, in_memory: int) -> MemoryNeed:
    if not isinstance(suite, RetrievalSuite):
        return _need_of_texts(suite, dimension)
    plan = plan_retrieval(len(suite.queries), len(suite.corpus), dimension, depth, available, in_memory)
    _check_disk(suite.name, plan)
    return plan.need


def _need_of_bm25(suite: RetrievalSuite, depth: int) -> MemoryNeed:
    """Count BM25's index: a number for each word of each document; several while it is built."""
    characters = sum(len(text) + len(title or "") for text, title in suite.corpus)
    places = len(suite.queries) * min(depth, len(suite.corpus))
    return MemoryNeed(
        documents=BM25_CHARACTER * characters,
        rankings=RANKINGS_AT_ONCE * PLACE * places,
        scores=_of_scores(len(suite.queries), min(depth, len(suite.corpus))),
    )


def dimension_of(model: Any) -> int | None:
    """Return a model's dimension D; None if it has no vectors, or does not state it."""
    dimension = getattr(model, "dimension", None)
    return int(dimension) if isinstance(dimension, int) else None


def _with_documents(rest: MemoryNeed, size: int) -> MemoryNeed:
    return MemoryNeed(**(vars(rest) | {"documents": size}))


def _of_scores(queries: int, places: int) -> int:
    """Count the scores of every query, and the rankings of one block of queries while they are scored."""
    return ITEM * queries + JUDGED_PLACE * places * min(queries, QUERIES_PER_BLOCK)


def _need_of_texts(suite: OneSuite, dimension: int) -> MemoryNeed:
    """Count vectors for pairs and rows: one for each distinct text, later also in double precision."""
    if isinstance(suite, StsSuite):
        texts = len({*suite.first, *suite.second})
        doubles = 2 * len(suite.first)
    else:
        assert isinstance(suite, RowSuite)
        texts = doubles = sum(1 + len(row.pos) + len(row.neg) for row in suite.rows)
    items = len(suite.ids)
    return MemoryNeed(queries=4 * dimension * (VECTORS_AT_ONCE * texts + 2 * doubles), scores=ITEM * items)


def _check_disk(name: str, plan: CorpusPlan) -> None:
    if not plan.on_disk:
        return
    cache().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache()).free
    if plan.on_disk > free:
        raise InputError(
            f"{name}: its document vectors take {format_bytes(plan.on_disk)} of disk while it is evaluated, "
            f"{format_bytes(free)} are free in {cache()}; free some, set GEMMA4VEC_CACHE to another disk, or use "
            "a part of the suite (max_documents in a list of suites, docs/guides/evaluation.md)"
        )
