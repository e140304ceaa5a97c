"""What fewer dimensions and fewer bits cost: nDCG@10 minus that of the whole vectors, paired over queries.

First k dimensions beside random k: a model whose first k are no better than any k was not trained to be cut
(arXiv:2508.17744), however small the loss.

Legend: N queries, M documents, D dimensions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gemma4vec.evaluation.scoring.metrics import per_query
from gemma4vec.inspection.geometry.figures import Figure
from gemma4vec.retrieval.exact import search
from gemma4vec.retrieval.top_k import descending_id_rank as id_rank
from gemma4vec.statistics.student import t_interval

Vectors = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]
DRAWS = 3  # random choices of k dimensions
SHARES = (2, 4, 8)  # of D
TOP = 10
METRIC = f"ndcg@{TOP}"
LEAST = 8  # dimensions


class CutVectors:
    """Ranks with changed vectors and compares with the whole ones.

    Args:
        queries_ND, documents_MD: unit vectors.
        query_ids, document_ids: theirs.
        qrels: judgments of these queries.
        seed: of random dimensions.
    """

    def __init__(
        self,
        queries_ND: Vectors,
        documents_MD: Vectors,
        query_ids: Sequence[str],
        document_ids: Sequence[str],
        qrels: Mapping[str, Mapping[str, int]],
        seed: int = 0,
    ) -> None:
        self.queries_ND, self.documents_MD = queries_ND, documents_MD
        self.query_ids, self.document_ids, self.qrels = query_ids, document_ids, qrels
        self.generator = np.random.default_rng(seed)
        self.rank_M = id_rank(list(document_ids))
        self.whole_NK, self.whole_N = self._score(queries_ND, documents_MD)

    def figures(self) -> list[Figure]:
        """Dimensions at a half, a quarter and an eighth; int8, binary and centered binary."""
        width = self.queries_ND.shape[1]
        kept = [width // share for share in SHARES if width // share >= LEAST]
        mean_D, axes_DK = principal_axes(self.documents_MD, max(kept, default=0))
        turned_ND = _turn(self.queries_ND, mean_D, axes_DK)
        turned_MD = _turn(self.documents_MD, mean_D, axes_DK)
        found = [figure for k in kept for figure in self._dimensions(k, turned_ND[:, :k], turned_MD[:, :k])]
        return found + self._codes()

    def _dimensions(self, k: int, turned_ND: Vectors, turned_MD: Vectors) -> list[Figure]:
        width = self.queries_ND.shape[1]
        drawn = [self.generator.permutation(width)[:k] for _ in range(DRAWS)]
        random_N = np.mean([self._score_unit(self.queries_ND[:, d], self.documents_MD[:, d]) for d in drawn], axis=0)
        baseline = float((random_N - self.whole_N).mean())
        first_N = self._score_unit(self.queries_ND[:, :k], self.documents_MD[:, :k])
        turned_N = self._score_unit(turned_ND, turned_MD)
        source = "Takeshita et al. 2025, arXiv:2508.17744"
        of = f"{k} random dimensions, mean of {DRAWS} draws"
        return [
            self._figure(f"first {k} of {width}", f"the first {k} dimensions alone", first_N, baseline, of, source),
            self._figure(
                f"PCA {k} of {width}", f"the {k} main axes of the documents, centered", turned_N, baseline, of, source
            ),
        ]

    def _codes(self) -> list[Figure]:
        mean_D = self.documents_MD.mean(axis=0)
        changed = {
            "int8": ("documents in 8 bits a dimension", self.queries_ND, int8(self.documents_MD)),
            "binary": ("signs alone", signs(self.queries_ND), signs(self.documents_MD)),
            "centered binary": (
                "signs after subtracting the documents' mean",
                signs(self.queries_ND - mean_D),
                signs(self.documents_MD - mean_D),
            ),
        }
        source = "Shakir et al. 2024, huggingface.co/blog/embedding-quantization"
        found = []
        for name, (words, queries_ND, documents_MD) in changed.items():
            top_NK, values_N = self._score(queries_ND, documents_MD)
            found.append(self._figure(name, words, values_N, 0.0, "the whole vectors", source))
            kept_N = np.array([len(set(a) & set(b)) / len(a) for a, b in zip(top_NK, self.whole_NK, strict=True)])
            interval = t_interval(kept_N)
            found.append(
                Figure(
                    f"{name}: first ten kept",
                    f"share of the whole vectors' first ten, {words}",
                    float(kept_N.mean()),
                    interval.low,
                    interval.high,
                    1.0,
                    "the whole vectors",
                    len(kept_N),
                    source,
                )
            )
        return found

    def _figure(self, name: str, words: str, values_N: Values, baseline: float, of: str, source: str) -> Figure:
        interval = t_interval(values_N - self.whole_N)
        what = f"change of nDCG@10 (whole vectors: {self.whole_N.mean():.3f}) with {words}"
        return Figure(name, what, interval.mean, interval.low, interval.high, baseline, of, len(values_N), source)

    def _score_unit(self, queries_ND: Vectors, documents_MD: Vectors) -> Values:
        return self._score(_unit(queries_ND), _unit(documents_MD))[1]

    def _score(self, queries_ND: Vectors, documents_MD: Vectors) -> tuple[npt.NDArray[np.int64], Values]:
        """First ten documents of each query, and nDCG@10, float64[N]."""
        return rank_sample(
            queries_ND, documents_MD, self.query_ids, self.document_ids, self.qrels, descending_id_rank=self.rank_M
        )


def rank_sample(
    queries_ND: Vectors,
    documents_MD: Vectors,
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    descending_id_rank: npt.NDArray[np.int64] | None = None,
) -> tuple[npt.NDArray[np.int64], Values]:
    """First ten documents of each query among these, int64[N, 10], and nDCG@10, float64[N], with the usual tie rule."""
    rank_M = id_rank(list(document_ids)) if descending_id_rank is None else descending_id_rank
    found = search(queries_ND, documents_MD, min(TOP, len(documents_MD)), descending_id_rank=rank_M)
    return found.indices, per_query(found.indices, found.scores, query_ids, document_ids, qrels, [METRIC])[METRIC]


def principal_axes(documents_MD: Vectors, k: int) -> tuple[Vectors, Vectors]:
    """Mean of the documents, [D], and their k main axes, [D, k]."""
    mean_D = documents_MD.mean(axis=0)
    centered_MD = documents_MD - mean_D
    _, axes_DD = np.linalg.eigh(centered_MD.T @ centered_MD)
    return mean_D, np.asarray(axes_DD[:, ::-1][:, :k], dtype=np.float32)


def int8(documents_MD: Vectors) -> Vectors:
    """Documents in 256 steps between each dimension's least and largest value, as floats again: middles of steps."""
    low_D, step_D = _steps(documents_MD)
    return np.asarray((int8_codes(documents_MD).astype(np.float32) + 128.5) * step_D + low_D, dtype=np.float32)


def int8_codes(documents_MD: Vectors) -> npt.NDArray[np.int8]:
    """The codes, int8[M, D], as sentence-transformers' `quantize_embeddings` makes them."""
    low_D, step_D = _steps(documents_MD)
    return np.asarray((np.clip(np.floor((documents_MD - low_D) / step_D), 0, 255) - 128).astype(np.int8))


def _steps(documents_MD: Vectors) -> tuple[Vectors, Vectors]:
    """Least value of each dimension, and the width of its steps, [D]."""
    low_D = documents_MD.min(axis=0)
    step_D = (documents_MD.max(axis=0) - low_D) / np.float32(255)
    return low_D, np.where(step_D == 0, np.float32(1), step_D)


def signs(vectors: Vectors) -> Vectors:
    """+1 above 0, else -1: the inner product of two is D minus twice their Hamming distance."""
    return np.where(vectors > 0.0, np.float32(1.0), np.float32(-1.0))


def _turn(vectors: Vectors, mean_D: Vectors, axes_DK: Vectors) -> Vectors:
    return np.asarray((vectors - mean_D) @ axes_DK, dtype=np.float32)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0.0, lengths, 1.0), dtype=np.float32)
