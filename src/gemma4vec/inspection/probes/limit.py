"""LIMIT on the user's own words: how many pairs of documents vectors of k dimensions can name (arXiv:2508.21038).

Every pair of documents shares one word that no other document has, and the query asks for it: both must come first. It
is a task of memory, not of meaning, which BM25 solves; what matters is where the curve over dimensions stops rising.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from gemma4vec.inspection.attributes import WORD, whole_text
from gemma4vec.inspection.probes.registry import Material
from gemma4vec.retrieval.bm25 import BM25Index
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextEmbedder

DOCUMENTS = 46  # as in the paper's small set
LEAST_DOCUMENTS = 8
LETTERS = range(4, 11)
SHOWN = 2  # documents of a query


@dataclass(frozen=True)
class LimitCurve:
    """Recall of both documents among the first two, by dimensions.

    Attributes:
        recall: first k dimensions -> share of the right documents among the first two.
        random_recall: of k random dimensions, as a baseline.
        bm25: of BM25; chance: of a random order.
    """

    documents: int
    queries: int
    recall: dict[int, float]
    random_recall: dict[int, float]
    bm25: float
    chance: float

    def as_json(self) -> dict[str, Any]:
        """For probes.json."""
        return asdict(self)


def limit_curve(model: TextEmbedder, material: Material) -> LimitCurve | None:
    """Measure; None where the corpus has too few different words."""
    words = _words(material)
    documents = _most_documents(len(words))
    if documents < LEAST_DOCUMENTS:
        return None
    pairs = list(combinations(range(documents), SHOWN))
    generator = material.generator("limit")
    chosen = [words[at] for at in generator.permutation(len(words))[: len(pairs)].tolist()]
    liked: list[list[str]] = [[] for _ in range(documents)]
    for word, pair in zip(chosen, pairs, strict=True):
        for one in pair:
            liked[one].append(word)
    texts = [Document(", ".join(words_of) + ".") for words_of in liked]
    right_N2 = np.array(pairs)
    queries_ND = np.asarray(model.encode_query(chosen), dtype=np.float64)
    documents_MD = np.asarray(model.encode_document(texts), dtype=np.float64)
    size = queries_ND.shape[1]
    sizes = sorted({size, *(one for one in (8, 16, 32, 64, 128, 256, 512, 1024, 2048) if one < size)})
    order = generator.permutation(size)
    index = BM25Index.build([one.text for one in texts], material.tokenize)
    lexical_NM = np.array([index.scores(word) for word in chosen])
    return LimitCurve(
        documents,
        len(pairs),
        {k: _recall(queries_ND[:, :k], documents_MD[:, :k], right_N2) for k in sizes},
        {k: _recall(queries_ND[:, order[:k]], documents_MD[:, order[:k]], right_N2) for k in sizes},
        recall_of(lexical_NM, right_N2),
        SHOWN / documents,
    )


def recall_of(scores_NM: np.ndarray, right_N2: np.ndarray) -> float:
    """Share of the right documents among the first two; of equal scores the earlier document comes first."""
    first_N2 = np.argsort(-scores_NM, axis=1, kind="stable")[:, :SHOWN]
    return float(np.mean([np.isin(right, first).mean() for right, first in zip(right_N2, first_N2, strict=True)]))


def _recall(queries_ND: np.ndarray, documents_MD: np.ndarray, right_N2: np.ndarray) -> float:
    return recall_of(_unit(queries_ND) @ _unit(documents_MD).T, right_N2)


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.maximum(norms, 1e-12)


def _words(material: Material) -> list[str]:
    """Words of the corpus that BM25 keeps as one token each, all different."""
    counted = Counter(
        word for one in material.suite.corpus[:5000] for word in set(WORD.findall(whole_text(one).lower()))
    )
    tokens: dict[str, str] = {}
    for word in sorted(counted, key=lambda one: (-counted[one], one)):
        if len(word) in LETTERS and word.isalpha() and len(found := material.tokenize(word)) == 1:
            tokens.setdefault(found[0], word)
    return list(tokens.values())


def _most_documents(words: int) -> int:
    """The largest number of documents whose pairs have a word each."""
    return min(DOCUMENTS, int((1 + np.sqrt(1 + 8 * words)) / 2))
