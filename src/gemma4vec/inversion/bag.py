"""An attacker that needs no training loop: a ridge regression from vectors to bags of words, in closed form.

It writes no sentence, so what it finds is a lower bound of what a vector tells. Any decoder must beat it.
Shapes: N texts, D dimensions, V words.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from gemma4vec.inversion.measures import split_words, token_set_f1
from gemma4vec.text.text_embedder import Vectors

VOCABULARY = 16_384
PENALTIES = (0.03, 0.3, 3.0, 30.0)
HELD_BACK = 500  # texts of the training side that choose the penalty
BLOCK = 2_048
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class BagInverter:
    """Vectors to words.

    Attributes:
        words: the vocabulary, most frequent first.
        weights_DV, offset_V: the regression's; column V - 1 is the number of different words, the others whether a
            word is in the text.
        penalty: of the ridge.
    """

    words: list[str]
    weights_DV: Floats
    offset_V: Floats
    penalty: float

    def decode(self, vectors_ND: Vectors) -> list[list[str]]:
        """The most probable words of each vector, the most probable first; as many as the regression expects."""
        found: list[list[str]] = []
        for start in range(0, len(vectors_ND), BLOCK):
            scores_BV = vectors_ND[start : start + BLOCK] @ self.weights_DV + self.offset_V
            expected_B = scores_BV[:, -1]
            counts_B = np.clip(np.rint(np.nan_to_num(expected_B, nan=1.0)), 1, len(self.words)).astype(int)
            most = int(counts_B.max(initial=1))
            best_BK = np.argpartition(-scores_BV[:, :-1], most - 1, axis=1)[:, :most]
            own_BK = np.take_along_axis(scores_BV, best_BK, axis=1)
            order_BK = np.take_along_axis(best_BK, np.argsort(-own_BK, axis=1, kind="stable"), axis=1)
            found += [[self.words[word] for word in row[:count]] for row, count in zip(order_BK, counts_B, strict=True)]
        return found


def ridge(vectors_ND: Vectors, targets_NV: "sparse.csr_array", penalty: float) -> tuple[Floats, Floats]:
    """Least squares with a penalty on the squared weights and a free offset: `[D, V]` weights and `[V]` offset.

    The closed form `(X'X + penalty I)^-1 X'Y` on centered vectors; scikit-learn's `Ridge(alpha=penalty)` is the same.
    """
    return _solve(*_moments(vectors_ND, targets_NV), penalty)


def _moments(vectors_ND: Vectors, targets_NV: "sparse.csr_array") -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Mean vector, Gram matrix of the centered vectors, their products with the targets, mean target."""
    mean_D = vectors_ND.mean(axis=0, dtype=np.float64)
    centered_ND = vectors_ND - mean_D.astype(vectors_ND.dtype)
    products_DV = np.asarray((targets_NV.T @ centered_ND).T, dtype=np.float64)
    gram_DD = (centered_ND.T @ centered_ND).astype(np.float64)
    return mean_D, gram_DD, products_DV, np.asarray(targets_NV.mean(axis=0), dtype=np.float64).ravel()


def _solve(
    mean_D: Doubles, gram_DD: Doubles, products_DV: Doubles, mean_V: Doubles, penalty: float
) -> tuple[Floats, Floats]:
    factor = cho_factor(gram_DD + penalty * np.eye(len(gram_DD)))
    weights_DV = cho_solve(factor, products_DV)
    return weights_DV.astype(np.float32), (mean_V - mean_D @ weights_DV).astype(np.float32)


def fit_bag(
    vectors_ND: Vectors,
    texts: Sequence[str],
    *,
    penalty: float | None = None,
    vocabulary: int = VOCABULARY,
    seed: int = 0,
) -> BagInverter:
    """Fit the attacker.

    Args:
        vectors_ND: the texts' vectors.
        texts: what they are vectors of.
        penalty: None takes the best of four on a tenth of these texts, which is then learned from too.
        vocabulary: keep this many of the most frequent words.
        seed: of the draw of that tenth.

    Raises:
        ValueError: no text has a word, or the numbers of vectors and texts differ.
    """
    if len(vectors_ND) != len(texts):
        raise ValueError(f"{len(vectors_ND)} vectors for {len(texts)} texts")
    bags = [set(split_words(text)) for text in texts]
    counts = Counter(word for bag in bags for word in sorted(bag))
    words = [word for word, _ in counts.most_common(vocabulary)]
    if not words:
        raise ValueError("no text has a word")
    targets_NV = _targets(bags, words)
    if penalty is None:
        penalty = _best_penalty(vectors_ND, bags, targets_NV, words, seed)
    return BagInverter(words, *ridge(vectors_ND, targets_NV, penalty), penalty)


def _targets(bags: Sequence[set[str]], words: Sequence[str]) -> "sparse.csr_array":
    """Whether each word is in each text, and the number of different words in the last column."""
    place = {word: number for number, word in enumerate(words)}
    columns = [[*sorted(place[word] for word in bag if word in place), len(words)] for bag in bags]
    values = [[1.0] * (len(row) - 1) + [float(len(bag))] for row, bag in zip(columns, bags, strict=True)]
    ends = np.cumsum([0, *(len(row) for row in columns)])
    flat = np.array([column for row in columns for column in row], dtype=np.int64)
    data = np.array([value for row in values for value in row], dtype=np.float32)
    return sparse.csr_array((data, flat, ends), shape=(len(bags), len(words) + 1))


def _best_penalty(
    vectors_ND: Vectors, bags: Sequence[set[str]], targets_NV: "sparse.csr_array", words: list[str], seed: int
) -> float:
    """The penalty with the best F1 on texts that the regressions compared here did not see."""
    order = np.random.default_rng(seed).permutation(len(bags))
    count = min(HELD_BACK, max(1, len(bags) // 10))
    back, rest = order[:count], order[count:]
    if not len(rest):
        return PENALTIES[1]
    moments = _moments(vectors_ND[rest], targets_NV[rest])
    scores = []
    for penalty in PENALTIES:
        found = BagInverter(words, *_solve(*moments, penalty), penalty).decode(vectors_ND[back])
        scores.append(float(np.mean([token_set_f1(bag, bags[n]) for bag, n in zip(found, back, strict=True)])))
    return PENALTIES[int(np.argmax(scores))]
