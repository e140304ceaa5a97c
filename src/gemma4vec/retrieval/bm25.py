"""BM25 over bm25s' eager index (Lù, 2024), with ties that do not depend on the machine.

The Lucene variant with k1 = 0.9 and b = 0.4 (Kamphuis et al., 2020; the BEIR baseline's parameters).
Shapes: N queries, M documents, k places.
"""

from collections.abc import Sequence

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.retrieval.tokenise import Tokens, text_tokens
from gemma4vec.retrieval.top_k import Found, top_k

QUERIES_AT_ONCE = 64


class BM25Index:
    """An inverted index in which every (token, document) already holds its BM25 score.

    Build one with `BM25Index.build`. The scores of a token's documents stand side by side: searching adds up columns.
    """

    def __init__(self, tokens: Tokens, vocabulary: dict[str, int], columns: dict[str, np.ndarray], documents: int):
        self.tokens = tokens
        self.vocabulary = vocabulary
        self.documents = documents
        self._columns = columns

    @classmethod
    def build(cls, texts: Sequence[str], tokens: Tokens = text_tokens, k1: float = 0.9, b: float = 0.4) -> "BM25Index":
        """Index `texts`; `tokens` cuts both them and the queries.

        Raises:
            InputError: there is no text.
        """
        if not texts:
            raise InputError("BM25: the corpus is empty; give at least one document")
        vocabulary: dict[str, int] = {}
        token_ids = [[vocabulary.setdefault(token, len(vocabulary)) for token in tokens(text)] for text in texts]
        if not vocabulary:
            return cls(tokens, {}, {}, len(texts))
        return cls(tokens, vocabulary, _columns(token_ids, vocabulary, k1, b), len(texts))

    def search(
        self,
        queries: Sequence[str],
        k: int,
        exclude: Sequence[set[int]] | None = None,
        descending_id_rank: np.ndarray | None = None,
    ) -> Found:
        """The k best documents of each query that share at least one token with it.

        Args:
            queries: N texts.
            k: how many documents to return; -1 and -inf pad the rows of queries with fewer.
            exclude: for each query, documents that must not be returned.
            descending_id_rank: int64[M], see `top_k.descending_id_rank`; without it the earlier document wins a tie.
        """
        found = [
            top_k(self._block(queries, start, exclude), k, descending_id_rank)
            for start in range(0, len(queries), QUERIES_AT_ONCE)
        ]
        if not found:
            return Found(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
        return Found(np.concatenate([part.indices for part in found]), np.concatenate([part.scores for part in found]))

    def scores(self, query: str) -> np.ndarray:
        """float32[M]: every document's BM25 score, 0 where it shares no token; a token asked twice counts twice."""
        scores_M = np.zeros(self.documents, dtype=np.float32)
        for token in self.tokens(query):
            column = self.vocabulary.get(token)
            if column is not None:
                start, end = self._columns["indptr"][column : column + 2]
                scores_M[self._columns["indices"][start:end]] += self._columns["data"][start:end]
        return scores_M

    def _block(self, queries: Sequence[str], start: int, exclude: Sequence[set[int]] | None) -> np.ndarray:
        """float32[<=64, M] scores, -inf for documents that must not be returned."""
        block = np.stack([self.scores(query) for query in queries[start : start + QUERIES_AT_ONCE]])
        block[block <= 0] = -np.inf
        for row, excluded in enumerate((exclude or [])[start : start + QUERIES_AT_ONCE]):
            block[row, list(excluded)] = -np.inf
        return block


def _columns(token_ids: list[list[int]], vocabulary: dict[str, int], k1: float, b: float) -> dict[str, np.ndarray]:
    """bm25s' score matrix in compressed columns: one column per token, one row per document."""
    import bm25s

    scorer = bm25s.BM25(k1=k1, b=b, method="lucene")
    scorer.index((token_ids, dict(vocabulary)), create_empty_token=False, show_progress=False)
    return {name: scorer.scores[name] for name in ("data", "indices", "indptr")}
