"""Hard negatives by BM25: documents that share words with the query but do not answer it (Karpukhin et al., 2020)."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gemma4vec.data.rows.rows import Row
from gemma4vec.retrieval.bm25 import BM25Index
from gemma4vec.retrieval.tokenize import WordTokenizer, tokenize_text
from gemma4vec.text.prompts import Document

logger = logging.getLogger(__name__)

BLOCK = 1_000


def mine_bm25(
    rows: Sequence[Row],
    corpus: Sequence[Document],
    n: int,
    rank_window: tuple[int, int] = (0, 30),
    tokens: WordTokenizer = tokenize_text,
) -> list[Row]:
    """The rows, each with up to `n` mined negatives appended to its own.

    `n` documents are drawn from those that BM25 ranks in the window, in rank order. The draw is seeded by the query, so
    a row's negatives do not depend on other rows. The row's own texts are never negatives. The caller keeps
    near-duplicates of positives out of the corpus (`data.pycode.near_duplicates`).

    Args:
        rows: rows that need negatives.
        corpus: documents to mine from.
        n: negatives to add to each row; fewer if the window has fewer.
        rank_window: first rank (from 0) and the rank after the last; a higher start avoids unjudged positives.
        tokens: how texts are cut.
    """
    if n < 1 or not rows:
        return list(rows)
    low, high = rank_window
    index = BM25Index.build([" ".join(filter(None, (title, text))) for text, title in corpus], tokens)
    places: dict[str, set[int]] = {}
    for place, document in enumerate(corpus):
        places.setdefault(document.text, set()).add(place)
    mined: list[Row] = []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        own = [set().union(*(places.get(text, ()) for text, _ in (*row.pos, *row.neg))) for row in block]
        found = index.search([row.query for row in block], high, exclude=own)
        for row, ranked in zip(block, found.indices[:, low:], strict=True):
            chosen = _draw(row.query, ranked[ranked >= 0], n)
            # The teacher that scored the row has not scored the new negatives.
            mined.append(replace(row, neg=[*row.neg, *(corpus[place] for place in chosen)], scores=None))
        logger.info(f"mining hard negatives: {len(mined)} of {len(rows)}")
    return mined


def _draw(query: str, ranked: np.ndarray, n: int) -> np.ndarray:
    """`n` of the candidates, drawn without replacement, in rank order."""
    if len(ranked) <= n:
        return ranked
    seed = int.from_bytes(hashlib.sha256(query.encode("utf-8", errors="surrogatepass")).digest()[:8], "little")
    return ranked[np.sort(np.random.default_rng(seed).choice(len(ranked), n, replace=False))]
