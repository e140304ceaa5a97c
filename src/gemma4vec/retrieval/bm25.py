"""BM25 over bm25s' eager index (Lù, 2024), with ties that do not depend on the machine.

The Lucene variant (Kamphuis et al., 2020). For prose k1 = 0.9 and b = 0.4, the BEIR baseline's parameters. Functions
differ in length far more than passages do: b = 0.9 and k1 = 1.2 were best on packages that pycode trains on.
Shapes: N queries, M documents, k places.
"""

from collections.abc import Sequence

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.retrieval.tokenize import WordTokenizer, tokenize_code, tokenize_code_fields, tokenize_text
from gemma4vec.retrieval.top_k import TopK, top_k_of_row

PROSE, CODE = (0.9, 0.4), (1.2, 0.9)  # k1, b


class BM25Index:
    """An inverted index in which every (token, document) already holds its BM25 score.

    Build one with `BM25Index.build`. The scores of a token's documents stand side by side: searching adds up columns.
    """

    def __init__(
        self, tokenize: WordTokenizer, vocabulary: dict[str, int], columns: dict[str, np.ndarray], documents: int
    ):
        self.tokenize = tokenize
        self.vocabulary = vocabulary
        self.documents = documents
        self._columns = columns

    @classmethod
    def build(
        cls,
        texts: Sequence[str],
        tokenize: WordTokenizer = tokenize_text,
        k1: float | None = None,
        b: float | None = None,
    ) -> "BM25Index":
        """Index `texts`; `tokenize` splits texts and queries and sets the defaults of `k1` and `b`.

        Raises:
            InputError: there is no text.
        """
        if not texts:
            raise InputError("BM25: the corpus is empty; give at least one document")
        vocabulary: dict[str, int] = {}
        token_ids = [[vocabulary.setdefault(token, len(vocabulary)) for token in tokenize(text)] for text in texts]
        if not vocabulary:
            return cls(tokenize, {}, {}, len(texts))
        default_k1, default_b = default_parameters(tokenize)
        k1, b = default_k1 if k1 is None else k1, default_b if b is None else b
        return cls(tokenize, vocabulary, _columns(token_ids, vocabulary, k1, b), len(texts))

    def search(
        self,
        queries: Sequence[str],
        k: int,
        exclude: Sequence[set[int]] | None = None,
        descending_id_rank: np.ndarray | None = None,
    ) -> TopK:
        """The k best documents of each query that share at least one token with it.

        Args:
            queries: N texts.
            k: how many documents to return; -1 and -inf pad the rows of queries with fewer.
            exclude: for each query, documents that must not be returned.
            descending_id_rank: int64[M], see `top_k.descending_id_rank`; without it the earlier document wins a tie.
        """
        found = []
        for row, query in enumerate(queries):
            scores_M = self.scores(query)
            if exclude is not None:
                scores_M[list(exclude[row])] = 0.0
            found.append(self.best(scores_M, k, descending_id_rank))
        if not found:
            return TopK(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
        indices, scores = (np.stack(parts) for parts in zip(*found, strict=True))
        return TopK(indices, scores)

    def best(self, scores_M: np.ndarray, k: int, descending_id_rank: np.ndarray | None = None) -> TopK:
        """The k documents with the highest of such scores as `scores` gives, int64[k] and float32[k]; none with 0."""
        sharing = np.flatnonzero(scores_M > 0)  # most documents share no token with a short query
        rank = None if descending_id_rank is None else descending_id_rank[sharing]
        indices, scores = top_k_of_row(scores_M[sharing], k, rank)
        return TopK(np.where(indices < 0, -1, sharing[indices] if len(sharing) else -1), scores)

    def scores(self, query: str) -> np.ndarray:
        """float32[M]: every document's BM25 score, 0 where it shares no token; a token asked twice counts twice."""
        scores_M = np.zeros(self.documents, dtype=np.float32)
        for token in self.tokenize(query):
            column = self.vocabulary.get(token)
            if column is not None:
                start, end = self._columns["indptr"][column : column + 2]
                scores_M[self._columns["indices"][start:end]] += self._columns["data"][start:end]
        return scores_M


def default_parameters(tokenize: WordTokenizer) -> tuple[float, float]:
    """k1 and b for what a tokenizer reads: code or prose."""
    return CODE if tokenize in (tokenize_code, tokenize_code_fields) else PROSE


def _columns(token_ids: list[list[int]], vocabulary: dict[str, int], k1: float, b: float) -> dict[str, np.ndarray]:
    """bm25s' score matrix in compressed columns: one column per token, one row per document."""
    import bm25s

    scorer = bm25s.BM25(k1=k1, b=b, method="lucene")
    scorer.index((token_ids, dict(vocabulary)), create_empty_token=False, show_progress=False)
    return {name: scorer.scores[name] for name in ("data", "indices", "indptr")}
