"""Topics of a suite's queries: clusters in a space that no trained model moves, named by their words.

The space is TF-IDF of the suite's documents, reduced by SVD: the same for every model. Groups that "fail" are luck
until shown otherwise: p is that of the largest gap over all clusters (max-T), on the discovery half.

Legend: N queries, M documents, V words, S dimensions, k clusters.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2
from scipy.sparse import csr_matrix

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.attributes import WORD, whole_text
from gemma4vec.retrieval.tokenize import WordTokenizer
from gemma4vec.statistics.slices.max_t import max_t

DOCUMENTS = 20_000  # that the space is made from
DIMENSIONS = 50
OVERSAMPLED, POWERS = 10, 4  # of the random projection
FEWEST, MOST = 4, 15  # clusters
QUERIES_EACH = 30
WORDS = 4  # of a name
SMALLEST = 10  # queries of the discovery half in a cluster that is tested
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def cluster_queries(
    suite: RetrievalSuite,
    tokenize: WordTokenizer,
    values_N: Floats,
    open_N: npt.NDArray[np.bool_],
    *,
    permutations: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The contents of `clusters.json`.

    Args:
        values_N: of every query, such as differences from BM25; only those of the discovery half are used.
        open_N: queries of the discovery half, bool[N].
    """
    k = int(np.clip(len(suite.queries) // QUERIES_EACH, 0, MOST))
    if k < FEWEST:
        return {"clusters": [], "queries": {}, "note": f"{len(suite.queries)} queries are too few for topics"}
    vectors_NS = query_space(suite, tokenize, seed)
    if len(np.unique(vectors_NS, axis=0)) < k:
        return {"clusters": [], "queries": {}, "note": "the queries share too few words with the documents"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster is left out
        _, assigned = kmeans2(vectors_NS, k, minit="++", seed=seed, iter=50)
    label_N = _by_size(np.asarray(assigned, dtype=np.int64))
    names = name_clusters(suite.queries, label_N, tokenize)
    masks = [(label_N == cluster) & open_N for cluster in range(len(names))]
    testable = [at for at, mask in enumerate(masks) if SMALLEST <= mask.sum() <= open_N.sum() - SMALLEST]
    tests = {}
    if testable and np.ptp(values_N[open_N]) > 0.0:
        tested = max_t(
            values_N[open_N], np.array([masks[at][open_N] for at in testable]), permutations=permutations, seed=seed
        )
        tests = dict(zip(testable, tested, strict=True))
    found = []
    for cluster, words in enumerate(names):
        test = tests.get(cluster)
        told = {"inside": test.inside, "outside": test.outside, "gap": test.gap} if test is not None else {}
        p = {"p": test.p, "p_max_t": test.p_max_t} if test is not None else {}
        members = label_N == cluster
        found.append(
            {
                "cluster": cluster,
                "words": words,
                "n": int((members & open_N).sum()),
                "n_sealed": int((members & ~open_N).sum()),
                **dict.fromkeys(("inside", "outside", "gap", "p", "p_max_t")),
                **told,
                **p,
            }
        )
    return {
        "clusters": found,
        "queries": dict(zip(suite.query_ids, label_N.tolist(), strict=True)),
        "space": f"TF-IDF of the documents, {vectors_NS.shape[1]} dimensions",
        "tested": len(tests),
        "note": "",
    }


def query_space(suite: RetrievalSuite, tokenize: WordTokenizer, seed: int) -> Floats:
    """Queries in the space, rows of unit length or zeros, float64[N, S]."""
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.permutation(len(suite.corpus))[:DOCUMENTS])
    documents = [tokenize(whole_text(suite.corpus[at])) for at in drawn.tolist()]
    counted = Counter(token for tokens in documents for token in set(tokens))
    place = {token: at for at, token in enumerate(sorted(token for token, count in counted.items() if count > 1))}
    if len(place) < 3:
        return np.zeros((len(suite.queries), 1))
    idf_V = np.log(len(documents) / np.array([counted[token] for token in place]))
    documents_MV = _tf_idf(documents, place, idf_V)
    axes_SV = main_axes(documents_MV, DIMENSIONS, generator)
    queries_NV = _tf_idf([tokenize(query) for query in suite.queries], place, idf_V)
    projected_NS = np.asarray(queries_NV @ axes_SV.T)
    norms: Floats = np.linalg.norm(projected_NS, axis=1, keepdims=True)
    return projected_NS / np.where(norms > 1e-9, norms, 1.0)


def main_axes(rows_MV: csr_matrix, dimensions: int, generator: np.random.Generator) -> Floats:
    """The first right singular vectors, float64[S, V], by a random projection (Halko et al. 2011, algorithm 4.4).

    Fewer than `dimensions` where the rows span fewer.
    """
    width = min(dimensions + OVERSAMPLED, *rows_MV.shape)
    found = rows_MV @ generator.normal(size=(rows_MV.shape[1], width))
    for _ in range(POWERS):
        basis, _ = np.linalg.qr(found)
        found = rows_MV @ (rows_MV.T @ basis)
    basis, _ = np.linalg.qr(found)
    _, values_S, axes_SV = np.linalg.svd(np.asarray((rows_MV.T @ basis).T), full_matrices=False)
    kept: Floats = axes_SV[: min(dimensions, int((values_S > 1e-9 * values_S[0]).sum()))]
    return kept


def name_clusters(texts: Sequence[str], label_N: Ints, tokenize: WordTokenizer) -> list[str]:
    """Each cluster's words by c-TF-IDF (Grootendorst 2022, arXiv:2203.05794): frequent in it, rare in all together."""
    counts: list[Counter[str]] = [Counter() for _ in range(int(label_N.max()) + 1)]
    for text, label in zip(texts, label_N.tolist(), strict=True):
        counts[label].update(word for word in WORD.findall(text.lower()) if tokenize(word))
    whole = sum(counts, Counter())
    average = sum(whole.values()) / len(counts)
    names = []
    for counted in counts:
        size = max(sum(counted.values()), 1)
        weights = {word: count / size * np.log(1.0 + average / whole[word]) for word, count in counted.items()}
        names.append(", ".join(sorted(weights, key=lambda word: (-weights[word], word))[:WORDS]))
    return names


def _tf_idf(texts: Sequence[Sequence[str]], place: dict[str, int], idf_V: Floats) -> csr_matrix:
    """Rows of (1 + log tf) * idf at unit length."""
    rows, columns, values = [], [], []
    for row, tokens in enumerate(texts):
        counted = Counter(place[token] for token in tokens if token in place)
        weights = {at: (1.0 + np.log(count)) * idf_V[at] for at, count in counted.items()}
        norm = float(np.sqrt(sum(value**2 for value in weights.values()))) or 1.0
        rows += [row] * len(weights)
        columns += list(weights)
        values += [value / norm for value in weights.values()]
    return csr_matrix((values, (rows, columns)), shape=(len(texts), len(place)))


def _by_size(assigned_N: Ints) -> Ints:
    """Clusters numbered from the largest, without empty ones."""
    labels, counts = np.unique(assigned_N, return_counts=True)
    order = {int(label): at for at, label in enumerate(labels[np.argsort(-counts, kind="stable")])}
    return np.array([order[label] for label in assigned_N.tolist()])
