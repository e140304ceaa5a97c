"""All figures of one model on one suite, from samples of bounded size."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.dense_ranker import check_unit
from gemma4vec.inspection.geometry.dimensions import CutVectors
from gemma4vec.inspection.geometry.figures import Figure, alignment, document_figures
from gemma4vec.text.text_embedder import TextEmbedder

Ints = npt.NDArray[np.int64]
DOCUMENTS = 10_000  # of the figures of documents alone
SEARCHED = 20_000  # documents that fewer dimensions are searched in
QUERIES = 500
LEAST = 20  # documents, and different vectors


def vector_figures(
    model: TextEmbedder,
    suite: RetrievalSuite,
    queries: Sequence[int],
    right: Sequence[tuple[int, int]],
    shown: Ints,
    *,
    seed: int = 0,
) -> tuple[list[Figure], list[str]]:
    """Measure.

    Args:
        model: its vectors come from the cache, where it has one.
        queries: places of the queries whose judgments may be used: of the open half.
        right: (query, document) places of right documents of these queries.
        shown: documents among the first ranks of each; searched whatever the sample.
        seed: of samples.

    Returns:
        Figures, and sentences about what is missing.

    Raises:
        WorkError: vectors that are not finite or not of unit length.
    """
    if len(suite.corpus) < LEAST or not queries:
        return [], [f"no geometry: {len(suite.corpus)} documents are too few"]
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(queries))[:QUERIES])
    rows = [queries[at] for at in chosen]
    place = {query: at for at, query in enumerate(rows)}
    pairs = [(query, document) for query, document in right if query in place]
    searched = _searched(len(suite.corpus), pairs, shown[chosen], generator)
    documents_MD = model.encode_document([suite.corpus[at] for at in searched])
    ids = [suite.corpus_ids[at] for at in searched]
    check_unit(documents_MD, ids, f"document vectors of {model.name} on {suite.name}", model)
    queries_ND = model.encode_query([suite.queries[row] for row in rows])
    check_unit(
        queries_ND, [suite.query_ids[row] for row in rows], f"query vectors of {model.name} on {suite.name}", model
    )
    if len(np.unique(np.round(documents_MD[:, : min(16, documents_MD.shape[1])], 6), axis=0)) < LEAST:
        return [], [f"no geometry: fewer than {LEAST} different document vectors"]
    few = np.sort(generator.permutation(len(documents_MD))[:DOCUMENTS])
    figures = document_figures(documents_MD[few], seed=seed)
    at_document = {int(document): at for at, document in enumerate(searched)}
    if len(pairs) > 1:
        of_queries = np.array([place[query] for query, _ in pairs])
        of_documents = np.array([at_document[document] for _, document in pairs])
        figures.append(alignment(queries_ND[of_queries], documents_MD[of_documents], seed=seed))
    qrels = {suite.query_ids[row]: suite.qrels[suite.query_ids[row]] for row in rows}
    cut = CutVectors(queries_ND, documents_MD, list(qrels), ids, qrels, seed)
    notes = [] if len(searched) == len(suite.corpus) else [f"geometry from {len(searched):,} documents"]
    return [*figures, *cut.figures()], notes


def _searched(documents: int, pairs: Sequence[tuple[int, int]], shown: Ints, generator: np.random.Generator) -> Ints:
    """Places of the documents that are searched: all, or right and shown ones and a sample of the rest."""
    if documents <= SEARCHED:
        return np.arange(documents)
    needed = np.unique(np.concatenate([shown[shown >= 0].ravel(), np.array([one for _, one in pairs], dtype=np.int64)]))
    drawn = generator.choice(documents, max(SEARCHED - len(needed), 0), replace=False)
    return np.union1d(needed, drawn)
