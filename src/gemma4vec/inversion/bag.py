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
PENALTIES = (0.003, 0.03, 0.3, 3.0, 30.0)
HELD_BACK = 250  # texts of the training side that choose the penalty
BLOCK = 512
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Ridge:
    """Least squares with a penalty on the squared weights and a free offset.

    The weights `(X'X + penalty I)^-1 X'Y` of centered vectors are kept as the two factors: their product costs more
    than to predict for a thousand vectors.

    Attributes:
        mean_D: mean vector.
        inverse_DD: `(X'X + penalty I)^-1`.
        products_DV: `X'Y`.
        mean_V: mean target.
    """

    mean_D: Floats
    inverse_DD: Floats
    products_DV: Floats
    mean_V: Floats

    def predict(self, vectors_ND: Vectors) -> Floats:
        """`[N, V]`."""
        found: Floats = np.asarray(
            (vectors_ND - self.mean_D) @ self.inverse_DD @ self.products_DV + self.mean_V, np.float32
        )
        return found


@dataclass(frozen=True)
class Moments:
    """What a ridge needs of vectors and targets, whatever the penalty; see `Ridge`."""

    mean_D: Floats
    gram_DD: NDArray[np.float64]
    products_DV: Floats
    mean_V: Floats

    @staticmethod
    def of(vectors_ND: Vectors, targets_NV: "sparse.csr_array") -> "Moments":
        """From vectors `[N, D]` and targets `[N, V]`."""
        mean_D = vectors_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
        centered_ND = vectors_ND - mean_D
        products_DV = np.ascontiguousarray((targets_NV.T @ centered_ND).T, dtype=np.float32)
        gram_DD = (centered_ND.T @ centered_ND).astype(np.float64)
        mean_V = np.asarray(targets_NV.mean(axis=0), dtype=np.float32).ravel()
        return Moments(mean_D, gram_DD, products_DV, mean_V)

    def ridge(self, penalty: float) -> Ridge:
        """The regression with this penalty; scikit-learn's `Ridge(alpha=penalty)` is the same."""
        identity = np.eye(len(self.gram_DD))
        inverse_DD = cho_solve(cho_factor(self.gram_DD + penalty * identity), identity)
        return Ridge(self.mean_D, inverse_DD.astype(np.float32), self.products_DV, self.mean_V)


@dataclass(frozen=True)
class BagInverter:
    """Vectors to words.

    Attributes:
        words: the vocabulary, most frequent first.
        ridge: from a vector to whether each word is in the text; its last value is the number of different words.
        penalty: of the ridge.
    """

    words: list[str]
    ridge: Ridge
    penalty: float

    def decode(self, vectors_ND: Vectors) -> list[list[str]]:
        """The most probable words of each vector, the most probable first; as many as the regression expects."""
        found: list[list[str]] = []
        for start in range(0, len(vectors_ND), BLOCK):
            scores_BV = self.ridge.predict(vectors_ND[start : start + BLOCK])
            counts_B = np.clip(np.rint(np.nan_to_num(scores_BV[:, -1], nan=1.0)), 1, len(self.words)).astype(int)
            most = int(counts_B.max(initial=1))
            best_BK = np.argpartition(-scores_BV[:, :-1], most - 1, axis=1)[:, :most]
            own_BK = np.take_along_axis(scores_BV, best_BK, axis=1)
            order_BK = np.take_along_axis(best_BK, np.argsort(-own_BK, axis=1, kind="stable"), axis=1)
            found += [[self.words[word] for word in row[:count]] for row, count in zip(order_BK, counts_B, strict=True)]
        return found


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
        penalty: None takes the best of five on a tenth of these texts, which is then learned from too.
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
    return BagInverter(words, Moments.of(vectors_ND, targets_NV).ridge(penalty), penalty)


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
        return PENALTIES[2]
    moments = Moments.of(vectors_ND[rest], targets_NV[rest])
    scores = []
    for penalty in PENALTIES:
        found = BagInverter(words, moments.ridge(penalty), penalty).decode(vectors_ND[back])
        scores.append(float(np.mean([token_set_f1(bag, bags[n]) for bag, n in zip(found, back, strict=True)])))
    return PENALTIES[int(np.argmax(scores))]
