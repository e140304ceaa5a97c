"""Does an evaluation fit into memory? Counted before the first text is encoded, not found out hours later.

What is counted are the arrays that grow with the suite; the model, the texts and the libraries are there already and
are part of what is not free. Legend: N queries, M documents, D dimensions, K ranks. Sizes are in bytes.
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

IN_MEMORY = 262_144  # documents whose vectors are held in memory; those of a larger corpus go to a file
LEAST_BLOCK = 1_024  # documents that are encoded at a time, at least
VECTORS_AT_ONCE = 3  # copies while vectors are made: those that are kept, those that are new, those that are stored
RANKINGS_AT_ONCE = 3  # as they are found, put together, and freed of what does not count
PLACE = 12  # bytes of one place of a ranking: index and score
CANDIDATE = 28  # of one candidate of the search
BM25_CHARACTER = 8  # for each character of the corpus: BM25's index while it is made (measured: 4.6), and its texts
ITEM = 8_000  # of a query's scores and first ranks, in Python's objects (measured: 5,300)
JUDGED_PLACE = 120  # of one place of a ranking while trec_eval judges it (measured: 51, and its own copy)


@dataclass(frozen=True)
class MemoryNeed:
    """What an evaluation takes at its peak, in bytes, by what takes it.

    Attributes:
        documents: vectors of the corpus, or of one block of it where they go to a file; BM25's index.
        queries: vectors of the queries (of pairs and rows: of all texts).
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
        """All of it."""
        return sum(vars(self).values())

    def sentence(self) -> str:
        """The parts, largest first."""
        parts = sorted(((getattr(self, part.name), part.name) for part in fields(self)), reverse=True)
        return ", ".join(f"{name} {format_bytes(size)}" for size, name in parts if size >= self.total / 20)


@dataclass(frozen=True)
class Plan:
    """How a corpus's vectors are held.

    Attributes:
        block: documents that are encoded at a time; the whole corpus where its vectors stay in memory.
        on_disk: size of the file that they go to; 0: memory.
    """

    block: int
    on_disk: int
    need: MemoryNeed


def plan_retrieval(
    queries: int, documents: int, dimension: int, depth: int, available: int, in_memory: int = IN_MEMORY
) -> Plan:
    """Where the vectors of a corpus go: memory, or a file where they are many, or would take half of what is free.

    Args:
        depth: ranks kept of each query.
        available: memory that is free, in bytes.
        in_memory: documents whose vectors are held in memory at most.
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
        return Plan(documents, 0, _with_documents(rest, whole))
    fitting = (available - rest.total) // 2 // (VECTORS_AT_ONCE * vector)
    block = min(documents, in_memory, max(LEAST_BLOCK, fitting))
    on_disk = vector * documents if block < documents else 0
    return Plan(block, on_disk, _with_documents(rest, VECTORS_AT_ONCE * vector * block))


def check_suite_memory(suite: AnySuite, model: Any, depth: int, in_memory: int = IN_MEMORY) -> None:
    """Refuse a suite whose vectors, rankings and scores would not fit, naming what is needed and what there is.

    Args:
        model: what encodes, or BM25; of one that does not say its dimension nothing is known.

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
    """Its index holds a number for each word of each document; while it is made, several."""
    characters = sum(len(text) + len(title or "") for text, title in suite.corpus)
    places = len(suite.queries) * min(depth, len(suite.corpus))
    return MemoryNeed(
        documents=BM25_CHARACTER * characters,
        rankings=RANKINGS_AT_ONCE * PLACE * places,
        scores=_of_scores(len(suite.queries), min(depth, len(suite.corpus))),
    )


def dimension_of(model: Any) -> int | None:
    """D of a model that makes vectors; None of one that makes none, or does not say."""
    dimension = getattr(model, "dimension", None)
    return int(dimension) if isinstance(dimension, int) else None


def _with_documents(rest: MemoryNeed, size: int) -> MemoryNeed:
    return MemoryNeed(**(vars(rest) | {"documents": size}))


def _of_scores(queries: int, places: int) -> int:
    """Scores of every query, and some queries' rankings as they are judged."""
    return ITEM * queries + JUDGED_PLACE * places * min(queries, QUERIES_PER_BLOCK)


def _need_of_texts(suite: OneSuite, dimension: int) -> MemoryNeed:
    """Of pairs and rows every different text has a vector, which is then held in double precision too."""
    if isinstance(suite, StsSuite):
        texts = len({*suite.first, *suite.second})
        doubles = 2 * len(suite.first)
    else:
        assert isinstance(suite, RowSuite)
        texts = doubles = sum(1 + len(row.pos) + len(row.neg) for row in suite.rows)
    items = len(suite.ids)
    return MemoryNeed(queries=4 * dimension * (VECTORS_AT_ONCE * texts + 2 * doubles), scores=ITEM * items)


def _check_disk(name: str, plan: Plan) -> None:
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
