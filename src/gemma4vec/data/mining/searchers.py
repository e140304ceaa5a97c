"""Searchers for hard negatives: BM25 or an embedding model over a whole corpus.

Shapes: N queries, M documents, D dimensions, k ranks.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gemma4vec.retrieval import exact
from gemma4vec.retrieval.bm25 import BM25Index
from gemma4vec.retrieval.tokenize import choose_tokenizer
from gemma4vec.retrieval.top_k import TopK
from gemma4vec.text.prompts import Document, Prompts
from gemma4vec.text.text_embedder import TextEmbedder

Floats = NDArray[np.float32]


class Bm25Searcher:
    """BM25 over title and text; `code` selects the tokenizer for code."""

    name = "bm25"

    def __init__(self, corpus: Sequence[Document], *, code: bool = False) -> None:
        plain = Prompts()
        texts = [plain.for_document(document).text for document in corpus]
        self.index = BM25Index.build(texts, choose_tokenizer(texts, code=code))

    def search(self, queries: Sequence[str], k: int, own: Sequence[Sequence[int]]) -> tuple[TopK, list[Floats]]:
        """The k best documents for each query except its own, and the scores of its own.

        Args:
            queries: N texts.
            k: number of documents; -1 and -inf pad the rows of queries that share a token with fewer documents.
            own: for each query, indices of documents that must not be returned.

        Returns:
            Indices and scores `[N, k]`, and for each query the scores of its own documents.
        """
        found, own_scores = [], []
        for query, places in zip(queries, own, strict=True):
            scores_M = self.index.scores(query)
            own_scores.append(scores_M[list(places)])
            scores_M[list(places)] = 0.0
            found.append(self.index.best(scores_M, k))
        indices, scores = zip(*found, strict=True)
        return TopK(np.stack(indices), np.stack(scores)), own_scores


class ModelSearcher:
    """Exact search by inner product of unit vectors. The constructor embeds the corpus."""

    def __init__(
        self, model: TextEmbedder, corpus: Sequence[Document], progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.model, self.name = model, model.name
        self.documents_MD = model.encode_document(corpus, progress=progress)

    def search(self, queries: Sequence[str], k: int, own: Sequence[Sequence[int]]) -> tuple[TopK, list[Floats]]:
        """Like `Bm25Searcher.search`, but every document has a score."""
        return self.search_vectors(self.encode(queries), k, own)

    def search_vectors(self, queries_ND: Floats, k: int, own: Sequence[Sequence[int]]) -> tuple[TopK, list[Floats]]:
        """Like `search`, for query vectors `[N, D]`."""
        most = max(map(len, own), default=0)
        found = exact.search(queries_ND, self.documents_MD, k + most)
        own_scores = [self.scores(vector_D, places) for vector_D, places in zip(queries_ND, own, strict=True)]
        return _without_own(found, k, own), own_scores

    def encode(self, queries: Sequence[str]) -> Floats:
        """Vectors of queries: `float32[N, D]`."""
        return self.model.encode_query(list(queries))

    def scores(self, query_D: Floats, places: Sequence[int]) -> Floats:
        """Scores of the documents at `places` for one query."""
        vectors: Floats = np.asarray(self.documents_MD[list(places)], dtype=np.float32)
        return vectors @ query_D


def _without_own(found: TopK, k: int, own: Sequence[Sequence[int]]) -> TopK:
    """The first k documents of each row that are not its own, in order."""
    indices = np.full((len(own), k), -1, dtype=np.int64)
    scores = np.full((len(own), k), -np.inf, dtype=np.float32)
    for row, places in enumerate(own):
        kept = np.flatnonzero((found.indices[row] >= 0) & ~np.isin(found.indices[row], list(places)))[:k]
        indices[row, : len(kept)] = found.indices[row, kept]
        scores[row, : len(kept)] = found.scores[row, kept]
    return TopK(indices, scores)
