"""RM3: a query with the words that its first hits use, the usual word-based expansion.

Shapes: M documents.
"""

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from gemma4vec.retrieval.bm25 import BM25Index

Floats = NDArray[np.float64]


def expansion_words(
    index: BM25Index, texts: list[str], query: str, *, documents: int = 10, words: int = 10
) -> dict[str, float]:
    """Words of the first hits with their shares, which sum to 1; empty where nothing is found.

    A document's share is its BM25 score among the hits', a word's its share of the document's words: relevance model 1
    (Lavrenko and Croft, 2001, "Relevance-Based Language Models", eq. 9 with P(q|d) from BM25).

    Args:
        index: of `texts`.
        texts: of the documents.
        query: the query.
        documents: number of first hits to read.
        words: number of words to return.
    """
    best = index.best(index.scores(query), min(documents, index.documents))
    hits = [(int(place), float(score)) for place, score in zip(best.indices, best.scores, strict=True) if place >= 0]
    total = sum(score for _, score in hits)
    shares = defaultdict[str, float](float)
    for place, score in hits:
        tokens = index.tokenize(texts[place])
        for token, count in Counter(tokens).items():
            shares[token] += score / total * count / len(tokens)
    chosen = sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:words]
    whole = sum(share for _, share in chosen)
    return {word: share / whole for word, share in chosen}


def rm3_scores(index: BM25Index, texts: list[str], query: str, *, own: float = 0.5) -> Floats:
    """Scores of all documents `[M]`: `own` of the query's words, the rest of the expansion's (RM3: Abdul-Jaleel et al.,
    2004, "UMass at TREC 2004")."""
    weights = defaultdict[str, float](float)
    tokens = index.tokenize(query)
    for token in tokens:
        weights[token] += own / len(tokens)
    for word, share in expansion_words(index, texts, query).items():
        weights[word] += (1 - own) * share
    scores_M = np.zeros(index.documents)
    for word, weight in weights.items():
        scores_M += weight * index.token_scores(word)
    return scores_M
