"""BM25 on the eager index of bm25s (Lù, 2024), with ties broken the same way on every machine.

The Lucene variant (Kamphuis et al., 2020). Prose uses the BEIR baseline's k1 = 0.9 and b = 0.4. Functions differ in
length far more than passages: for code k1 = 1.2 and b = 0.9 were best on pycode's training packages.

Shapes: N queries, M documents, k places.
"""

from collections.abc import Sequence

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.retrieval.tokenize import WordTokenizer, tokenize_code, tokenize_code_fields, tokenize_text
from gemma4vec.retrieval.top_k import TopK, top_k_of_row

PROSE, CODE = (0.9, 0.4), (1.2, 0.9)  # k1, b


class BM25Index:
    """Inverted index that stores the BM25 score of every (token, document) pair.

    Build it with `BM25Index.build`. A search adds up the columns of the query's tokens.

    Example:
        >>> index = BM25Index.build(["a red apple", "a green pear", "green tea"])
        >>> index.search(["green pears"], k=2).indices
        array([[1, 2]])
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
        """Return the k best documents of each query, among those that share at least one token with it.

        Args:
            queries: N texts.
            k: number of documents to return; rows with fewer are padded with -1 and -inf.
            exclude: for each query, positions of documents that must not be returned.
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
        """Return the k best documents by scores from `scores`, int64[k] and float32[k]; a score of 0 is no match."""
        sharing = np.flatnonzero(scores_M > 0)  # few documents: most share no token with a short query
        rank = None if descending_id_rank is None else descending_id_rank[sharing]
        indices, scores = top_k_of_row(scores_M[sharing], k, rank)
        return TopK(np.where(indices < 0, -1, sharing[indices] if len(sharing) else -1), scores)

    def scores(self, query: str) -> np.ndarray:
        """Return every document's BM25 score, float32[M]; 0 without a shared token. Repeated query tokens add up."""
        scores_M = np.zeros(self.documents, dtype=np.float32)
        for token in self.tokenize(query):
            self._add(token, scores_M)
        return scores_M

    def token_scores(self, token: str) -> np.ndarray:
        """Return every document's score of one token, as `tokenize` gives it, float32[M]."""
        scores_M = np.zeros(self.documents, dtype=np.float32)
        self._add(token, scores_M)
        return scores_M

    def _add(self, token: str, scores_M: np.ndarray) -> None:
        column = self.vocabulary.get(token)
        if column is not None:
            start, end = self._columns["indptr"][column : column + 2]
            scores_M[self._columns["indices"][start:end]] += self._columns["data"][start:end]


def default_parameters(tokenize: WordTokenizer) -> tuple[float, float]:
    """Return k1 and b for a tokenizer of code or of prose."""
    return CODE if tokenize in (tokenize_code, tokenize_code_fields) else PROSE


def _columns(token_ids: list[list[int]], vocabulary: dict[str, int], k1: float, b: float) -> dict[str, np.ndarray]:
    """Compute bm25s' score matrix in compressed sparse columns: one column per token, one row per document."""
    import bm25s

    scorer = bm25s.BM25(k1=k1, b=b, method="lucene")
    scorer.index((token_ids, dict(vocabulary)), create_empty_token=False, show_progress=False)
    return {name: scorer.scores[name] for name in ("data", "indices", "indptr")}
