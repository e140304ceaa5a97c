"""How much of a text came back from its vector: token-set F1, exact match, BLEU, cosine, each with an interval.

A token is a word here, in lower case (`split_words`), so that models with other tokenizers are measured alike.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma4vec.statistics.bootstrap import Interval, mean_interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
WORD = re.compile(r"\w+")
LONGEST_GRAM = 4
RESAMPLES = 2_000


def split_words(text: str) -> list[str]:
    """The words of a text in lower case, in order; punctuation is none.

    Example:
        >>> split_words("Read the FILE, twice: utf_8.")
        ['read', 'the', 'file', 'twice', 'utf_8']
    """
    return WORD.findall(text.lower())


def token_set_f1(found: Collection[str], wanted: Collection[str]) -> float:
    """F1 of two sets of words: order and repetition do not count. Two empty sets are equal.

    Example:
        >>> token_set_f1(["a", "b", "b"], ["b", "c", "d"])  # one of two found, one of three wanted
        0.4
    """
    one, other = set(found), set(wanted)
    if not one and not other:
        return 1.0
    return 2 * len(one & other) / (len(one) + len(other))


def is_exact(found: str, wanted: str) -> bool:
    """Whether two texts are equal, white space at the ends and between words aside; case and punctuation count."""
    return found.split() == wanted.split()


def sentence_bleu(found: Sequence[str], wanted: Sequence[str]) -> float:
    """BLEU of one sequence of words against one reference, from 0 to 1 (Papineni et al. 2002).

    The geometric mean of the precisions of 1- to 4-grams that both are long enough for, times the brevity penalty. The
    k-th precision that is zero counts as `1 / (2^k * n-grams)` (Chen and Cherry 2014, method 3). This is sacrebleu's
    `sentence_bleu` with its defaults, on given words. 0 without a common word.
    """
    logs: list[float] = []
    zeros = 0
    for size in range(1, min(LONGEST_GRAM, len(found)) + 1):
        own, theirs = _grams(found, size), _grams(wanted, size)
        common = sum((own & theirs).values())
        if size == 1 and not common:
            return 0.0
        zeros += not common
        logs.append(math.log((common or 0.5**zeros) / sum(own.values())))
    if not logs:
        return 0.0
    brevity = min(0.0, 1 - len(wanted) / len(found))
    return math.exp(brevity + sum(logs) / len(logs))


def _grams(words: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))


@dataclass(frozen=True)
class Recovery:
    """What came back of N texts.

    Attributes:
        values: by measure (`f1`, `exact`, `bleu`, `cosine`, or fewer) a value for each text, `[N]`.
        sources: the source of each text.
    """

    values: dict[str, Floats]
    sources: tuple[str, ...]

    def interval(self, measure: str = "f1") -> Interval:
        """The mean over all texts with its 95% bootstrap interval."""
        return mean_interval(self.values[measure], resamples=RESAMPLES)

    def of(self, chosen_N: Bools) -> "Recovery":
        """What came back of the chosen texts alone."""
        sources = tuple(source for source, chosen in zip(self.sources, chosen_N, strict=True) if chosen)
        return Recovery({name: values[chosen_N] for name, values in self.values.items()}, sources)

    def by_source(self, measure: str = "f1") -> dict[str, Interval]:
        """The same for the texts of each source alone."""
        sources = np.array(self.sources)
        return {
            source: mean_interval(self.values[measure][sources == source], resamples=RESAMPLES)
            for source in dict.fromkeys(self.sources)
        }


def measure_bags(found: Sequence[Collection[str]], wanted: Sequence[str], sources: Sequence[str]) -> Recovery:
    """Token-set F1 of bags of words that were found, against the texts.

    Raises:
        ValueError: the numbers of bags, texts and sources differ.
    """
    scores = [token_set_f1(bag, split_words(text)) for bag, text in zip(found, wanted, strict=True)]
    return _recovery({"f1": scores}, sources)


def measure_texts(
    found: Sequence[str], wanted: Sequence[str], sources: Sequence[str], cosines_N: Floats | None = None
) -> Recovery:
    """Every measure of texts that were found, against the true ones.

    Args:
        found: the texts that an attacker or decoder wrote.
        wanted: the true texts.
        sources: the source of each text.
        cosines_N: cosine of each found text's vector, as the model encodes it, with the vector that it was made from;
            None leaves the cosine out.

    Raises:
        ValueError: the numbers of texts, sources and cosines differ.
    """
    pairs = [(split_words(one), split_words(other)) for one, other in zip(found, wanted, strict=True)]
    values: dict[str, Sequence[float] | Floats] = {
        "f1": [token_set_f1(one, other) for one, other in pairs],
        "exact": [float(is_exact(one, other)) for one, other in zip(found, wanted, strict=True)],
        "bleu": [sentence_bleu(one, other) for one, other in pairs],
    }
    return _recovery(values if cosines_N is None else {**values, "cosine": cosines_N}, sources)


def _recovery(values: Mapping[str, Sequence[float] | Floats], sources: Sequence[str]) -> Recovery:
    arrays = {name: np.asarray(scores, dtype=np.float64) for name, scores in values.items()}
    wrong = next((name for name, scores in arrays.items() if scores.shape != (len(sources),)), None)
    if wrong is not None:
        raise ValueError(f"{wrong} has {arrays[wrong].shape} values for {len(sources)} texts")
    return Recovery(arrays, tuple(sources))
