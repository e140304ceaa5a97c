"""BM25 as a model to evaluate: the baseline for trained models."""

import time
from typing import Any

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.ranking import Progress, Ranking, no_progress
from gemma4vec.retrieval.bm25 import BM25Index
from gemma4vec.retrieval.tokenize import choose_tokenizer
from gemma4vec.retrieval.top_k import descending_id_rank


class Bm25Model:
    """BM25 over title and text, with tokens for code or for the corpus's language, so that the baseline is strong."""

    name = "bm25"
    fingerprint = "bm25"

    def describe(self) -> dict[str, Any]:
        """Return the settings that the scores depend on."""
        return {
            "backend": "bm25s",
            "variant": "lucene",
            "k1": 0.9,
            "b": 0.4,
            "tokens": "split identifiers for code, else the corpus's language",
        }

    def rank(self, suite: RetrievalSuite, depth: int, progress: Progress = no_progress) -> Ranking:
        """Rank the best `depth` documents that share a token with each query."""
        started = time.perf_counter()
        texts = [f"{title} {text}" if title else text for text, title in suite.corpus]
        index = BM25Index.build(texts, tokenize=choose_tokenizer(texts, code=suite.code))
        progress("documents", len(texts), len(texts))
        built = time.perf_counter()
        indices_NK, scores_NK = index.search(
            suite.queries, min(depth, len(texts)), descending_id_rank=descending_id_rank(suite.corpus_ids)
        )
        progress("search", len(suite.queries), len(suite.queries))
        seconds = {"encode_documents": built - started, "search": time.perf_counter() - built}
        return Ranking(indices_NK, scores_NK, seconds)
