"""What an attacker reaches without reading the vector, and with nothing but a search: the rows beside every figure.

Shapes: N held-out texts, M texts to learn from, D dimensions.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from gemma4vec.inversion.held_out import Split
from gemma4vec.inversion.measures import Recovery, measure_bags, measure_texts, split_words
from gemma4vec.retrieval.exact import search
from gemma4vec.text.text_embedder import Vectors


def nearest_text(vectors_ND: Vectors, train_MD: Vectors, split: Split) -> Recovery:
    """The text of the nearest training vector; its exact matches are 0, since no text is on both sides."""
    found = search(vectors_ND, train_MD, 1)
    texts = [split.train[row] for row in found.indices[:, 0]]
    cosines_N = found.scores[:, 0].astype(np.float64)
    return measure_texts(texts, split.held_out, split.held_out_sources, cosines_N)


def unigrams(split: Split) -> Recovery:
    """The most frequent words of the training texts, as many as they have on average."""
    bags = [set(split_words(text)) for text in split.train]
    counts = Counter(word for bag in bags for word in sorted(bag))
    typical = max(1, round(float(np.mean([len(bag) for bag in bags]))))
    guess = [word for word, _ in counts.most_common(typical)]
    return measure_bags([guess] * len(split.held_out), split.held_out, split.held_out_sources)


def shuffled(bags: Sequence[Sequence[str]], split: Split, seed: int = 0) -> Recovery:
    """What an attacker decoded (`bags`, of the held-out texts in order), each taken for another text's.

    That is what it finds given another text's vector: the figure without the text's own vector.
    """
    mixed = [bags[place] for place in derangement(len(bags), seed)]
    return measure_bags(mixed, split.held_out, split.held_out_sources)


def true_text(split: Split, vectors_ND: Vectors, defended_ND: Vectors | None = None) -> Recovery:
    """The ceiling: the text itself, whose vector is compared with the one that the attacker was given."""
    given_ND = vectors_ND if defended_ND is None else defended_ND
    cosines_N = (vectors_ND.astype(np.float64) * given_ND).sum(axis=1)
    return measure_texts(split.held_out, split.held_out, split.held_out_sources, cosines_N)


def derangement(count: int, seed: int = 0) -> "np.ndarray":
    """A random order in which nothing keeps its place, `int64[count]`; of one thing, that thing."""
    order = np.random.default_rng(seed).permutation(count)
    found = np.empty(count, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found
